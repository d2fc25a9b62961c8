"""Data is sound or it is not used; nothing here needs MNIST on disk or a network."""

import gzip
import hashlib
import socket
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from vae_utils import data

rng = np.random.default_rng(0)
LABELS = {
    60: rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 6)),
    20: np.repeat(np.arange(10, dtype=np.uint8), 2),
}


def idx(array):
    return np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def tiny(name, shape):
    count = 60 if name.startswith("train") else 20
    return LABELS[count] if len(shape) == 1 else rng.integers(0, 256, (count, *shape[1:]), np.uint8)


TINY = {name: tiny(name, shape) for name, (shape, _) in data.FILES.items()}
SOUND = {name: idx(array) for name, array in TINY.items()}


@pytest.fixture(autouse=True)
def _tiny_and_offline(monkeypatch):
    """The family's files shrunk to 60 and 20 images, and no network."""
    files = {name: (TINY[name].shape, hashlib.sha256(content).hexdigest()) for name, content in SOUND.items()}
    monkeypatch.setattr(data, "FILES", files)
    monkeypatch.setattr(data, "VALIDATION", 5)

    def offline(mirrors):
        raise data.DataError("no mirror could be reached")

    monkeypatch.setattr(data, "_check_online", offline)


def put(root, folder="MNIST", files=SOUND):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def download_that(monkeypatch, act):
    """Replaces torchvision's MNIST by one whose download is `act(raw folder)`."""

    class Fake:
        mirrors = ("https://first.invalid/",)

        def __init__(self, root, download):
            assert socket.getdefaulttimeout() == 10
            raw = Path(root, "MNIST", "raw")
            raw.mkdir(parents=True)
            act(raw)

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    monkeypatch.setattr(data, "_check_online", lambda mirrors: None)


def deliver(raw, files=SOUND):
    for name, content in files.items():
        (raw / name).write_bytes(content)


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_sound_files_are_used(tmp_path, name, folder):
    put(tmp_path, folder)
    loaded = data.load(name, tmp_path)
    images, labels = TINY["train-images-idx3-ubyte"], TINY["train-labels-idx1-ubyte"]
    assert loaded.name == name and len(loaded.class_names) == 10
    assert torch.equal(loaded.train_images, torch.tensor(images[:55])[:, None] / 255)
    assert torch.equal(loaded.val_images, torch.tensor(images[55:])[:, None] / 255)
    assert loaded.val_labels.tolist() == labels[55:].tolist() and loaded.test_labels.dtype == torch.int64


def test_auto_prefers_sound_mnist_and_an_unknown_name_is_named(tmp_path, monkeypatch):
    put(tmp_path)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    assert data.load().name == "mnist"
    assert [path.name for path in data.sound_files()] == list(data.FILES)
    with pytest.raises(ValueError, match="'cifar'"):
        data.load("cifar", tmp_path)


