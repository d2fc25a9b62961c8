"""Grids, alt texts and the drawing of the network."""

import io

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from vae_utils import plotting
from vae_utils.model import VAE
from vae_utils.training import History


def test_tiles_lie_row_by_row_with_gaps_between():
    images = torch.arange(5, dtype=torch.float32).view(5, 1, 1, 1).expand(5, 1, 4, 3)
    grid = plotting.tile(images, columns=3, gap=1)
    assert grid.shape == (4 + 1 + 4, 3 + 1 + 3 + 1 + 3)
    assert grid[0, 0] == 0 and grid[0, 4] == 1 and grid[3, 10] == 2 and grid[5, 0] == 3 and grid[8, 6] == 4
    assert np.isnan(grid[4]).all() and np.isnan(grid[:, 3]).all() and np.isnan(grid[5:, 8:]).all()


def test_nothing_to_tile_is_an_error():
    with pytest.raises(ValueError, match=r"0 image"):
        plotting.tile(torch.zeros(0, 1, 2, 2), columns=3)
    with pytest.raises(ValueError, match=r"0 column"):
        plotting.tile(torch.zeros(1, 1, 2, 2), columns=0)


def test_rows_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=r"'noisy': 2"):
        plotting.image_rows({"clean": torch.zeros(3, 1, 4, 4), "noisy": torch.zeros(2, 1, 4, 4)}, "title")


def test_a_shown_figure_is_a_png_with_its_alt_text_and_is_closed(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **options: shown.append((data, options)))
    figure, _ = plt.subplots()
    plotting.show(figure, alt="A set of empty axes.", name="empty")
    ((data, options),) = shown
    assert data["image/png"].startswith("iVBOR")
    assert data["text/plain"] == "A set of empty axes."
    assert options == {"metadata": {"image/png": {"alt": "A set of empty axes.", "name": "empty"}}, "raw": True}
    assert not plt.fignum_exists(figure.number)


def test_a_figure_without_description_is_refused():
    with pytest.raises(ValueError, match="alt is empty"):
        plotting.show(plt.figure(), alt=" ")
    plt.close("all")


def test_an_animation_shows_every_frame_in_the_colours_of_the_figures():
    frames = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    gif = Image.open(io.BytesIO(plotting.animation_gif(frames, seconds=1.0, side=8)))
    assert gif.n_frames == 5 and gif.size == (8, 8) and gif.info["duration"] == 200
    for number in range(5):
        gif.seek(number)
        expected = 255 * np.array(plt.get_cmap(plotting.CMAP)(round(255 * number / 4))[:3])
        np.testing.assert_allclose(np.asarray(gif.convert("RGB"))[3, 3], expected, atol=1)


def test_an_animation_carries_its_description_and_refuses_what_does_not_move(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **options: shown.append((data, options)))
    plotting.show_animation(torch.rand(2, 1, 4, 4), alt='A "square" that flickers.', name="square")
    ((data, options),) = shown
    assert 'alt="A &quot;square&quot; that flickers."' in data["text/html"]
    assert options["metadata"]["text/html"] == {"alt": 'A "square" that flickers.', "name": "square"}
    with pytest.raises(ValueError, match="alt is empty"):
        plotting.show_animation(torch.rand(2, 1, 4, 4), alt="")
    with pytest.raises(ValueError, match="at least two"):
        plotting.animation_gif(torch.rand(1, 1, 4, 4))


def test_layer_shapes_are_those_of_a_real_pass_and_leave_no_hooks():
    model = VAE(10)
    names = [name for name, _, _ in plotting.layer_shapes(model, torch.zeros(1, 1, 28, 28))]
    assert names == ["conv1", "conv2", "fc1", "fc21", "fc22", "fc3", "fc4", "conv2_t", "conv1_t"]
    shapes = {name: shape for name, _, shape in plotting.layer_shapes(model, torch.zeros(1, 1, 28, 28))}
    assert shapes["conv2"] == (64, 7, 7) and shapes["fc21"] == (10,) and shapes["conv1_t"] == (1, 28, 28)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_the_network_is_drawn_with_every_layer_named():
    figure = plotting.architecture(VAE(7), torch.zeros(1, 1, 28, 28))
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    for name in (
        "conv1",
        "conv2",
        "fc1",
        "fc21: mu",
        "fc22: logvar",
        "7 numbers",
        "fc3",
        "fc4",
        "conv2_t",
        "conv1_t",
        "64×7×7",
    ):
        assert name in words
    plt.close(figure)


def test_training_curves_show_training_and_validation():
    epoch = {"loss": 3.0, "recon": 2.0, "kl": 1.0, "val_loss": 3.5, "val_recon": 2.3, "val_kl": 1.2}
    figure = plotting.training_curves(History([{"epoch": n, **epoch} for n in (1, 2)]), "title")
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]
    assert list(figure.axes[0].lines[1].get_ydata()) == [3.5, 3.5]
    plt.close(figure)
