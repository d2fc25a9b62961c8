"""Grids, alt texts and the drawing of the network."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from vae_utils import plotting
from vae_utils.model import VAE
from vae_utils.training import History


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: pairs of data and metadata."""
    outputs = []
    monkeypatch.setattr(plotting, "display", lambda data, metadata, raw: outputs.append((data, metadata)))
    yield outputs
    plt.close("all")


def test_tiles_lie_row_by_row_with_gaps_between():
    images = torch.arange(5, dtype=torch.float32).view(5, 1, 1, 1).expand(5, 1, 4, 3)
    grid = plotting.tile(images, columns=3, gap=1)
    assert grid.shape == (4 + 1 + 4, 3 + 1 + 3 + 1 + 3)
    assert grid[0, 0] == 0 and grid[0, 4] == 1 and grid[3, 10] == 2 and grid[5, 0] == 3 and grid[8, 6] == 4
    assert np.isnan(grid[4]).all() and np.isnan(grid[:, 3]).all() and np.isnan(grid[5:, 8:]).all()
    assert plotting.tile(images[:4], columns=2, gap=0).shape == (8, 6)


def test_rows_are_labelled_and_of_equal_length():
    rows = {"clean": torch.zeros(3, 1, 4, 4), "noisy": torch.ones(3, 1, 4, 4)}
    axes = plotting.image_rows(rows, "title", columns="abc").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "noisy"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="'noisy': 2"):
        plotting.image_rows(rows | {"noisy": torch.zeros(2, 1, 4, 4)}, "title")
    plt.close("all")


def test_a_shown_figure_is_a_png_with_its_alt_text_and_is_closed(shown):
    figure, _ = plt.subplots()
    plotting.show(figure, alt="A set of empty axes.", name="empty")
    [(data, metadata)] = shown
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and data["text/plain"] == "A set of empty axes."
    assert metadata == {"image/png": {"alt": "A set of empty axes.", "name": "empty"}}
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(ValueError):
        plotting.show(plt.figure(), alt=" ")


def test_an_animation_shows_every_frame_in_the_colours_of_the_figures(shown):
    frames = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    plotting.show_animation(frames, alt='A "square".', name="square")
    [(data, metadata)] = shown
    assert 'alt="A &quot;square&quot;."' in data["text/html"] and metadata["text/html"]["name"] == "square"
    gif = Image.open(io.BytesIO(base64.b64decode(data["text/html"].split("base64,")[1].split('"')[0])))
    assert gif.n_frames == 5 and gif.size == (140, 140) and gif.info["duration"] == 800
    for number in range(5):
        gif.seek(number)
        expected = 255 * np.array(plt.get_cmap(plotting.CMAP)(round(255 * number / 4))[:3])
        np.testing.assert_allclose(np.asarray(gif.convert("RGB"))[3, 3], expected, atol=1)


def test_the_network_is_drawn_from_the_layers_of_a_real_pass():
    model, x = VAE(7), torch.zeros(1, 1, 28, 28)
    shapes = {name: shape for name, _, shape in plotting.layer_shapes(model, x)}
    assert list(shapes) == ["conv1", "conv2", "fc1", "fc21", "fc22", "fc3", "fc4", "conv2_t", "conv1_t"]
    assert shapes["conv2"] == (64, 7, 7) and shapes["fc21"] == (7,) and shapes["conv1_t"] == (1, 28, 28)
    assert not torch.nn.modules.module._global_forward_hooks
    words = " ".join(text.get_text() for text in plotting.architecture(model, x).axes[0].texts)
    assert all(name in words for name in [*shapes, "64×7×7", "7 dimensions"])
    plt.close("all")


def test_a_map_of_codes_colours_the_classes_and_keeps_their_names_apart():
    axes, labels = plt.figure().subplots(), torch.arange(3).repeat_interleave(200)
    codes = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    codes[labels == 2] += 5  # the other two lie one on the other
    plotting.class_map(axes, codes, labels, ["one", "two", "far"], edge=8)
    [dots] = axes.collections
    assert len(dots.get_offsets()) == 600 and axes.get_ylim() == (-8, 8)
    colours = dots.get_facecolor()
    assert [len(np.unique(part, axis=0)) for part in (*colours.reshape(3, 200, 4), colours)] == [1, 1, 1, 3]
    one, two, far = (np.array(text.get_position()) for text in axes.texts)
    assert np.linalg.norm(one - two) >= 0.15 * 8 and far.min() > 4
    plt.close("all")


def test_training_curves_show_training_and_validation():
    epoch = {"loss": 3.0, "recon": 2.0, "kl": 1.0, "val_loss": 3.5, "val_recon": 2.3, "val_kl": 1.2}
    figure = plotting.training_curves(History([{"epoch": n, **epoch} for n in (1, 2)]), "title")
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]
    assert list(figure.axes[0].lines[1].get_ydata()) == [3.5, 3.5]
    figure = plotting.training_curves(History([{"epoch": n, **epoch} for n in (1, 2)], [9.0, 5.0, 3.0, 3.0]), "title")
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.5, 1, 1.5, 2]  # every step, in epochs
    plt.close("all")
