"""The GAN is made of the VAE's halves, learns what can be learnt, finds codes, and is kept under a key of its own."""

import math

import pytest
import torch

from vae_utils import gan, settings
from vae_utils.gan import Discriminator, Generator, fit_gan, fit_or_load_gan
from vae_utils.model import VAE
from vae_utils.training import seeded

DECODER = ("fc3", "fc4", "conv2_t", "conv1_t")


def squares(n, seed=0):
    """Black images with a bright square in the left or in the right half."""
    right = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.5
    images = torch.zeros(n, 1, 28, 28)
    images[~right, :, 8:20, 2:12] = 0.9
    images[right, :, 8:20, 16:26] = 0.9
    return images


def test_the_generator_is_the_vaes_decoder():
    vae, generator = VAE(6), Generator(6)
    decoder = {name: value for name, value in vae.state_dict().items() if name.split(".")[0] in DECODER}
    assert {k: v.shape for k, v in generator.state_dict().items()} == {k: v.shape for k, v in decoder.items()}
    generator.load_state_dict(decoder)
    z = torch.randn(3, 6)
    torch.testing.assert_close(generator.decode(z), vae.decode(z))


def test_the_discriminator_is_the_encoder_with_one_output():
    encoder = {
        k: v.shape for k, v in VAE(1).state_dict().items() if k.split(".")[0] in ("conv1", "conv2", "fc1", "fc21")
    }
    assert {k: v.shape for k, v in Discriminator(pack=1).state_dict().items()} == encoder
    assert Discriminator(pack=1)(torch.rand(5, 1, 28, 28)).shape == (5,)


def test_losses_of_a_discriminator_that_cannot_tell_and_of_one_that_can():
    nothing, sure = torch.zeros(3), torch.full((3,), 20.0)
    assert gan.discriminator_loss(nothing, nothing).item() == pytest.approx(2 * math.log(2))
    assert gan.generator_loss(nothing).item() == pytest.approx(math.log(2))
    assert gan.discriminator_loss(real=sure, fake=-sure) < 1e-6 < 39 < gan.discriminator_loss(real=-sure, fake=sure)
    assert gan.generator_loss(sure) < 1e-6 < 19 < gan.generator_loss(-sure)


def test_the_penalty_is_the_squared_gradient():
    class Linear(torch.nn.Module):
        def forward(self, x):
            return 3 * x.reshape(2, -1).sum(1)

    assert gan.gradient_penalty(Linear(), torch.rand(4, 1, 2, 2)).item() == pytest.approx(9 * 8)  # 8 pixels a pack


def test_it_learns_to_draw_both_squares():
    images = squares(400)
    with seeded(0):
        generator = Generator(2)
    history = fit_gan(generator, images, steps=250, batch_size=32, seed=0, progress=False)
    assert len(history.epochs) == 5 and history.column("epoch")[-1] == pytest.approx(250 * 32 / 400)
    assert all(math.isfinite(value) for entry in history.epochs for value in entry.values())
    drawn = generator.decode(torch.randn(200, 2, generator=torch.Generator().manual_seed(1)))
    left, right = drawn[..., 8:20, 2:12].mean((1, 2, 3)), drawn[..., 8:20, 16:26].mean((1, 2, 3))
    outside = drawn[..., :6, :].mean()
    assert (left + right).mean() > 4 * outside
    assert 0.1 < (left > right).float().mean() < 0.9


def test_the_same_seed_gives_the_same_generator_and_leaves_other_random_numbers_alone():
    def weights(seed):
        torch.manual_seed(5)
        with seeded(0):
            generator = Generator(2)
        fit_gan(generator, squares(64), steps=3, batch_size=16, seed=seed, progress=False)
        return generator.fc3.weight.detach(), torch.rand(1)

    (first, after), (second, again), (other, _) = weights(0), weights(0), weights(1)
    assert torch.equal(first, second) and torch.equal(after, again)
    assert not torch.equal(first, other)


def test_a_trained_gan_is_kept_and_found_again_and_another_recipe_is_another_gan(monkeypatch):
    trained = []
    real_fit = gan.fit_gan
    monkeypatch.setattr(gan, "fit_gan", lambda *a, **k: trained.append(1) or real_fit(*a, **k))
    options = {"name": "g", "batch_size": 16, "progress": False}
    first, history = fit_or_load_gan(2, squares(64), steps=50, **options)
    again, remembered = fit_or_load_gan(2, squares(64), steps=50, **options)
    assert len(trained) == 1 and remembered.epochs == history.epochs
    assert torch.equal(first.fc3.weight, again.fc3.weight)
    for other in ({"seed": 1}, {"penalty": 1.0}):
        fit_or_load_gan(2, squares(64), **({"steps": 2} | options | other))
    fit_or_load_gan(2, squares(64, seed=1), steps=2, **options)
    assert len(trained) == 4 and len(list(settings.cache_dir().glob("g-*.safetensors"))) == 4


def test_a_trained_generator_holds_no_gradients():
    generator = Generator(2)
    fit_gan(generator, squares(64), steps=2, batch_size=32, progress=False)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_codes_are_found_for_images_that_the_model_can_draw():
    with seeded(0):
        generator = Generator(3)
        z = torch.randn(4, 3)
    with torch.no_grad():
        for layer in (generator.fc3, generator.fc4, generator.conv2_t, generator.conv1_t):
            layer.weight *= 3  # so that codes matter
    images = generator.decode(z).detach()
    codes = gan.find_codes(generator, images, steps=200, tries=4)
    assert codes.shape == (4, 3)
    error = (generator.decode(codes) - images).square().mean()
    assert error < 0.1 * (generator.decode(torch.zeros(4, 3)) - images).square().mean()
    assert all(parameter.grad is None for parameter in generator.parameters())
