"""Fitting, interrupting, evaluating, and the cache, on small random images."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from vae_utils import files, settings, training
from vae_utils.corruption import DropPixels, ReplacePixels
from vae_utils.model import VAE, Autoencoder, loss_function
from vae_utils.training import Adam, evaluate, fit, fit_or_load, seeded


@pytest.fixture
def images():
    """Bright bars at random places: learnable in a second."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(256, 1, 28, 28)
    for image, top in zip(x, torch.randint(4, 20, (256,), generator=generator).tolist(), strict=True):
        image[0, top : top + 4, 6:22] = 0.9
    return x


def build(latent_dim=2, **options):
    torch.manual_seed(0)
    return VAE(latent_dim, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_lowers_the_loss_and_keeps_a_full_history(images):
    model = build()
    before = evaluate(model, images).loss
    history = fit(model, images, val_images=images[:32], epochs=4, batch_size=32, progress=False)
    assert evaluate(model, images).loss < 0.6 * before
    assert history.column("epoch") == [1, 2, 3, 4]
    for epoch in history.epochs:
        assert epoch["loss"] == pytest.approx(epoch["recon"] + epoch["kl"], rel=1e-4)
        assert epoch["val_loss"] == pytest.approx(epoch["val_recon"] + epoch["val_kl"])
        assert epoch["kl"] >= 0
    assert not history.interrupted


def test_the_same_seed_gives_the_same_weights_to_the_last_bit_and_another_does_not(images):
    runs = []
    for seed in (0, 0, 1):
        model = build()
        fit(model, images, epochs=1, seed=seed, progress=False, corrupt=ReplacePixels(0.1))
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("fused", [False, True])
def test_adam_takes_the_steps_of_torchs_adam_to_the_last_bit(images, fused):
    ends = []
    for kind in (Adam, torch.optim.Adam):
        layer = nn.Linear(784, 3)
        nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
        optimizer = kind(layer.parameters(), lr=1e-2, betas=(0.5, 0.99), fused=fused)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=8, cycle_momentum=False)
        for batch in images.split(32):
            layer(batch.flatten(1)).square().mean().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        assert layer.weight.grad is None
        ends.append(weights(layer))
    assert torch.equal(*ends) and not torch.equal(ends[0], torch.ones_like(ends[0]))


def test_training_does_not_load_the_compiler_that_it_does_not_use():
    program = """
import sys, torch
from vae_utils import classifier, gan, model, training
x = torch.rand(64, 1, 28, 28)
training.fit(model.VAE(2), x, epochs=1, progress=False)
gan.fit_gan(gan.Generator(2), x, steps=1, batch_size=64, progress=False)
classifier.fit_classifier(x, torch.arange(64) % 10, epochs=1, progress=False)
sys.exit("torch._dynamo" in sys.modules)
"""
    folder = Path(training.__file__).parent.parent
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)


def test_training_leaves_the_global_random_state_and_the_images_alone(images):
    copy = images.clone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = build()
    torch.manual_seed(5)
    fit(model, images, epochs=1, progress=False, corrupt=DropPixels(0.5))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(images, copy)


def test_validation_does_not_change_what_is_learnt(images):
    plain, watched = build(), build()
    fit(plain, images, epochs=2, progress=False)
    fit(watched, images, epochs=2, progress=False, val_images=images[:50])
    assert torch.equal(weights(plain), weights(watched))


class Spy(VAE):
    """Remembers what it was given and what it was scored against."""

    def loss_terms(self, inputs, targets, weights=None):
        self.seen = [*getattr(self, "seen", []), (inputs, targets, weights)]
        return super().loss_terms(inputs, targets, weights)


def test_a_denoiser_is_given_the_noisy_image_and_scored_against_the_clean_one(images):
    model = Spy(2)
    fit(model, images, epochs=1, batch_size=64, progress=False, corrupt=ReplacePixels(0.25))
    assert len(model.seen) == 4
    for inputs, targets, _ in model.seen:
        changed = (inputs != targets).float().mean().item()
        assert 0.2 < changed <= 0.25
        assert set(targets.unique().tolist()) == set(images.unique().tolist())
    first, second = model.seen[0][0], model.seen[1][0]
    assert not torch.equal(first != model.seen[0][1], second != model.seen[1][1])  # the noise is drawn anew


