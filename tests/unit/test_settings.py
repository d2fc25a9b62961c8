"""What the reader asked for is what they get, wherever Python was started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_utils import settings


def test_settings_name_what_they_refuse(monkeypatch):
    monkeypatch.setenv("VAE_SEED", "-3")
    with pytest.raises(ValueError, match="'-3'"):
        settings.seed()
    monkeypatch.setenv("VAE_DATASET", "cifar")
    with pytest.raises(ValueError, match="'cifar'"):
        settings.dataset()
    monkeypatch.setenv("VAE_CACHE_DIR", "~/somewhere")
    assert settings.cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("VAE_DEVICE", "tpu")
    settings.device.cache_clear()
    with pytest.raises(ValueError, match="'tpu'"):
        settings.device()


@pytest.mark.parametrize("folder", ["data_dir", "cache_dir", "results_dir"])
def test_a_relative_folder_is_the_same_one_for_a_kernel_in_notebooks(folder, monkeypatch):
    root = settings.project_root()
    monkeypatch.setenv(f"VAE_{folder.upper()}", "../elsewhere")
    monkeypatch.chdir(root / "notebooks")
    assert getattr(settings, folder)() == root.parent / "elsewhere"


TORCH_THREADS = "from vae_utils import settings; import torch; print(torch.get_num_threads())"
# SciPy and scikit-learn bring libraries of their own, which are not there yet when the limit is set
MOST_THREADS = """
from vae_utils import settings
import scipy.linalg, sklearn.linear_model
from threadpoolctl import threadpool_info
print(max(library["num_threads"] for library in threadpool_info()))
"""


def threads_of_a_kernel(limit, code=TORCH_THREADS):
    variables = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    variables |= {"CPU_LIMIT": limit}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=variables, cwd=settings.project_root(), capture_output=True, text=True)


@pytest.mark.parametrize("limit", ["1", "1.9", "0.5"])
def test_a_container_with_one_processor_gets_one_thread(limit):
    assert threads_of_a_kernel(limit).stdout.strip() == "1"


def test_libraries_that_are_imported_later_keep_to_the_limit():
    assert threads_of_a_kernel("1", MOST_THREADS).stdout.strip() == "1"


def test_a_limit_that_is_no_number_is_named():
    assert "CPU_LIMIT is 'many'; give a number" in threads_of_a_kernel("many").stderr


def test_mps_is_used_only_when_asked_for(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for asked, device in (("", "cpu"), ("mps", "mps")):
        monkeypatch.setenv("VAE_DEVICE", asked)
        settings.device.cache_clear()
        assert settings.device().type == device
    settings.device.cache_clear()
