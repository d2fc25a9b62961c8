"""Is everything here that the notebooks need?

`ready()` stands in the first cell of every notebook. On Colab it installs what is missing and leaves alone what Colab
brings; anywhere else it says what is missing and how to get it, before an import fails half-way down. It also has the
kernel give back the memory it no longer needs (see `memory`).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vae_utils import memory
from vae_utils.settings import project_root

TOOLS = "# reading and running"  # what follows this line in requirements.txt is not imported by the notebooks
# Colab's own builds fit its processors, its kernel and its front end: pip is told to keep whichever version it finds.
KEEP = ("torch", "torchvision", "numpy", "ipywidgets", "ipython", "ipykernel")


def needed(requirements: Path | None = None) -> list[str]:
    """The packages that the notebooks import, as the lines of requirements.txt (default: the project's) have them."""
    lines = (
        (requirements or project_root() / "requirements.txt").read_text(encoding="utf-8").split(TOOLS)[0].splitlines()
    )
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()] + ["ipywidgets"]


def missing(requirements: Path | None = None) -> list[str]:
    """Those of `needed` that are not installed in any version."""
    return [line for line in needed(requirements) if installed(re.split(r"[<>=!~;\[ ]", line)[0]) is None]


def installed(package: str) -> str | None:
    """The installed version of a package; None when it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def on_colab() -> bool:
    return "google.colab" in sys.modules


def ready(install: Callable[[list[str]], None] | None = None) -> None:
    """Make sure that the notebooks' imports will succeed.

    Args: install: what to do with the missing packages; default: on Colab, pip. Raises ModuleNotFoundError, with the
    command that helps, when a package is missing anywhere else.
    """
    memory.give_back_after_every_cell()
    absent = missing()
    if not absent:
        return
    if install is None and not on_colab():
        raise ModuleNotFoundError(
            f"Not installed here ({sys.executable}): {', '.join(absent)}. In the folder of the project, `make lab` sets "
            "everything up; without make: pip install -r requirements.txt, then start this notebook again."
        )
    (install or pip_install)(absent)


def pip_install(packages: list[str]) -> None:
    """Install `packages` beside what is there; nothing of `KEEP` changes its version. Raises CalledProcessError."""
    print("Installing", ", ".join(packages))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "keep.txt"
        constraints.write_text("".join(f"{name}=={installed(name)}\n" for name in KEEP if installed(name)))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *packages]
        subprocess.run(command, check=True)