def test_an_imputer_is_given_the_mask_as_its_second_channel(images):
    model = Spy(2, in_channels=2)
    fit(model, images, epochs=1, batch_size=64, progress=False, corrupt=DropPixels(0.5))
    inputs, targets, weights = model.seen[0]
    pixels, mask = inputs[:, :1], inputs[:, 1:]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(pixels, targets * mask)
    assert weights is None


def test_unknown_pixels_enter_neither_the_input_nor_the_loss(images):
    observed = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    results = []
    for filler in (0.0, 1.0):
        model = build(in_channels=2)
        spoilt = torch.where(observed, images, torch.tensor(filler))
        fit(model, spoilt, observed=observed, corrupt=DropPixels(0.2), epochs=1, progress=False, fresh=False)
        results.append(weights(model))
    assert torch.equal(*results)


def test_the_output_bias_starts_at_the_data_mean(images):
    model = build()
    model.set_output_bias(images.mean())
    assert torch.sigmoid(model.conv1_t.bias).item() == pytest.approx(images.mean().item(), rel=1e-4)


def test_ctrl_c_keeps_the_model_and_the_history_so_far(images, capsys):
    class Interrupted(VAE):
        steps = 0

        def loss_terms(self, *arguments):
            self.steps += 1
            if self.steps == 6:  # in the second epoch of four steps
                raise KeyboardInterrupt
            return super().loss_terms(*arguments)

    model = Interrupted(2)
    before = weights(model).clone()
    history = fit(model, images, epochs=5, batch_size=64, progress=False)
    assert history.interrupted and len(history.epochs) == 1
    assert not torch.equal(before, weights(model))
    assert "epoch 2 of 5" in capsys.readouterr().out


def test_a_loss_that_is_no_number_stops_training_with_advice(images):
    with pytest.raises(FloatingPointError, match="peak_lr"):
        fit(build(), images, epochs=1, batch_size=32, peak_lr=1e8, progress=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"peak_lr": 0.0}, "peak_lr is 0.0"),
        ({"observed": torch.ones(3, 1, 28, 28, dtype=torch.bool)}, "observed has shape"),
    ],
)
def test_bad_settings_are_named(images, options, says):
    with pytest.raises(ValueError, match=says):
        fit(build(), images, progress=False, **options)


def test_bad_images_are_named(images):
    with pytest.raises(ValueError, match="empty"):
        fit(build(), images[:0])
    with pytest.raises(ValueError, match="255"):
        fit(build(), images * 255)


def test_evaluate_is_the_mean_loss_per_image_whatever_the_batch(images):
    model = build()
    with torch.no_grad(), seeded(3):
        recon, mu, logvar = model(images)
        expected = loss_function(recon, images, mu, logvar).item() / len(images)
    assert evaluate(model, images, seed=3, batch_size=1000).loss == pytest.approx(expected, rel=1e-5)
    many = [evaluate(model, images, seed=3, samples=20, batch_size=size).loss for size in (50, 256)]
    assert many[0] == pytest.approx(many[1], rel=1e-3)
    losses = evaluate(model, images, beta=3.0)
    assert losses.loss == pytest.approx(losses.recon + 3 * losses.kl)


def test_a_plain_autoencoder_is_fitted_by_the_same_function(images):
    torch.manual_seed(0)
    model = Autoencoder(2)
    history = fit(model, images, epochs=3, batch_size=32, progress=False)
    assert history.column("kl") == [0, 0, 0]
    assert history.column("loss")[-1] < history.column("loss")[0]


# ---- the cache ----


def test_a_trained_model_holds_no_gradients(images):
    model = build()
    fit(model, images, epochs=1, batch_size=32, progress=False)
    assert all(parameter.grad is None for parameter in model.parameters())


def load(images, seed=0, latent_dim=2, **options):
    options = {"epochs": 1, "progress": False} | options
    return fit_or_load(lambda: VAE(latent_dim), images, name="test", seed=seed, **options)


def cached_files():
    return sorted(settings.cache_dir().glob("*"))


@pytest.fixture
def fits(monkeypatch):
    """Counts how often something was really trained."""
    calls = []
    monkeypatch.setattr(training, "fit", lambda *a, **k: calls.append(1) or fit(*a, **k))
    return calls


