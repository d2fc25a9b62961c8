"""The yardstick itself: both sides of a comparison do what they claim to."""

import sys
from pathlib import Path

import pytest
import torch

from vae_utils import bench
from vae_utils.data import ImageData
from vae_utils.model import VAE
from vae_utils.training import evaluate


@pytest.fixture
def images():
    return torch.randint(0, 256, (128, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255


def test_the_recipe_sees_the_images_that_fit_sees(images):
    pictures = bench.Pictures(images)
    assert len(pictures) == len(images)
    assert torch.allclose(torch.stack([pictures[n] for n in range(len(pictures))]), images, atol=1e-6)


def test_the_recipe_learns(images):
    torch.manual_seed(0)
    model = bench.Perceptron()
    before = bench.test_loss(model, images)
    bench.recipe(model, images, epochs=3)
    assert bench.test_loss(model, images) < before


def test_both_sides_are_judged_alike(images):
    """A VAE's loss by the loop for foreign models is that of `evaluate`, up to the noise of z."""
    torch.manual_seed(0)
    model = VAE(latent_dim=2)

    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x)

    assert bench.test_loss(Foreign(), images) == pytest.approx(evaluate(model, images, samples=3).loss, rel=1e-3)


def test_a_race_times_both_sides_and_says_when_the_loss_was_not_reached(images, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SEEDS", (0,))
    labels = torch.zeros(len(images), dtype=torch.long)
    data = ImageData("mnist", "MNIST", ("0",), images, images, images, labels, labels, labels)
    result = bench.race("a recipe", bench.Perceptron, bench.perceptron, data, 3, epochs=1, peak_lr=1e-6)
    [told] = result["rounds"]
    assert min(told.values()) > 0 and result["ratios"] == [told["recipe_s"] / told["fit_s"]]
    assert not result["reached"] and "BUT NOT TO THE SAME LOSS" in capsys.readouterr().out


def test_both_perceptrons_have_the_same_layers():
    shapes = [sorted(tuple(p.shape) for p in net.parameters()) for net in (bench.Perceptron(), bench.perceptron())]
    assert sum(torch.Size(s).numel() for s in shapes[0]) == sum(torch.Size(s).numel() for s in shapes[1])


def test_a_spread_names_the_median_and_both_ends():
    assert bench.spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_that_of_the_largest_process_below():
    child = "import time; block = b'x' * 300_000_000; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    _, peak = bench.peak_memory([sys.executable, "-c", parent], {})
    assert 286 < peak < 400


def test_a_command_that_fails_is_named():
    with pytest.raises(SystemExit, match="ended with status 3"):
        bench.peak_memory([sys.executable, "-c", "raise SystemExit(3)"], {})
