"""The speedrun: every trick can be left out, and the test that its rules ask for is computed."""

from dataclasses import replace

import pytest
import torch

from tools import speedrun
from vae_utils.data import ImageData
from vae_utils.model import VAE
from vae_utils.training import evaluate

SHORT = replace(speedrun.RECORDS[101.35], epochs=3, batches=((0.0, 8), (0.5, 16)))


@pytest.fixture
def images():
    blocks = torch.rand(128, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    return blocks.repeat_interleave(7, 2).repeat_interleave(7, 3)


@pytest.mark.parametrize("change", [{}, *speedrun.TRICKS.values()])
def test_it_learns_with_every_trick_and_without_any_one(images, change):
    model = VAE(latent_dim=10)
    before = evaluate(model, images).loss
    speedrun.train(model, images, replace(SHORT, **change), seed=0)
    assert evaluate(model, images).loss < before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_runs_report_seconds_losses_and_the_chance_that_the_target_was_missed(images, capsys):
    labels = torch.zeros(len(images), dtype=torch.long)
    data = ImageData("mnist", "MNIST", ("0",), images, images, images, labels, labels, labels)
    found = speedrun.runs(data, SHORT, range(3), target=1e6, name="short")
    assert len(found["losses"]) == 3 and min(found["seconds"]) > 0 and found["p"] < 0.01
    assert "short: " in capsys.readouterr().out
    assert speedrun.runs(data, SHORT, range(1), target=0, name="one")["p"] is None
