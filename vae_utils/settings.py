"""The reader's choices: folders, data set, seed and device, read from the environment (the README has their table).

A relative folder is taken from the project's root, wherever Python was started.
"""

import os
from functools import cache
from pathlib import Path

import torch

DATASETS = ("auto", "mnist", "fashion", "kmnist", "digits")


def project_root() -> Path:
    """The folder that holds `notebooks/`; the current folder when the package was installed without them."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def _folder(variable: str, default: str) -> Path:
    # from the project's root: a kernel works in notebooks/, the tests do not, and both must find the same folder
    # quotes: Windows' `set VAE_DATA_DIR="C:\\my data"` makes them part of the value
    value = os.path.expandvars(os.environ.get(variable, "").strip(" \"'"))
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
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32:
        raise ValueError(f"VAE_SEED is {text!r}; give a whole number from 0 to 4294967295.")
    return int(text)


@cache
def device() -> torch.device:
    """CUDA where there is one, else the CPU; `VAE_DEVICE` overrules. Chosen once a process.

    Apple's MPS is used only when it is asked for: nobody has run the series on it yet.
    Raises ValueError when `VAE_DEVICE` names a device that this machine does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    asked = os.environ.get("VAE_DEVICE", "").strip().lower()
    if asked and not present.get(asked, False):
        here = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"VAE_DEVICE is {asked!r}; this machine has: {here}. Unset VAE_DEVICE for CUDA, else the CPU.")
    return torch.device(asked or ("cuda" if present["cuda"] else "cpu"))
