"""Data is sound or it is not used; nothing here needs MNIST on disk or a network."""

import dataclasses
import functools
import gzip
import hashlib
import http.client
import http.server
import io
import os
import socket
import string
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vae_utils import data

STAND_IN = object()  # what the offline digits are replaced with where only the falling back matters
DELIVERS = io.BytesIO  # a mirror that answers
real_urlopen = urllib.request.urlopen


def idx(array):
    return np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def tiny_files():
    rng = np.random.default_rng(0)
    shapes = {name: (60 if name.startswith("train") else 20, *shape[1:]) for name, shape in data._SHAPES.items()}
    return {name: rng.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8) for name, shape in shapes.items()}


TINY = tiny_files()
SOUND = {name: idx(array) for name, array in TINY.items()}


@pytest.fixture(autouse=True)
def tiny_and_offline(monkeypatch):
    """The family's files shrunk to 60 and 20 images, and no network."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in SOUND.items()}
    monkeypatch.setitem(data._SOURCES, "mnist", dataclasses.replace(data._SOURCES["mnist"], sha256=digests))
    monkeypatch.setattr(data, "_SHAPES", {name: array.shape for name, array in TINY.items()})
    monkeypatch.setattr(data, "VALIDATION", 5)
    mirrors(monkeypatch, lambda url: refuse(urllib.error.URLError("no network")))


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(data, "_offline_digits", lambda: STAND_IN)


def refuse(error):
    raise error


@pytest.fixture
def silence():
    """What a mirror does whose packets vanish, until the test is over."""
    over = threading.Event()
    yield lambda: over.wait(60) and refuse(TimeoutError("the test is over"))
    over.set()


def mirrors(monkeypatch, answer):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: answer(url))


def put(root, folder="MNIST", files=SOUND):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def tree(root):
    """Everything below `root`, with contents and times."""
    return {path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}


def torchvision_that(monkeypatch, act, folder="MNIST"):
    """Replaces a torchvision data set by one whose download is `act(raw folder)`; records what it was called with."""
    calls = []

    class Fake:
        mirrors = ("https://first.invalid/", "https://second.invalid/")

        def __init__(self, root, download):
            calls.append({"root": Path(root), "mirrors": self.mirrors, "timeout": socket.getdefaulttimeout()})
            raw = Path(root, folder, "raw")
            raw.mkdir(parents=True)
            act(raw)

    monkeypatch.setattr(torchvision.datasets, folder, Fake)
    mirrors(monkeypatch, lambda url: DELIVERS())
    return calls


def deliver(raw, files=SOUND):
    print("Downloading, as old versions of torchvision say")
    for name, content in files.items():
        (raw / name).write_bytes(content)


# --- sound files on disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, folder, classes",
    [("mnist", "MNIST", "0"), ("fashion", "FashionMNIST", "T-shirt/top"), ("kmnist", "KMNIST", "o")],
)
def test_sound_files_are_used_and_nothing_is_written(tmp_path, capsys, name, folder, classes):
    put(tmp_path, folder)
    before = tree(tmp_path)
    loaded = data.load(name, tmp_path)
    assert tree(tmp_path) == before and capsys.readouterr().out == ""
    assert loaded.name == name and loaded.class_names[0] == classes and len(loaded.class_names) == 10
    images, labels = TINY["train-images-idx3-ubyte"], TINY["train-labels-idx1-ubyte"]
    for part, expected in (
        (loaded.train_images, images[:55]),
        (loaded.val_images, images[55:]),
        (loaded.test_images, TINY["t10k-images-idx3-ubyte"]),
    ):
        assert part.dtype == torch.float32
        assert torch.equal(part, torch.tensor(expected)[:, None] / 255)
    for part, expected in (
        (loaded.train_labels, labels[:55]),
        (loaded.val_labels, labels[55:]),
        (loaded.test_labels, TINY["t10k-labels-idx1-ubyte"]),
    ):
        assert part.dtype == torch.int64
        assert part.tolist() == expected.tolist()


def test_auto_prefers_sound_mnist_and_the_environment_names_set_and_folder(tmp_path, monkeypatch):
    put(tmp_path)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("VAE_DATASET", raising=False)
    assert data.load().name == "mnist"
    put(tmp_path, "KMNIST")
    monkeypatch.setenv("VAE_DATASET", "kmnist")
    assert data.load().name == "kmnist"


def test_unknown_name_is_named_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"'cifar'.*auto, mnist, fashion, kmnist, digits"):
        data.load("cifar", tmp_path)


def test_the_published_sizes_and_digests(tmp_path, monkeypatch):
    monkeypatch.undo()
    sizes = {
        "train-images": "47,040,016",
        "train-labels": "60,008",
        "t10k-images": "7,840,016",
        "t10k-labels": "10,008",
    }
    digests = data._SOURCES["mnist"].sha256
    assert digests.keys() == data._SHAPES.keys() and all(len(digest) == 64 for digest in digests.values())
    for name, shape in data._SHAPES.items():
        (tmp_path / name).write_bytes(b"short")
        with pytest.raises(data.DataError, match=f"5 bytes where {sizes[name[:-11].rstrip('-')]} belong"):
            data._read_idx(tmp_path / name, shape)


def test_real_mnist_where_there_is_one(monkeypatch):
    monkeypatch.undo()
    if not (data.settings.data_dir() / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip("no MNIST in VAE_DATA_DIR")
    loaded = data.load("mnist")
    assert [len(part) for part in (loaded.train_images, loaded.val_images, loaded.test_labels)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert float(loaded.train_images.mean()) == pytest.approx(0.1307, abs=1e-3)


# --- missing and damaged files --------------------------------------------------------------------------------------


def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "missing": (Path.unlink, "is missing"),
    "truncated": (rewrite(lambda content: content[:-1]), "bytes where"),
    "longer": (rewrite(lambda content: content + b"\n"), "bytes where"),
    "empty": (rewrite(lambda content: b""), "0 bytes where"),
    "still compressed": (rewrite(gzip.compress), "bytes where"),
    "error page": (rewrite(lambda content: b"<!DOCTYPE html><title>404</title>"), "33 bytes where"),
    "error page of the same size": (rewrite(lambda content: b"<html>".ljust(len(content))), "does not begin"),
    "never written by the extraction": (rewrite(lambda content: bytes(len(content))), "does not begin"),
    "other header": (rewrite(lambda content: content[:3] + b"\x02" + content[4:]), "does not begin"),
    "one bit": (rewrite(lambda content: content[:-1] + bytes([content[-1] ^ 1])), "SHA-256"),
    "folder instead": (folder_instead, "cannot be read"),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_kept_and_never_used(tmp_path, capsys, stand_in, name, damage):
    change, complaint = DAMAGE[damage]
    path = put(tmp_path) / name
    change(path)
    before = tree(tmp_path)
    assert data.load("auto", tmp_path) is STAND_IN
    said = capsys.readouterr().out
    assert str(path) in said and complaint in said
    with pytest.raises(data.DataError, match="VAE_DATA_DIR") as raised:
        data.load("mnist", tmp_path)
    assert str(path) in str(raised.value) and complaint in str(raised.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["fashion", "kmnist"])
def test_siblings_are_checked_too_and_never_replaced_by_digits(tmp_path, name):
    raw = put(tmp_path, data._SOURCES[name].folder)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"<html>")
    with pytest.raises(data.DataError, match=r"t10k-labels-idx1-ubyte is damaged: 6 bytes where 28 belong"):
        data.load(name, tmp_path)


def test_unreadable_file_or_folder(tmp_path, capsys, monkeypatch, stand_in):
    raw = put(tmp_path)
    monkeypatch.setattr(Path, "open", lambda path, mode: refuse(PermissionError(13, "Permission denied", str(path))))
    assert data.load("auto", tmp_path) is STAND_IN
    assert f"{raw / 'train-images-idx3-ubyte'} cannot be read: Permission denied" in capsys.readouterr().out


@pytest.mark.parametrize("online", [False, True])
def test_root_that_is_a_file(tmp_path, monkeypatch, stand_in, online):
    root = tmp_path / "root"
    root.write_text("not a folder")
    calls = torchvision_that(monkeypatch, deliver) if online else []
    if not online:
        mirrors(monkeypatch, lambda url: refuse(urllib.error.URLError("no network")))
    assert data.load("auto", root) is STAND_IN
    with pytest.raises(data.DataError, match=str(root)):
        data.load("mnist", root)
    assert root.read_text() == "not a folder" and not calls


# --- falling back ---------------------------------------------------------------------------------------------------


def test_fallback_is_real_digits_and_one_sentence(tmp_path, capfd):
    root = tmp_path / "nowhere"
    loaded = data.load("auto", root)
    assert loaded.name == "digits" and not root.exists()
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.count("\n") == 1 and said.out.endswith(".\n")
    for part in (
        "1,797",
        "scikit-learn",
        "because MNIST could not be had",
        "no network",
        "VAE_DATA_DIR",
        "MNIST/raw/",
        "online",
    ):
        assert part in said.out
    assert str(root / "MNIST" / "raw" / "train-images-idx3-ubyte") in said.out


@pytest.mark.parametrize("name", ["mnist", "fashion", "kmnist"])
def test_a_set_asked_for_by_name_never_falls_back(tmp_path, capfd, stand_in, name):
    folder = data._SOURCES[name].folder
    with pytest.raises(data.DataError, match=rf"is missing.*no network.*VAE_DATA_DIR.*{folder}/raw/"):
        data.load(name, tmp_path / "nowhere")
    assert capfd.readouterr() == ("", "")


def test_packets_that_vanish_cost_the_probe_and_no_more(tmp_path, capsys, monkeypatch, stand_in, silence):
    assert data.PROBE_SECONDS <= 5  # so that loading torchvision and the digits fits into 15 seconds as well
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.2)
    mirrors(monkeypatch, lambda url: silence())
    started = time.monotonic()
    assert data.load("auto", tmp_path) is STAND_IN
    assert time.monotonic() - started < 3
    assert "none answered within 0.2 seconds" in capsys.readouterr().out


# --- the probe ------------------------------------------------------------------------------------------------------


def test_probe_takes_the_mirror_that_delivers(monkeypatch, silence):
    answers = {
        "a": silence,
        "b": lambda: refuse(urllib.error.HTTPError("b", 403, "Forbidden", {}, None)),
        "c": DELIVERS,
    }
    mirrors(monkeypatch, lambda url: answers[url[0]]())
    assert data._first_to_answer(["a/", "b/", "c/"]) == "c/"
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.2)
    with pytest.raises(data.DataError, match="no mirror could be reached: Forbidden"):
        data._first_to_answer(["a/", "b/"])


def test_download_tries_the_mirror_that_answered_first_and_keeps_the_other(tmp_path, monkeypatch):
    calls = torchvision_that(monkeypatch, deliver)
    mirrors(monkeypatch, lambda url: DELIVERS() if "second" in url else refuse(urllib.error.URLError("down")))
    assert data.load("mnist", tmp_path).name == "mnist"
    assert list(calls[0]["mirrors"]) == ["https://second.invalid/", "https://first.invalid/"]


# --- the download ---------------------------------------------------------------------------------------------------


def test_download_into_an_empty_place(tmp_path, capsys, monkeypatch):
    calls = torchvision_that(monkeypatch, deliver)
    root = tmp_path / "new" / "data"
    assert data.load("auto", root).name == "mnist"
    assert {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()} == SOUND
    assert calls[0]["timeout"] == data.SOCKET_SECONDS and socket.getdefaulttimeout() is None
    assert root in calls[0]["root"].parents and not calls[0]["root"].exists()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("MNIST was downloaded to ")
    mirrors(monkeypatch, lambda url: refuse(AssertionError("asked again")))
    assert data.load("mnist", root).name == "mnist" and len(calls) == 1


def test_a_sound_download_replaces_what_was_damaged_and_nothing_else(tmp_path, capsys, monkeypatch):
    raw = put(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes(b"<html>")
    (raw / "notes.txt").write_text("mine")
    torchvision_that(monkeypatch, deliver)
    loaded = data.load("mnist", tmp_path)
    assert loaded.train_labels.tolist() == TINY["train-labels-idx1-ubyte"][:55].tolist()
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == {**SOUND, "notes.txt": b"mine"}
    assert f"because {raw / 'train-labels-idx1-ubyte'} is damaged" in capsys.readouterr().out


def half(raw):
    (raw / "train-images-idx3-ubyte").write_bytes(SOUND["train-images-idx3-ubyte"][:99])


def fails_with(error):
    def act(raw):
        half(raw)
        raise error

    return act


FAILURES = {
    "half a file": (half, "99 bytes where"),
    "error pages": (functools.partial(deliver, files=dict.fromkeys(SOUND, b"<html>")), "6 bytes where"),
    "other contents": (functools.partial(deliver, files={n: c[:-1] + b"\xff" for n, c in SOUND.items()}), "SHA-256"),
    "connection lost": (fails_with(urllib.error.URLError("connection lost")), "connection lost"),
    "silence": (fails_with(TimeoutError("timed out")), "timed out"),
    "cut short": (fails_with(http.client.IncompleteRead(b"")), "IncompleteRead"),
    "archive cut short": (fails_with(EOFError("end-of-stream marker")), "end-of-stream marker"),
    "no mirror right": (fails_with(RuntimeError("Error:\nTried one,\n got another")), "Error: Tried one, got another"),
    "disk full": (fails_with(OSError(28, "No space left on device")), "No space left"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_leaves_everything_as_it_was(tmp_path, capfd, monkeypatch, stand_in, failure):
    act, complaint = FAILURES[failure]
    raw = put(tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in raw.iterdir()}
    torchvision_that(monkeypatch, act)
    assert data.load("auto", tmp_path) is STAND_IN
    said = capfd.readouterr()
    assert said.out.count("\n") == 1 and said.err == ""
    with pytest.raises(data.DataError, match=r"t10k-images-idx3-ubyte is damaged.*the download failed") as raised:
        data.load("mnist", tmp_path)
    assert complaint in said.out and complaint in str(raised.value)
    assert {path: path.read_bytes() for path in raw.iterdir()} == before
    assert socket.getdefaulttimeout() is None


def test_an_interrupted_download_leaves_nothing_behind(tmp_path, monkeypatch):
    torchvision_that(monkeypatch, fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        data.load("auto", tmp_path)
    assert list((tmp_path / "MNIST" / "raw").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_files_appear_whole_and_only_after_all_four_were_checked(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def watched(source, target):
        assert {path.name: path.read_bytes() for path in Path(target).parent.iterdir() if path.is_file()} == dict(seen)
        seen.append((Path(target).name, Path(source).read_bytes()))
        replace(source, target)

    torchvision_that(monkeypatch, deliver)
    monkeypatch.setattr(os, "replace", watched)
    data.load("mnist", tmp_path)
    assert dict(seen) == SOUND


def test_two_downloads_at_once_do_no_harm(tmp_path, monkeypatch):
    loaded = []

    def while_another_one_finishes(raw):
        deliver(raw)
        if len(calls) == 1:
            loaded.append(data.load("mnist", tmp_path))

    calls = torchvision_that(monkeypatch, while_another_one_finishes)
    loaded.append(data.load("mnist", tmp_path))
    assert len(calls) == 2 and calls[0]["root"] != calls[1]["root"]
    assert torch.equal(loaded[0].train_images, loaded[1].train_images)
    assert {path.name: path.read_bytes() for path in (tmp_path / "MNIST" / "raw").iterdir()} == SOUND


@pytest.mark.parametrize("forbidden", ["mkdir", "mkdtemp", "replace"])
def test_a_root_that_cannot_be_written_to_costs_only_the_download(tmp_path, capsys, monkeypatch, stand_in, forbidden):
    calls = torchvision_that(monkeypatch, deliver)
    owner = {"mkdir": Path, "mkdtemp": tempfile, "replace": os}[forbidden]
    with monkeypatch.context() as patch:
        patch.setattr(owner, forbidden, lambda *_, **__: refuse(PermissionError(13, "Permission denied", "there")))
        assert data.load("auto", tmp_path) is STAND_IN
        assert "Permission denied: 'there'" in capsys.readouterr().out
        with pytest.raises(data.DataError, match=r"the download failed: .*Permission denied"):
            data.load("mnist", tmp_path)
    assert bool(calls) == (forbidden == "replace")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_in_the_place_of_a_file_is_not_deleted_and_nothing_is_fetched_for_it(tmp_path, monkeypatch):
    blocked = put(tmp_path) / "t10k-labels-idx1-ubyte"
    folder_instead(blocked)
    calls = torchvision_that(monkeypatch, deliver)
    with pytest.raises(data.DataError, match=rf"needs the place of the folder {blocked}"):
        data.load("mnist", tmp_path)
    assert blocked.is_dir() and not calls


@pytest.mark.parametrize("name", ["mnist", "fashion", "kmnist"])
def test_torchvision_knows_the_same_files_and_classes(name):
    source = data._SOURCES[name]
    dataset = getattr(torchvision.datasets, source.folder)
    assert [file for file, _ in dataset.resources] == [f"{file}.gz" for file in data._SHAPES]
    assert all(mirror.endswith("/") for mirror in dataset.mirrors) and dataset.mirrors
    assert [label.split(" - ")[0] for label in dataset.classes] == list(source.class_names)


@pytest.mark.parametrize("served", ["sound", "corrupted"])
def test_torchvision_itself_downloads_from_a_mirror_of_ours(tmp_path, capfd, monkeypatch, served):
    archives = {f"{name}.gz": gzip.compress(content) for name, content in SOUND.items()}
    sums = [(name, hashlib.md5(archive).hexdigest()) for name, archive in archives.items()]
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, archive in archives.items():
        (mirror / name).write_bytes(archive if served == "sound" else b"<html>")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(mirror)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(urllib.request, "urlopen", real_urlopen)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    try:
        if served == "sound":
            assert data.load("mnist", tmp_path).name == "mnist"
            files = {path.name: path.read_bytes() for path in (tmp_path / "MNIST" / "raw").iterdir()}
            assert files == SOUND
        else:
            with pytest.raises(data.DataError, match=r"the download failed: Error downloading train-images.*corrupted"):
                data.load("mnist", tmp_path)
            assert not list((tmp_path / "MNIST" / "raw").iterdir())
            assert capfd.readouterr().out == ""
    finally:
        server.shutdown()
        server.server_close()


# --- MNIST's frame --------------------------------------------------------------------------------------------------


def centre_of_mass(frame):
    return [float((frame.sum(1 - axis) * np.arange(28)).sum() / frame.sum()) for axis in (0, 1)]


def extent(frame, axis):
    """The first row (axis 0) or column (axis 1) with ink, and the one after the last."""
    inked = np.flatnonzero((frame > 0).any(1 - axis))
    return inked[0], inked[-1] + 1


def assert_in_mnist_frame(frame):
    assert frame.shape == (28, 28) and frame.dtype == np.float32
    assert frame.min() == 0 and frame.max() <= 1
    spans = [extent(frame, axis) for axis in (0, 1)]
    assert max(end - start for start, end in spans) == 20
    for centre, (start, end) in zip(centre_of_mass(frame), spans, strict=True):
        assert abs(centre - 14) <= 0.5 + 1e-4 or (start == 0 and centre > 14) or (end == 28 and centre < 14)


ink_drawings = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, max_side=70), elements=st.floats(0, 1), fill=st.sampled_from([0.0])
).filter(lambda ink: ink.max() >= 0.5 / 255)


@settings(deadline=None, max_examples=100)
@given(ink_drawings)
def test_ink_of_any_shape_fits_the_frame_and_none_is_cut_off(ink):
    frame = data.into_mnist_frame(ink)
    assert_in_mnist_frame(frame)
    inked = ink >= 0.5 / 255
    box = [np.ptp(np.flatnonzero(inked.any(1 - axis))) + 1 for axis in (0, 1)]
    for axis, length in enumerate(box):
        start, end = extent(frame, axis)
        assert end - start == max(1, round(20 * length / max(box)))


def test_framing_keeps_grey_levels_where_nothing_needs_scaling():
    ink = np.random.default_rng(0).uniform(0.1, 1, (20, 12))
    frame = data.into_mnist_frame(np.pad(ink, 5))
    (top, bottom), (left, right) = extent(frame, 0), extent(frame, 1)
    np.testing.assert_allclose(frame[top:bottom, left:right], ink, atol=1e-6)


def test_framing_averages_when_it_shrinks():
    stripes = np.tile([0.0, 1.0], (200, 100))
    inner = data.into_mnist_frame(stripes)[5:23, 5:23]
    assert np.all(np.abs(inner - 0.5) < 0.05)  # not aliased into whatever columns happened to be sampled


def test_a_lopsided_drawing_stays_whole():
    ink = np.zeros((100, 100))
    ink[:5], ink[-1, 0] = 1, 0.01
    frame = data.into_mnist_frame(ink)
    assert extent(frame, 0) == (8, 28)  # the mass lies at its top: the frame's lower border is as far as it can go
    assert_in_mnist_frame(frame)


@pytest.mark.parametrize("ink", [np.zeros((9, 9)), np.full((9, 9), 0.4 / 255), np.zeros((0, 5))])
def test_a_blank_image_cannot_be_framed(ink):
    with pytest.raises(ValueError, match="blank"):
        data.into_mnist_frame(ink)


@pytest.mark.parametrize(
    "ink", [np.ones(9), np.ones((1, 9, 9)), np.full((9, 9), 255), -np.eye(9), np.full((9, 9), np.nan)]
)
def test_what_is_no_image_cannot_be_framed(ink):
    with pytest.raises(ValueError, match=r"2-D image with values in \[0, 1\]"):
        data.into_mnist_frame(ink)


# --- the offline digits ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", Path("is not looked at"))


def test_digits_are_split_without_overlap(digits):
    parts = [digits.train_images, digits.val_images, digits.test_images]
    assert [len(part) for part in parts] == [1300, 147, 350]
    assert len({image.numpy().tobytes() for part in parts for image in part}) == 1797
    for labels in (digits.train_labels, digits.val_labels, digits.test_labels):
        share = labels.bincount(minlength=10) / len(labels)
        assert labels.dtype == torch.int64 and torch.all((share - 0.1).abs() < 0.01)  # stratified


def test_digits_are_in_mnist_s_frame_and_as_inked(digits):
    images = torch.cat([digits.train_images, digits.val_images, digits.test_images])
    assert images.dtype == torch.float32 and images.shape[1:] == (1, 28, 28)
    for image in images:
        assert_in_mnist_frame(image[0].numpy())
    assert float(images.mean()) == pytest.approx(0.1307, abs=0.025)  # MNIST's mean
    solid_height = (images > 0.5).any(3).sum(2).float()
    assert float(solid_height.mean()) > 18.5  # no faint fringe takes up the box
    grey = ((images > 0.1) & (images < 0.9)).sum() / (images > 0.1).sum()
    assert float(grey) == pytest.approx(0.5, abs=0.03)  # as crisp as MNIST


def test_digits_show_what_their_labels_say(digits):
    """A nearest-neighbour reader trained on one part reads the other, so images and labels go together."""
    distances = torch.cdist(digits.test_images.flatten(1), digits.train_images.flatten(1))
    assert (digits.train_labels[distances.argmin(1)] == digits.test_labels).float().mean() > 0.95


def test_digits_are_the_same_for_every_seed_and_quick(digits, monkeypatch):
    monkeypatch.setenv("VAE_SEED", "7")
    np.random.seed(7)
    started = time.monotonic()
    again = data.load("digits")
    assert time.monotonic() - started < 3
    assert torch.equal(again.test_images, digits.test_images) and torch.equal(again.val_labels, digits.val_labels)


# --- letters --------------------------------------------------------------------------------------------------------


def test_letters_fill_mnist_s_frame():
    drawn = data.letters()
    families = list(dict.fromkeys(drawn.fonts))
    assert len(families) >= 5 and "DejaVu Sans" in families
    assert drawn.characters == tuple(string.ascii_uppercase) * len(families)
    assert drawn.images.shape == (26 * len(families), 1, 28, 28) and drawn.images.dtype == torch.float32
    for image in drawn.images:
        assert_in_mnist_frame(image[0].numpy())
        assert np.abs(np.array(centre_of_mass(image[0].numpy())) - 14).max() < 1
        assert image.max() > 0.9  # strokes thick enough to be white somewhere
    assert len({image.numpy().tobytes() for image in drawn.images}) == len(drawn.images)


def test_letters_stand_upright():
    frame = data.letters("L", ["DejaVu Sans"]).images[0, 0]
    (top, bottom), (left, right) = extent(frame.numpy(), 0), extent(frame.numpy(), 1)
    assert frame[top:bottom, left + 1].min() > 0.8 and frame[bottom - 2, left:right].min() > 0.5
    assert frame[top : top + 10, right - 5 : right].max() == 0


def test_letters_of_your_choice():
    drawn = data.letters(["g", "é"], ("STIX", "DejaVu Serif"))
    assert drawn.characters == ("g", "é", "g", "é")
    assert drawn.fonts == ("STIX", "STIX", "DejaVu Serif", "DejaVu Serif")


@pytest.mark.parametrize(
    "characters, fonts, named",
    [
        ("", ["STIX"], "at least one character"),
        ("A", [], "one font"),
        ("A", ["Comic Sans"], "'Comic Sans'.*DejaVu Sans"),
        ("A漢", ["DejaVu Sans", "STIX"], "'DejaVu Sans' .*'漢'"),
        ("A é", ["DejaVu Sans"], "' '"),
        (["A", "AB"], ["STIX"], "'AB'"),
    ],
)
def test_letters_that_cannot_be_drawn_are_named(characters, fonts, named):
    with pytest.raises(ValueError, match=named):
        data.letters(characters, fonts)


def test_emnist_capitals_where_they_are_on_disk(tmp_path, monkeypatch):
    assert data.emnist_letters(tmp_path) is None
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    labels = np.array([9, 10, 35, 36, 61, 12], np.uint8)  # 9, A, Z, a, z, C
    stem = "emnist-byclass-test"
    files = {f"{stem}-images-idx3-ubyte": idx(images), f"{stem}-labels-idx1-ubyte": idx(labels)}
    monkeypatch.setattr(data, "EMNIST_TEST", 6)
    raw = put(tmp_path, "EMNIST", files)
    found = data.emnist_letters(tmp_path)
    assert found.characters == ("A", "Z", "C") and len(set(found.fonts)) == 1 and len(found.fonts) == 3
    assert torch.equal(found.images, torch.tensor(images[[1, 2, 5]]).mT[:, None] / 255)
    (raw / f"{stem}-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(data.DataError, match="labels-idx1-ubyte is damaged"):
        data.emnist_letters(tmp_path)


# --- a rule for picking pictures ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), max_size=40))
def test_first_of_each_class(labels):
    expected = [labels.index(label) for label in sorted(set(labels))]
    found = data.first_of_each_class(torch.tensor(labels, dtype=torch.int64))
    assert found.dtype == torch.int64 and found.tolist() == expected
