"""A handout arrives whole or not at all, and overwrites nothing."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from vae_utils import data, handout, settings
from vae_utils.handout import HandoutError

MODELS = {"vae-10-0123456789abcdef.safetensors": b"one", "imputer-fedcba9876543210.safetensors": b"two"}


def idx(shape):
    header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
    return header + np.arange(np.prod(shape)).astype(np.uint8).tobytes()


@pytest.fixture(autouse=True)
def a_machine_that_has_everything(monkeypatch):
    """MNIST's files, shrunk, in the data folder, and two models in the cache."""
    shapes = {name: (3, *shape[1:]) for name, shape in data._SHAPES.items()}
    files = {name: idx(shape) for name, shape in shapes.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setitem(data._SOURCES, "mnist", dataclasses.replace(data._SOURCES["mnist"], sha256=digests))
    monkeypatch.setattr(data, "_SHAPES", shapes)
    raw, cache = settings.data_dir() / "MNIST" / "raw", settings.cache_dir()
    for folder, contents in ((raw, files), (cache, MODELS)):
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)


@pytest.fixture
def stick(tmp_path, capsys):
    folder = tmp_path / "my stick" / "vae"
    handout.make(folder)
    capsys.readouterr()
    return folder


@pytest.fixture
def elsewhere(stick, tmp_path, monkeypatch):
    """Another machine, with nothing."""
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "other" / "data"))
    monkeypatch.setenv("VAE_CACHE_DIR", str(tmp_path / "other" / "cache"))
    return tmp_path / "other"


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_models_and_series_are_in_the_folder(stick):
    names = files_below(stick)
    assert len([name for name in names if name.startswith("data/MNIST/raw/")]) == 4
    assert {name.removeprefix("cache/") for name in names if name.startswith("cache/")} == set(MODELS)
    for name in (
        "requirements.txt",
        "Makefile",
        "notebooks/01_theory_and_model.ipynb",
        "vae_utils/exercises/theory.py",
    ):
        assert names[f"project/{name}"] == (settings.project_root() / name).read_bytes()
    assert not [name for name in names if "__pycache__" in name or "checkpoints" in name]
    assert "make from-stick" in (stick / "START.txt").read_text()


def test_every_file_is_listed_with_its_digest(stick):
    listed = json.loads((stick / "CONTENTS.json").read_text())["sha256"]
    found = files_below(stick)
    del found["CONTENTS.json"]
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def test_what_was_made_can_be_used(stick, elsewhere, capsys):
    handout.use(stick)
    assert capsys.readouterr().out == "6 files put in place, 0 were there already.\n"
    assert len(data.sound_files("mnist")) == 4
    assert files_below(settings.cache_dir()) == MODELS


def test_using_it_twice_changes_nothing(stick, elsewhere, capsys):
    handout.use(stick)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    capsys.readouterr()
    handout.use(stick)
    assert capsys.readouterr().out == "0 files put in place, 6 were there already.\n"
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def test_a_model_of_ones_own_is_kept(stick, elsewhere, capsys):
    settings.cache_dir().mkdir(parents=True)
    mine = settings.cache_dir() / next(iter(MODELS))
    mine.write_bytes(b"mine")
    handout.use(stick)
    assert mine.read_bytes() == b"mine"
    assert "1 trained models of yours differ" in capsys.readouterr().out


def test_a_differing_data_file_is_named_and_nothing_is_copied(stick, elsewhere):
    target = settings.data_dir() / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"other")
    with pytest.raises(
        HandoutError, match="t10k-labels-idx1-ubyte differs from the file of the handout; move yours away"
    ):
        handout.use(stick)
    assert list(files_below(elsewhere).values()) == [b"other"]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["data/MNIST/raw/t10k-images-idx3-ubyte", f"cache/{next(iter(MODELS))}"])
def test_a_damaged_or_missing_file_is_named_and_nothing_is_copied(stick, elsewhere, name, damage):
    damage(stick / name)
    with pytest.raises(HandoutError, match=f"{name}.*copy the handout again"):
        handout.use(stick)
    assert not elsewhere.exists()


def test_another_folder_is_no_handout(tmp_path):
    with pytest.raises(HandoutError, match=r"is no handout: it holds no CONTENTS\.json"):
        handout.use(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"sha256": 3}'])
def test_a_damaged_list_is_told(stick, text):
    (stick / "CONTENTS.json").write_text(text)
    with pytest.raises(HandoutError, match=r"CONTENTS\.json is damaged"):
        handout.use(stick)


@pytest.mark.parametrize("name", ["data/../../escaped", "/data/escaped"])
def test_a_list_that_leads_out_of_the_folder_is_refused(stick, elsewhere, name):
    (stick / "CONTENTS.json").write_text(json.dumps({"sha256": {name: "0"}}))
    with pytest.raises(HandoutError, match="a place outside"):
        handout.use(stick)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(HandoutError, match="full is not empty; name a new folder"):
        handout.make(tmp_path / "full")
    assert list(files_below(tmp_path / "full")) == ["thesis.txt"]


def test_without_sound_data_nothing_is_made(tmp_path):
    (settings.data_dir() / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    with pytest.raises(HandoutError, match=r"no sound MNIST to hand round: .*t10k-images-idx3-ubyte is damaged"):
        handout.make(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_models_it_says_so(tmp_path, capsys):
    for path in settings.cache_dir().iterdir():
        path.unlink()
    handout.make(tmp_path / "new")
    assert "no trained model" in capsys.readouterr().out


def test_wheels_come_for_the_torch_that_was_asked_for(tmp_path, monkeypatch):
    calls = []

    def run(command, check):
        calls.append(command)
        (tmp_path / "new" / "wheels").mkdir(exist_ok=True)
        (tmp_path / "new" / "wheels" / "torch-2.9.1+cpu-cp311-cp311-linux_x86_64.whl").write_bytes(b"wheel")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    handout.make(tmp_path / "new", wheels=True)
    assert calls[0][-4:] == ["--index-url", "https://example.org/cpu", "torch", "torchvision"]
    assert "torch==2.9.1+cpu" in calls[1] and str(settings.project_root() / "requirements.txt") in calls[1]
    assert any(
        name.startswith("wheels/torch-")
        for name in json.loads((tmp_path / "new" / "CONTENTS.json").read_text())["sha256"]
    )


def test_a_failed_download_is_told(tmp_path, monkeypatch):
    def run(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(HandoutError, match="pip ended with status 1"):
        handout.make(tmp_path / "new", wheels=True)


def test_the_command_line_reports_what_stands_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["handout", "use", str(tmp_path)])
    with pytest.raises(SystemExit, match="is no handout"):
        handout.main()


def test_the_command_line_makes_and_uses(tmp_path, monkeypatch, capsys):
    for action in ("make", "use"):
        monkeypatch.setattr(sys, "argv", ["handout", action, str(tmp_path / "new")])
        handout.main()
    assert "0 files put in place, 6 were there already." in capsys.readouterr().out
