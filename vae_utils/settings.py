"""What did the reader ask for? Folders, data set, seed and device, read once from the environment.

| variable        | default            | meaning                                                        |
|-----------------|--------------------|----------------------------------------------------------------|
| `VAE_DATA_DIR`  | `data/`            | the torchvision root: holds `MNIST/raw/` and its siblings       |
| `VAE_DATASET`   | `auto`             | `auto`, `mnist`, `fashion`, `kmnist` or `digits`                |
| `VAE_CACHE_DIR` | `cache/`           | trained models                                                 |
| `VAE_RESULTS_DIR` | `build/results/` | the figures each notebook measured                             |
| `VAE_SEED`      | `0`                | seeds everything                                               |
| `VAE_DEVICE`    | `cuda`, else `cpu` | `cpu`, `cuda` or `mps` (never tried: only when asked for)      |
| `CPU_LIMIT`     | all processors     | set by Binder and JupyterHub: how many processors this learner may use |

A relative folder is taken from the project's root, wherever Python was started.
"""

import os
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

DATASETS = ("auto", "mnist", "fashion", "kmnist", "digits")
DEVICES = ("cpu", "cuda", "mps")


def project_root() -> Path:
    """The folder that holds `notebooks/`; the current folder when the package was installed without them."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def _folder(variable: str, default: str) -> Path:
    # from the project's root: a kernel works in notebooks/, the tests do not, and both must find the same folder
    value = os.environ.get(variable, "").strip()
    return (project_root() / Path(value or default).expanduser()).resolve()


def data_dir() -> Path:
    """Where data sets lie (`VAE_DATA_DIR`)."""
    return _folder("VAE_DATA_DIR", "data")


def cache_dir() -> Path:
    """Where trained models are kept (`VAE_CACHE_DIR`)."""
    return _folder("VAE_CACHE_DIR", "cache")


def results_dir() -> Path:
    """Where notebooks write the figures they measured (`VAE_RESULTS_DIR`)."""
    return _folder("VAE_RESULTS_DIR", "build/results")


def dataset() -> str:
    """The data set asked for (`VAE_DATASET`). Raises ValueError for a name that is none of `DATASETS`."""
    name = os.environ.get("VAE_DATASET", "").strip().lower() or "auto"
    if name not in DATASETS:
        raise ValueError(f"VAE_DATASET is {name!r}; choose one of {', '.join(DATASETS)}.")
    return name


def seed() -> int:
    """The seed for everything random (`VAE_SEED`). Raises ValueError unless it is a whole number from 0 to 2**32 - 1."""
    text = os.environ.get("VAE_SEED", "").strip() or "0"
    if not text.isdecimal() or int(text) >= 2**32:
        raise ValueError(f"VAE_SEED is {text!r}; give a whole number from 0 to 4294967295.")
    return int(text)


def limit_threads() -> int:
    """Use as many threads as `CPU_LIMIT` allows (rounded down, at least one) and say how many; called when this is imported.

    A container sees every processor of its machine. One thread for each, on a share of two, spend their time waiting for
    each other. Raises ValueError when `CPU_LIMIT` is no number above 0.
    """
    text = os.environ.get("CPU_LIMIT", "").strip()
    if text:
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not share > 0:
            raise ValueError(f"CPU_LIMIT is {text!r}; give a number of processors above 0, such as 1, or unset it.")
        threads = max(1, min(int(min(share, 1e6)), os.cpu_count() or 1))
        torch.set_num_threads(threads)
        threadpool_limits(threads)  # NumPy's, which is here already
        for library in ("OMP", "OPENBLAS", "MKL"):  # SciPy's and scikit-learn's read this when they are imported
            os.environ.setdefault(f"{library}_NUM_THREADS", str(threads))
    return torch.get_num_threads()


@cache
def device() -> torch.device:
    """CUDA where there is one, else the CPU; `VAE_DEVICE` overrules. Chosen once a process.

    Apple's MPS is used only when it is asked for: nobody has run the series on it yet.

    Raises ValueError when `VAE_DEVICE` names a device that this machine does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    asked = os.environ.get("VAE_DEVICE", "").strip().lower()
    if asked and not present.get(asked, False):
        here = ", ".join(name for name in DEVICES if present[name])
        raise ValueError(f"VAE_DEVICE is {asked!r}; this machine has: {here}. Unset VAE_DEVICE for CUDA, else the CPU.")
    return torch.device(asked or ("cuda" if present["cuda"] else "cpu"))


limit_threads()
