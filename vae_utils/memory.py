"""How does a notebook give back the memory it no longer needs?

glibc, the C library of most Linux systems, keeps what large tensors held: at the end of a notebook 250 MB and more. Beside
ten other learners on one server, or within Binder's 2 GB, that is what ends a kernel. Elsewhere nothing is done here.
"""

import ctypes
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # from malloc.h


def give_back_after_every_cell() -> bool:
    """From now on return freed memory: large blocks at once, the rest after every cell. False where glibc is not there."""
    try:
        libc = ctypes.CDLL(None)
        set_option = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Left alone, each large block freed raises the size from which on blocks are returned, up to 32 MB. Between 8 MB and
    # 64 MB in all are kept, since a training step asks for them again.
    set_option(MMAP_THRESHOLD, 8 << 20)
    set_option(TRIM_THRESHOLD, 64 << 20)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and give_back not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", give_back)
    return True


def give_back(*_) -> None:
    """Return all freed memory now."""
    ctypes.CDLL(None).malloc_trim(0)
