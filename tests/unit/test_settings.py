"""What the reader asked for is what they get, wherever Python was started."""

from pathlib import Path

import pytest

from vae_utils import settings


def test_settings_name_what_they_refuse(monkeypatch):
    monkeypatch.setenv("VAE_SEED", "-3")
    with pytest.raises(ValueError, match="'-3'"):
        settings.seed()
    monkeypatch.setenv("VAE_SEED", "9" * 5000)  # more digits than int() takes
    with pytest.raises(ValueError, match="VAE_SEED"):
        settings.seed()
    monkeypatch.setenv("VAE_DATASET", "cifar")
    with pytest.raises(ValueError, match="'cifar'"):
        settings.dataset()
    monkeypatch.setenv("VAE_CACHE_DIR", "~/somewhere")
    assert settings.cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("SOME", "/some")
    monkeypatch.setenv("VAE_CACHE_DIR", '"$SOME/where"')
    assert settings.cache_dir() == Path("/some/where")
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


def test_mps_is_used_only_when_asked_for(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for asked, device in (("", "cpu"), ("mps", "mps")):
        monkeypatch.setenv("VAE_DEVICE", asked)
        settings.device.cache_clear()
        assert settings.device().type == device
    settings.device.cache_clear()
