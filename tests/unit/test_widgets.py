"""Moving a control changes the picture, at both ends of its range; what goes wrong is written where the reader looks."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vae_utils import widgets
from vae_utils.inference import encode
from vae_utils.model import VAE
from vae_utils.training import seeded

with seeded(0):
    PLANE, MODEL, IMAGES = VAE(2).eval(), VAE(5).eval(), torch.rand(4, 1, 28, 28)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_picture_is_a_png_of_the_asked_size_with_the_colours_of_the_figures():
    picture = pixels(widgets.image_png(torch.eye(28)[None], 56))
    assert picture.shape == (56, 56, 3) and (picture[:2, :2] == picture[0, 0]).all()
    assert picture[0, -1].sum() < 30 < 600 < picture[0, 0].sum()  # magma: from nearly black to nearly white


def test_the_plane_follows_both_sliders_to_both_ends_and_has_two():
    explorer = widgets.PlaneExplorer(PLANE, limit=3)
    for slider in explorer.sliders:
        for end in (-3, 3):
            slider.value = end
            z = [other.value for other in explorer.sliders]
            assert explorer.picture.value == widgets.png(PLANE, z)
            assert explorer.picture.value == widgets.image_png(PLANE.decode(torch.tensor([z]))[0])
    assert explorer.error.value == "" and "vae-plane" in explorer.box._dom_classes
    with pytest.raises(ValueError, match="5"):
        widgets.PlaneExplorer(MODEL)


def test_a_morph_begins_at_the_first_code_passes_through_all_and_ends_at_the_last():
    path = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    explorer = widgets.MorphExplorer(MODEL, path)
    for value, code in ((1.0, path[2]), (0.5, path[1]), (0.25, (path[0] + path[1]) / 2), (0.0, path[0])):
        explorer.slider.value = value
        np.testing.assert_allclose(pixels(explorer.picture.value), pixels(widgets.png(MODEL, code)), atol=1)


def test_a_latent_slider_moves_its_own_dimension_to_both_ends():
    explorer = widgets.LatentExplorer(MODEL, IMAGES, [3, 0])
    start = explorer.code.clone()
    for slider, latent in zip(explorer.sliders, (3, 0), strict=True):
        for end in (slider.min, slider.max):
            slider.value = end
            assert explorer.code[latent].item() == end
            assert explorer.picture.value == widgets.png(MODEL, explorer.code)
    assert torch.equal(explorer.code[[1, 2, 4]], start[[1, 2, 4]])


def test_encoding_takes_over_the_code_of_the_image_asked_for():
    explorer = widgets.LatentExplorer(MODEL, IMAGES, range(5))
    mu = encode(MODEL, IMAGES)[0]
    for number in (0, 3):
        explorer.number.value = number
        explorer.encode_button.click()
        torch.testing.assert_close(explorer.code, mu[number])
        np.testing.assert_allclose([slider.value for slider in explorer.sliders], mu[number], atol=0.01)
        assert explorer.original.value == widgets.image_png(IMAGES[number], widgets.PICTURE_SIDE // 2)
        assert explorer.picture.value == widgets.png(MODEL, explorer.code)


def test_random_draws_another_code_each_time_and_the_same_ones_again_next_time():
    explorers = [widgets.LatentExplorer(MODEL, IMAGES, [1, 2], seed=7) for _ in range(2)]
    seen = []
    for _ in range(2):
        for explorer in explorers:
            explorer.random_button.click()
            seen.append(explorer.picture.value)
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_a_code_beyond_the_sliders_is_drawn_as_it_is_until_its_slider_moves():
    explorer = widgets.LatentExplorer(MODEL, IMAGES, [0, 1], limit=0.5)
    explorer._set(torch.tensor([2.0, 0.1, 0, 0, 0]))
    assert explorer.sliders[0].value == 0.5 and explorer.picture.value == widgets.png(MODEL, [2.0, 0.1, 0, 0, 0])
    explorer.sliders[0].value = 0.25
    assert explorer.picture.value == widgets.png(MODEL, [0.25, 0.1, 0, 0, 0])


def test_an_error_in_a_callback_reaches_the_reader_and_goes_away_when_all_is_well(monkeypatch):
    explorer = widgets.PlaneExplorer(PLANE)
    before = explorer.picture.value
    with monkeypatch.context() as broken:
        broken.setattr(widgets, "decode", lambda model, z: [][1])
        explorer.sliders[0].value = 2
        assert "IndexError" in explorer.error.value and explorer.picture.value == before
    explorer.sliders[0].value = 0.5
    assert explorer.error.value == "" and explorer.picture.value != before
    explorer = widgets.LatentExplorer(MODEL, IMAGES, [0])
    explorer.images = IMAGES + 7
    explorer.encode_button.click()
    assert "ValueError" in explorer.error.value
