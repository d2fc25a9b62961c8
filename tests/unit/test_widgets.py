"""Moving a control changes the picture, at both ends of its range; what goes wrong is written where the reader looks."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vae_utils import widgets
from vae_utils.inference import encode
from vae_utils.model import VAE, Autoencoder
from vae_utils.training import seeded


@pytest.fixture(scope="module")
def plane_model():
    with seeded(0):
        return VAE(2).eval()


@pytest.fixture(scope="module")
def model():
    with seeded(1):
        return VAE(5).eval()


@pytest.fixture
def images():
    return torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_picture_is_a_png_of_the_asked_size_with_the_colours_of_the_figures():
    image = torch.zeros(1, 28, 28)
    image[0, :, 14:] = 1
    picture = pixels(widgets.image_png(image, 56))
    assert picture.shape == (56, 56, 3)
    assert (picture[:, :28] == picture[0, 0]).all() and (picture[:, 28:] == picture[0, -1]).all()
    assert picture[0, 0].sum() < 30 < 600 < picture[0, -1].sum()  # magma: from nearly black to nearly white


def test_a_code_becomes_the_picture_of_what_the_decoder_makes_of_it(model):
    z = torch.linspace(-1, 1, 5)
    decoded = model.decode(z[None])[0]
    assert widgets.png(model, z) == widgets.png(model, z.tolist()) == widgets.image_png(decoded)
    assert widgets.png(model, -z) != widgets.png(model, z)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: widgets.png(model, [0.0, 1.0]), "takes 5 finite numbers"),
        (lambda model: widgets.png(model, [float("nan")] * 5), "takes 5 finite numbers"),
        (lambda model: widgets.image_png(torch.rand(28, 28)), r"shape \(28, 28\)"),
        (lambda model: widgets.image_png(torch.full((1, 28, 28), 255.0)), "expected"),
        (lambda model: widgets.PlaneExplorer(model), "5 latent numbers; the plane needs 2"),
        (lambda model: widgets.MorphExplorer(model, torch.zeros(1, 5)), "at least two codes"),
        (lambda model: widgets.MorphExplorer(model, torch.zeros(3, 4)), r"\(N, 5\)"),
        (lambda model: widgets.LatentExplorer(model, torch.zeros(0, 1, 28, 28), [0]), "empty"),
        (lambda model: widgets.LatentExplorer(model, torch.zeros(1, 1, 28, 28), [5]), "0 to 4"),
        (lambda model: widgets.LatentExplorer(model, torch.zeros(1, 1, 28, 28), []), "latents are"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(model, call, words):
    with pytest.raises(ValueError, match=words):
        call(model)


def test_the_plane_follows_both_sliders_to_both_ends(plane_model):
    explorer = widgets.PlaneExplorer(plane_model, limit=3)
    for number, slider in enumerate(explorer.sliders):
        for value in (slider.min, slider.max):
            slider.value = value
            z = [other.value for other in explorer.sliders]
            assert z[number] == value and abs(value) == 3
            assert explorer.picture.value == widgets.png(plane_model, z)
    assert explorer.error.value == ""


def test_a_morph_begins_at_the_first_code_passes_through_all_and_ends_at_the_last(model):
    path = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    explorer = widgets.MorphExplorer(model, path)
    assert explorer.picture.value == widgets.png(model, path[0])
    for value, code in ((1.0, path[2]), (0.5, path[1]), (0.25, (path[0] + path[1]) / 2), (0.0, path[0])):
        explorer.slider.value = value
        np.testing.assert_allclose(pixels(explorer.picture.value), pixels(widgets.png(model, code)), atol=1)


def test_a_latent_slider_moves_its_own_number_to_both_ends(model, images):
    explorer = widgets.LatentExplorer(model, images, [3, 0])
    start = explorer.code.clone()
    for slider, latent in zip(explorer.sliders, (3, 0), strict=True):
        for value in (slider.min, slider.max):
            slider.value = value
            assert explorer.code[latent].item() == value
            assert explorer.picture.value == widgets.png(model, explorer.code)
    assert torch.equal(explorer.code[[1, 2, 4]], start[[1, 2, 4]])


def test_encoding_takes_over_the_code_of_the_image_asked_for(model, images):
    explorer = widgets.LatentExplorer(model, images, [0, 1, 2, 3, 4])
    mu = encode(model, images)[0]
    for number in (0, 3):
        explorer.number.value = number
        explorer.encode_button.click()
        torch.testing.assert_close(explorer.code, mu[number])
        np.testing.assert_allclose([slider.value for slider in explorer.sliders], mu[number], atol=0.01)
        assert explorer.original.value == widgets.image_png(images[number], widgets.PICTURE_SIDE // 2)
        assert explorer.picture.value == widgets.png(model, explorer.code)


def test_random_draws_another_code_each_time_and_the_same_ones_again_next_time(model, images):
    first, second = (widgets.LatentExplorer(model, images, [1, 2], seed=7) for _ in range(2))
    seen = []
    for _ in range(2):
        first.random_button.click()
        second.random_button.click()
        assert torch.equal(first.code, second.code)
        seen.append(first.picture.value)
    assert seen[0] != seen[1] and first.picture.value == widgets.png(model, first.code)


def test_a_code_beyond_the_sliders_is_drawn_as_it_is_until_its_slider_moves(model, images):
    explorer = widgets.LatentExplorer(model, images, [0, 1], limit=0.5)
    explorer._set(torch.tensor([2.0, 0.1, 0, 0, 0]))
    assert explorer.sliders[0].value == 0.5 and explorer.picture.value == widgets.png(model, [2.0, 0.1, 0, 0, 0])
    explorer.sliders[1].value = -0.5
    assert explorer.picture.value == widgets.png(model, [2.0, -0.5, 0, 0, 0])
    explorer.sliders[0].value = 0.25
    assert explorer.picture.value == widgets.png(model, [0.25, -0.5, 0, 0, 0])


class Stubborn(Autoencoder):
    """A model that decodes nothing to the right of 1."""

    def decode(self, z):
        if z[0, 0] > 1:
            raise RuntimeError("no <digit> there")
        return super().decode(z)


def test_an_error_in_a_callback_reaches_the_reader_and_goes_away_when_all_is_well():
    explorer = widgets.PlaneExplorer(Stubborn(2).eval())
    before = explorer.picture.value
    explorer.sliders[0].value = 2
    assert "RuntimeError: no &lt;digit&gt; there" in explorer.error.value
    assert explorer.picture.value == before
    explorer.sliders[0].value = 0.5
    assert explorer.error.value == "" and explorer.picture.value != before


def test_an_error_behind_a_button_reaches_the_reader_too(model, images):
    explorer = widgets.LatentExplorer(model, images, [0])
    explorer.images = images[:1] + 7
    explorer.encode_button.click()
    assert "expected [0, 1]" in explorer.error.value


def test_the_classes_that_the_browser_test_looks_for_are_there(plane_model, model, images):
    explorers = {
        "vae-plane": widgets.PlaneExplorer(plane_model),
        "vae-morph": widgets.MorphExplorer(model, torch.zeros(2, 5)),
        "vae-latents": widgets.LatentExplorer(model, images, [0, 1]),
    }
    for name, explorer in explorers.items():
        assert name in explorer.box._dom_classes
        assert "vae-picture" in explorer.picture._dom_classes and "vae-error" in explorer.error._dom_classes
