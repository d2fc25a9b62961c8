"""Fitting, interrupting and evaluating, on small random images."""

import pytest
import torch
import torch.nn.functional as F

from vae_utils.corruption import DropPixels, ReplacePixels
from vae_utils.model import VAE, Autoencoder, kl_divergence
from vae_utils.training import evaluate, fit, seeded


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
    assert history.column("epoch") == [1, 2, 3, 4] and len(history.steps) == 4 * 8
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


def test_unknown_pixels_enter_neither_the_input_nor_the_loss(images, monkeypatch):
    observed = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    results = []
    for filler in (0.0, 1.0):
        model = build(in_channels=2)
        filled = torch.where(observed, images, torch.tensor(filler))
        # the output bias starts at the mean of all pixels: the same for both
        monkeypatch.setattr(torch.nn.init, "constant_", lambda *_: None)
        fit(model, filled, observed=observed, corrupt=DropPixels(0.2), epochs=1, progress=False)
        results.append(weights(model))
    assert torch.equal(*results)


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
        ({"epochs": 1.5}, "epochs is 1.5; give a whole number"),
        ({"batch_size": 32.0}, "batch_size is 32.0; give a whole number"),
        ({"peak_lr": "0.1"}, "peak_lr is '0.1'; give a number"),
        ({"val_images": torch.rand(5, 1, 14, 14)}, r"\(5, 1, 14, 14\)"),
        ({"observed": torch.zeros(256, 1, 28, 28, dtype=torch.bool)}, "0 of them"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"peak_lr": 0.0}, "peak_lr is 0.0"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"observed": torch.ones(3, 1, 28, 28, dtype=torch.bool)}, r"\(3, 1, 28, 28\)"),
        ({"observed": torch.ones(256, 1, 28, 28, dtype=torch.uint8)}, "uint8"),
    ],
)
def test_bad_settings_are_named(images, options, says):
    model = build()
    with pytest.raises(ValueError, match=says):
        fit(model, images, progress=False, **options)
    assert torch.equal(weights(model), weights(build()))  # refused at the door, not after an epoch


def test_bad_images_are_named(images):
    with pytest.raises(ValueError, match="empty"):
        fit(build(), images[:0])
    for model in (build(), build(in_channels=2)):
        with pytest.raises(ValueError, match="255"):
            fit(model, images * 255)
    with pytest.raises(ValueError, match=r"float64; the model computes in torch.float32"):
        fit(build(), images.double())
    with pytest.raises(ValueError, match="ndarray; expected a tensor"):
        fit(build(), images.numpy())
    with pytest.raises(ValueError, match="samples is 0"):
        evaluate(build(), images, samples=0)
    with pytest.raises(ValueError, match="beta is nan"):
        evaluate(build(), images, beta=float("nan"))


def test_evaluate_is_the_mean_loss_per_image_whatever_the_batch(images):
    model = build()
    with torch.no_grad(), seeded(3):
        recon, mu, logvar = model(images)
        loss = F.binary_cross_entropy(recon, images, reduction="sum") + kl_divergence(mu, logvar).sum()
        expected = loss.item() / len(images)
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


def test_a_trained_model_holds_no_gradients(images):
    model = build()
    fit(model, images, epochs=1, batch_size=32, progress=False)
    assert all(parameter.grad is None for parameter in model.parameters())


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