def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "missing": (Path.unlink, "is missing"),
    "truncated": (rewrite(lambda content: content[:-1]), "bytes where"),
    "still compressed": (rewrite(gzip.compress), "bytes where"),
    "error page": (rewrite(lambda content: b"<!DOCTYPE html><title>404</title>"), "33 bytes where"),
    "never written by the extraction": (rewrite(lambda content: bytes(len(content))), "does not begin"),
    "one bit": (rewrite(lambda content: content[:-1] + bytes([content[-1] ^ 1])), "SHA-256"),
    "folder instead": (folder_instead, "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_kept_and_never_used(tmp_path, capsys, damage):
    change, complaint = DAMAGE[damage]
    path = put(tmp_path) / "t10k-images-idx3-ubyte"
    change(path)
    assert data.load("auto", tmp_path).name == "digits"
    said = capsys.readouterr().out
    assert str(path) in said and complaint in said and said.count("\n") == 1
    with pytest.raises(data.DataError, match="VAE_DATA_DIR") as raised:
        data.load("mnist", tmp_path)
    assert str(path) in str(raised.value) and complaint in str(raised.value)
    assert path.exists() == (damage != "missing")


def test_files_that_wait_to_be_unpacked_are_named(tmp_path):
    put(tmp_path, files={f"{name}.gz": gzip.compress(content) for name, content in SOUND.items()})
    with pytest.raises(data.DataError, match=r"is missing; unpack train-images-idx3-ubyte\.gz"):
        data.load("mnist", tmp_path)


def test_labels_that_no_sibling_has_are_refused(tmp_path):
    """Random labels up to 255, or MNIST's own files, in a sibling's folder: its classes would not be of one size."""
    labels = TINY["train-labels-idx1-ubyte"].copy()
    for folder, wrong in (("FashionMNIST", 255), ("KMNIST", 3)):
        labels[np.flatnonzero(labels == 7)[0]] = wrong
        put(tmp_path, folder, SOUND | {"train-labels-idx1-ubyte": idx(labels)})
    for name in ("fashion", "kmnist"):
        with pytest.raises(data.DataError, match="train-labels-idx1-ubyte is damaged"):
            data.load(name, tmp_path)


def test_a_download_comes_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    download_that(monkeypatch, lambda raw: deliver(raw, SOUND | {"t10k-images-idx3-ubyte": b"<html>"}))
    with pytest.raises(data.DataError, match="6 bytes where"):
        data.load("mnist", tmp_path)
    assert list((tmp_path / "MNIST" / "raw").iterdir()) == []
    download_that(monkeypatch, deliver)
    assert data.load("mnist", tmp_path).name == "mnist"
    assert "was downloaded" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(SOUND)
    assert socket.getdefaulttimeout() is None


def test_no_answer_within_seconds_is_offline(monkeypatch):
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and never answers
        monkeypatch.setattr(data, "PATIENCE", 1)
        with pytest.raises(data.DataError, match="no mirror"):
            data._check_online([f"http://127.0.0.1:{silent.getsockname()[1]}/"])


def test_offline_digits_look_like_mnist():
    loaded = data.load("digits")
    sizes = [len(part) for part in (loaded.train_images, loaded.val_images, loaded.test_labels)]
    assert sizes == [1300, 147, 350]
    images = loaded.train_images
    assert images.shape[1:] == (1, 28, 28) and images.min() == 0 and 0.9 < images.max() <= 1
    assert 0.08 < images.mean() < 0.2
    rows = torch.arange(28.0).view(1, 1, 28, 1)
    centres = (images * rows).sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert ((centres - 14).abs() <= 0.75).float().mean() > 0.95


def test_a_frame_keeps_proportions_and_refuses_what_is_blank_or_out_of_range():
    ink = np.zeros((100, 60))
    ink[20:80, 10:40] = 1
    rows, columns = np.nonzero(data.into_mnist_frame(ink) > 0.5)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    for bad in (np.zeros((5, 5)), np.full((5, 5), 255.0), np.full((5, 5), np.nan)):
        with pytest.raises(ValueError):
            data.into_mnist_frame(bad)


def test_letters_in_shipped_fonts_and_in_a_file():
    import matplotlib

    drawn = data.letters("AB", ["STIX", "DejaVu Sans"])
    assert drawn.images.shape == (4, 1, 28, 28) and drawn.characters == ("A", "B", "A", "B")
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", data.FONT_FILES["STIX"])
    own = data.letters("AB", [file])
    assert torch.equal(own.images, drawn.images[:2]) and own.fonts == (str(file),) * 2
    every = data.letters()
    assert len(every.images) == len(string.ascii_uppercase) * len(data.FONT_FILES)
    assert every.images.flatten(1).max(1).values.min() > 0.9  # strokes thick enough to be white somewhere
    with pytest.raises(ValueError, match="漢"):
        data.letters("漢", ["STIX"])


def test_the_first_of_each_class():
    assert data.first_of_each_class(torch.tensor([2, 0, 2, 1, 0])).tolist() == [1, 3, 0]
