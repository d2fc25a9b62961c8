"""A bundle arrives whole or not at all, and overwrites nothing."""

import hashlib
import json
import shutil
import subprocess

import pytest

from tools import bundle
from tools.bundle import BundleError
from vae_utils import data, settings

MODELS = {"vae-10-0123456789abcdef.safetensors": b"one", "imputer-fedcba9876543210.safetensors": b"two"}
RAW = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


@pytest.fixture(autouse=True)
def a_machine_that_has_everything(monkeypatch):
    """Four small files that pass for MNIST, and two models in the cache."""
    contents = {settings.data_dir() / "MNIST" / "raw" / name: name.encode() for name in RAW}
    contents |= {settings.cache_dir() / name: content for name, content in MODELS.items()}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def sound_files(name):
        raw = settings.data_dir() / "MNIST" / "raw"
        for path in (raw / name for name in RAW):
            if path.read_bytes() != path.name.encode():
                raise data.DataError(f"{path} is damaged")
        return [raw / name for name in RAW]

    monkeypatch.setattr(data, "sound_files", sound_files)


@pytest.fixture
def stick(tmp_path, monkeypatch):
    """A bundle made here, to be used on another machine, which has nothing."""
    folder = tmp_path / "my stick" / "vae"
    bundle.make(folder)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "other" / "data"))
    monkeypatch.setenv("VAE_CACHE_DIR", str(tmp_path / "other" / "cache"))
    return folder


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_models_and_series_are_listed_with_their_digests(stick):
    found = files_below(stick)
    listed = json.loads(found.pop("CONTENTS.json"))["sha256"]
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert {name.removeprefix("cache/") for name in found if name.startswith("cache/")} == set(MODELS)
    for name in ("requirements.txt", "Makefile", "notebooks/01_theory_and_model.ipynb", "tools/bundle.py"):
        assert found[f"project/{name}"] == (settings.project_root() / name).read_bytes()
    assert not [name for name in found if "__pycache__" in name or "checkpoints" in name]


def test_what_was_made_can_be_used_twice_and_a_model_of_ones_own_is_kept(stick, capsys):
    mine = settings.cache_dir() / next(iter(MODELS))
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    bundle.main(["use", str(stick)])
    assert len(data.sound_files("mnist")) == 4
    assert files_below(settings.cache_dir()) == MODELS | {mine.name: b"mine"}
    assert "5 files put in place, 0 were" in capsys.readouterr().out
    bundle.use(stick)
    said = capsys.readouterr().out
    assert "0 files put in place, 5 were" in said and "1 trained models of yours" in said


def test_a_differing_data_file_is_named_and_nothing_is_copied(stick, tmp_path):
    target = settings.data_dir() / "MNIST" / "raw" / RAW[3]
    target.parent.mkdir(parents=True)
    target.write_bytes(b"other")
    with pytest.raises(BundleError, match=RAW[3]):
        bundle.use(stick)
    assert list(files_below(tmp_path / "other").values()) == [b"other"]


@pytest.mark.parametrize("name", [f"data/MNIST/raw/{RAW[2]}", f"cache/{next(iter(MODELS))}"])
def test_a_damaged_or_missing_file_is_named_and_nothing_is_copied(stick, tmp_path, name):
    for damage in (lambda: (stick / name).write_bytes(b"x"), lambda: (stick / name).unlink()):
        damage()
        with pytest.raises(BundleError, match=name):
            bundle.use(stick)
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["data/../../out", "data/../out", "/data/out", "cache/..\\..\\out", "C:\\out"])
def test_a_name_that_leads_out_of_the_folder_is_refused(stick, name):
    outside = stick / "data" / ".." / "out"
    outside.write_bytes(b"")
    (stick / "CONTENTS.json").write_text(json.dumps({"sha256": {name: hashlib.sha256(b"").hexdigest()}}))
    with pytest.raises(BundleError, match="outside"):
        bundle.use(stick)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"sha256": 3}'])
def test_a_folder_without_a_sound_list_is_no_bundle(stick, text):
    (stick / "CONTENTS.json").unlink()
    if text is not None:
        (stick / "CONTENTS.json").write_text(text)
    for named in (stick, stick / "START.txt"):
        with pytest.raises(SystemExit, match=r"CONTENTS\.json"):
            bundle.main(["use", str(named)])


def test_nothing_is_written_over_and_nothing_made_of_damaged_data(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="full"):
        bundle.make(tmp_path / "full")
    assert list(files_below(tmp_path / "full")) == ["thesis.txt"]
    (settings.data_dir() / "MNIST" / "raw" / RAW[0]).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=RAW[0]):
        bundle.make(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wheels_come_for_the_torch_that_was_asked_for_with_what_builds_the_package(tmp_path, monkeypatch):
    calls = []

    def run(command, check, cwd=None):
        calls.append(command)
        (tmp_path / "new" / "wheels").mkdir(exist_ok=True)
        (tmp_path / "new" / "wheels" / "torch-2.9.1+cpu-cp311-cp311-linux_x86_64.whl").write_bytes(b"wheel")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    bundle.make(tmp_path / "new", wheels=True)
    assert calls[0][-4:] == ["--index-url", "https://example.org/cpu", "torch", "torchvision"]
    assert {"torch==2.9.1+cpu", "requirements.txt", "setuptools"} <= set(calls[1])
    assert any("wheels/torch-" in name for name in files_below(tmp_path / "new"))


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_wheels_on_a_stick_that_is_not_there_are_named(tmp_path):
    command = ["make", "-f", str(settings.project_root() / "Makefile"), "setup", "WHEELS=/no such/stick"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode and "no folder /no such/stick" in ended.stdout and not (tmp_path / ".venv").exists()
