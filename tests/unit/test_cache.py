"""A trained model is found again if, and only if, exactly this was trained; a file that cannot be trusted is not used."""

import errno
import linecache
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from vae_utils import cache, settings
from vae_utils.cache import fit_or_load
from vae_utils.corruption import ReplacePixels
from vae_utils.model import VAE
from vae_utils.training import History, fit


@pytest.fixture
def images():
    return torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))


trainings = []


def train(model, images, **options):
    """`fit`, counted."""
    trainings.append(1)
    return fit(model, images, **options)


@pytest.fixture(autouse=True)
def _count_from_zero():
    trainings.clear()


def load(images, seed=0, latent_dim=2, **options):
    options = {"epochs": 1, "progress": False, "train": train, "name": "test"} | options
    return fit_or_load(lambda: VAE(latent_dim), images, seed=seed, **options)


def cached_files():
    return sorted(settings.cache_dir().glob("*"))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_second_call_finds_the_same_model_and_history(images, capsys):
    model, history = load(images)
    again, history_again = load(images)
    assert len(trainings) == 1 and len(cached_files()) == 1
    assert torch.equal(weights(model), weights(again)) and history == history_again
    assert not again.training and capsys.readouterr().out == ""


CHANGES = {"seed": 1, "latent_dim": 3, "epochs": 2, "beta": 2.0, "peak_lr": 1e-3, "corrupt": ReplacePixels(0.1)}
CHANGES |= {"observed": torch.ones(64, 1, 28, 28, dtype=torch.bool)}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_shapes_the_model_is_in_the_key(images, change):
    load(images)
    load(images, **{change: CHANGES[change]})
    assert len(trainings) == 2 and len(cached_files()) == 2


def test_the_data_and_the_version_are_in_the_key_and_the_validation_images_are_not(images, monkeypatch):
    load(images, val_images=images[:8])
    load(images, val_images=images[:16])
    assert len(trainings) == 1
    altered = images.clone()
    altered[0, 0, 0, 0] = 0.5
    load(altered, val_images=images[:8])
    monkeypatch.setattr(cache, "CACHE_VERSION", cache.CACHE_VERSION + 1)
    load(images, val_images=images[:8])
    assert len(trainings) == 3


def test_layers_and_functions_of_a_notebook_are_in_the_key_by_their_source(images):
    class Shift(nn.Module):
        def forward(self, x):
            return x + 1

    first = Shift

    class Shift(nn.Module):
        def forward(self, x):
            return x + 2

    for layer in (first, Shift):
        encoder = nn.Sequential(nn.Flatten(), layer(), nn.Linear(784, 4))
        decoder = nn.Sequential(nn.Linear(2, 784), nn.Unflatten(1, (1, 28, 28)))
        fit_or_load(
            lambda encoder=encoder, decoder=decoder: VAE(2, encoder=encoder, decoder=decoder),
            images,
            **{"name": "own", "epochs": 1, "progress": False, "train": train},
        )
    assert len(trainings) == 2


def cell_with(rate):
    """What a cell defines: `train`, which calls `step`, which uses `RATE`; they call one another."""
    lines = ["def step(x):\n", "    return RATE * x if x else train\n", "def train(x):\n", "    return step(x)\n"]
    names = {"__name__": "__main__", "RATE": rate}
    linecache.cache["<cell>"] = (1, None, lines, "<cell>")
    exec(compile("".join(lines), "<cell>", "exec"), names)
    return names["train"]


LONG, OTHER = (torch.arange(5000.0).index_fill(0, torch.tensor(2500), value) for value in (0, 1))
TEACHERS = [VAE(1), VAE(1)]
ALIKE = {
    "functions whose constant differs": (cell_with(1), cell_with(2)),
    "lists of tensors": ([LONG], [OTHER]),
    "arrays of NumPy": (LONG.numpy(), OTHER.numpy()),
    "models by their weights": TEACHERS,
}


@pytest.mark.parametrize("pair", ALIKE)
def test_what_looks_alike_and_is_not_has_another_key(pair):
    one, other = map(cache._describe, ALIKE[pair])
    assert one != other and one == cache._describe(ALIKE[pair][0])


def test_what_cannot_be_part_of_a_key_or_a_file_name_is_refused(images):
    for vague in (type("Own", (), {"__call__": lambda self, x: x})(), {images}, VAE(1).encode):
        with pytest.raises(ValueError, match="cache key"):
            load(images, corrupt=vague)
    with pytest.raises(ValueError, match=r"\.\./x"):
        load(images, name="../x")


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0xFF
    path.write_bytes(data)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_foreign(path):
    path.write_bytes(b"<!DOCTYPE html><html>not a model</html>")


def damage_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [damage_flip, damage_truncate, damage_foreign, damage_folder])
def test_a_damaged_file_is_named_and_trained_again(images, capsys, damage):
    model, _ = load(images)
    (path,) = cached_files()
    damage(path)
    again, _ = load(images)
    assert len(trainings) == 2 and path.name in capsys.readouterr().out
    assert torch.equal(weights(model), weights(again))


def test_a_model_of_other_settings_under_the_same_name_is_not_used(images, capsys):
    load(images)
    (first,) = cached_files()
    load(images, seed=1)
    (second,) = set(cached_files()) - {first}
    second.write_bytes(first.read_bytes())
    load(images, seed=1)
    assert len(trainings) == 3 and second.name in capsys.readouterr().out


def test_a_full_disk_or_no_folder_costs_the_cache_not_the_run(images, monkeypatch, capsys, tmp_path):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(cache.os, "replace", no_space)
        assert len(load(images)[1].epochs) == 1
    assert "No space left" in capsys.readouterr().out
    assert cached_files() == []  # no half-written file stays behind
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VAE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert len(load(images)[1].epochs) == 1


def test_an_interrupted_model_is_not_cached(images):
    load(images, train=lambda *arguments, **options: History(interrupted=True))
    assert cached_files() == []


def test_two_writers_at_once_do_no_harm(tmp_path: Path):
    path, contents = tmp_path / "model", [bytes([letter]) * 2_000_000 for letter in b"ab"]
    writers = [
        threading.Thread(target=lambda data=data: [cache.write_atomically(path, data) for _ in range(20)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert seen and seen <= set(contents) and list(tmp_path.iterdir()) == [path]
