"""The speedrun: every trick can be left out, and the test that its rules ask for is computed."""

from dataclasses import replace

import pytest
import torch

from tools import speedrun
from vae_utils.data import ImageData
from vae_utils.model import VAE
from vae_utils.training import evaluate

SHORT = replace(speedrun.RECORDS[speedrun.SLOWER], epochs=3, batches=((0.0, 8), (0.5, 16)))


@pytest.fixture
def images():
    blocks = torch.rand(128, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    return blocks.repeat_interleave(7, 2).repeat_interleave(7, 3)


@pytest.fixture
def data(images):
    """Only its validation images are black."""
    labels = torch.zeros(len(images), dtype=torch.long)
    return ImageData("mnist", "MNIST", ("0",), images, torch.zeros_like(images), images, labels, labels, labels)


@pytest.mark.parametrize("change", [{}, *speedrun.TRICKS.values()])
def test_it_learns_with_every_trick_and_without_any_one(images, change):
    model = VAE(latent_dim=10)
    before = evaluate(model, images).loss
    speedrun.train(model, images, replace(SHORT, **change), seed=0)
    assert evaluate(model, images).loss < before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_runs_report_seconds_losses_and_the_chance_that_the_target_was_missed(data, capsys):
    found = speedrun.runs(data, SHORT, range(3), target=1e6, name="short")
    assert len(found["losses"]) == 3 and min(found["seconds"]) > 0 and found["p"] < 0.01
    assert "short: " in capsys.readouterr().out
    assert speedrun.runs(data, SHORT, range(1), target=0, name="one")["p"] is None


def test_settings_are_chosen_on_validation_images(data):
    [val], [test] = (speedrun.runs(data, SHORT, [0], 0, "one", validate)["losses"] for validate in (True, False))
    assert val != test


def test_kernels_and_biases_have_rates_of_their_own(images):
    def moved(**rates):
        torch.manual_seed(0)
        model = VAE(latent_dim=10)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        speedrun.train(model, images, replace(SHORT, epochs=8 / len(images), bias=False, **rates), seed=0)  # one step
        return {name: (parameter - before[name]).abs().max().item() for name, parameter in model.named_parameters()}

    same, own = moved(conv_rate=1.0, bias_rate=1.0), moved(conv_rate=3.0, bias_rate=5.0)
    for name, distance in same.items():
        factor = 5 if name.endswith("bias") else 3 if name.startswith("conv") else 1
        assert own[name] == pytest.approx(factor * distance, rel=0.01)