def test_the_second_call_finds_the_same_model_and_history(images, fits, capsys):
    model, history = load(images)
    again, history_again = load(images)
    assert len(fits) == 1 and len(cached_files()) == 1
    assert torch.equal(weights(model), weights(again))
    assert history.epochs == history_again.epochs
    assert not again.training
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"latent_dim": 3},
        {"epochs": 2},
        {"beta": 2.0},
        {"peak_lr": 1e-3},
        {"corrupt": ReplacePixels(0.1)},
        {"val_images": torch.zeros(4, 1, 28, 28)},
    ],
)
def test_whatever_shapes_the_model_is_in_the_key(images, fits, change):
    load(images)
    load(images, **change)
    assert len(fits) == 2 and len(cached_files()) == 2


def test_the_data_and_the_corruption_level_are_in_the_key(images, fits):
    load(images, corrupt=ReplacePixels(0.1))
    load(images, corrupt=ReplacePixels(0.2))
    altered = images.clone()
    altered[0, 0, 0, 0] = 0.5
    load(altered, corrupt=ReplacePixels(0.1))
    assert len(fits) == 3


def test_layers_of_ones_own_are_in_the_key_by_their_source(images, fits):
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
            name="own",
            epochs=1,
            progress=False,
        )
    assert len(fits) == 2


def test_the_code_that_trained_is_in_the_key_not_what_the_files_say_now(images, fits, monkeypatch):
    load(images)
    with monkeypatch.context() as edited_while_running:
        edited_while_running.setattr(Path, "read_bytes", lambda self: b"edited", raising=True)
        assert training._recipe(build(), images, 0, {})["code"] == training.CODE
    monkeypatch.setattr(training, "CODE", "another version")
    load(images)
    assert len(fits) == 2


def test_a_setting_without_a_telling_repr_is_refused(images):
    with pytest.raises(ValueError, match="cache key"):
        load(images, corrupt=lambda x: x)


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0xFF
    path.write_bytes(data)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_foreign(path):
    path.write_bytes(b"<!DOCTYPE html><html>not a model</html>")


def damage_empty(path):
    path.write_bytes(b"")


def damage_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [damage_flip, damage_truncate, damage_foreign, damage_empty, damage_folder])
def test_a_damaged_file_is_named_and_trained_again(images, fits, capsys, damage):
    model, _ = load(images)
    (path,) = cached_files()
    damage(path)
    again, _ = load(images)
    assert len(fits) == 2
    assert path.name in capsys.readouterr().out
    assert torch.equal(weights(model), weights(again))


def test_a_model_of_other_settings_under_the_same_name_is_not_used(images, fits, capsys):
    load(images)
    (first,) = cached_files()
    load(images, seed=1)
    (second,) = set(cached_files()) - {first}
    second.write_bytes(first.read_bytes())
    load(images, seed=1)
    assert len(fits) == 3
    assert "other code, data or settings" in capsys.readouterr().out


def test_a_full_disk_costs_the_cache_not_the_run(images, monkeypatch, capsys):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", no_space)
    model, history = load(images)
    assert len(history.epochs) == 1 and model is not None
    assert "No space left" in capsys.readouterr().out
    assert cached_files() == []  # no half-written file stays behind


def test_a_cache_folder_that_cannot_be_made_costs_the_cache_not_the_run(images, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VAE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    _, history = load(images)
    assert len(history.epochs) == 1
    assert "could not be kept" in capsys.readouterr().out


def test_an_interrupted_model_is_not_cached(images, monkeypatch):
    def interrupted(*arguments, **options):
        history = fit(*arguments, **options)
        history.interrupted = True
        return history

    monkeypatch.setattr(training, "fit", interrupted)
    load(images)
    assert cached_files() == []


def test_two_writers_at_once_do_no_harm(tmp_path):
    path = tmp_path / "model"
    contents = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    writers = [
        threading.Thread(target=lambda data=data: [files.write_atomically(path, data) for _ in range(20)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert seen and seen <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


def test_evaluating_needs_no_float64_of_the_device(monkeypatch):
    """Apple's MPS has none; a stand-in for it here: only what has been moved to the CPU may become double."""
    to_cpu, to_double = torch.Tensor.cpu, torch.Tensor.double
    moved = set()

    def cpu(tensor):
        result = to_cpu(tensor).clone()
        moved.add(result.data_ptr())
        return result

    def double(tensor):
        if tensor.data_ptr() not in moved:
            raise TypeError("this device has no float64")
        return to_double(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "double", double)
    assert evaluate(VAE(latent_dim=2), torch.rand(3, 1, 28, 28)).loss > 0
