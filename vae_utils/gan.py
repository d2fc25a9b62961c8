"""What if nobody tells the decoder what to draw, and a second network only says whether it looks real?

A small generative adversarial network (Goodfellow et al. 2014, "Generative Adversarial Nets", arXiv:1406.2661) made of the two
halves of the series' VAE: the decoder is the generator, the encoder's layers with a single output are the discriminator.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import cache, settings
from vae_utils.model import Autoencoder, check_images
from vae_utils.training import Adam, History, autocast, found_or_trained, recipe_of, seeded

PENALTY_EVERY = 4  # steps


class Generator(Autoencoder):
    """The VAE's decoder alone: `decode` turns codes `(N, latent_dim)` from N(0, I) into images in [0, 1]."""

    def __init__(self, latent_dim: int):
        super().__init__(latent_dim)
        for name in ("conv1", "conv2", "fc1", "fc21"):  # it has no encoder
            delattr(self, name)


class Discriminator(nn.Module):
    """The VAE's encoder with one output: packs of `pack` images to a logit a pack, positive for "real".

    It sees several images at once, as channels (Lin et al. 2018, "PacGAN", arXiv:1712.04086): a generator that draws the
    same digit over and over is found out. `forward` takes `(N, 1, 28, 28)` with N a multiple of `pack` and gives
    `(N / pack,)`.
    """

    def __init__(self, pack: int = 8):
        super().__init__()
        layers = Autoencoder(latent_dim=1, in_channels=pack)
        self.pack = pack
        self.conv1, self.conv2, self.fc1, self.fc21 = layers.conv1, layers.conv2, layers.fc1, layers.fc21

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % self.pack:
            raise ValueError(f"{len(x)} images cannot be put into packs of {self.pack}; give a multiple.")
        x = x.reshape(-1, self.pack, *x.shape[2:])
        # leaky, so that the generator is told something wherever it stands
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.conv2(x), 0.2)
        x = F.leaky_relu(self.fc1(x.flatten(1)), 0.2)
        return self.fc21(x)[:, 0]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(real) − log(1 − σ(fake)), mean over packs, in nats; 2·log 2 for one that cannot tell (Goodfellow et al.
    2014, eq. 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """−log σ(fake), mean over packs, in nats: the non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def gradient_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """R1: the squared gradient of the logit with respect to real images, mean over packs (Mescheder et al. 2018,
    arXiv:1801.04406)."""
    real = real.detach().requires_grad_(True)
    logits = discriminator(real)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().sum() / len(logits)


def fit_gan(
    generator: Generator,
    images: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    pack: int = 8,
    peak_lr: float = 2e-3,
    penalty: float = 2.0,
    seed: int | None = None,
    progress: bool = True,
    label: str = "GAN",
) -> History:
    """Train `generator` in place against a discriminator that is thrown away afterwards.

    One step: the discriminator learns from `batch_size` real and as many generated images, then the generator from its
    answer. Adam with momentum 0.5; the learning rate falls to 0 over the second half. The same seed gives the same
    weights on the same machine.

    Returns a History with one entry for each 50 steps: `epoch` (passes over the images so far), `discriminator` and
    `generator` (their losses, nats a pack). Raises ValueError for unsuitable images, fewer images than a batch, or a
    batch that is no multiple of `pack`.
    """
    check_images(images)
    if batch_size % pack or not 0 < batch_size <= len(images):
        raise ValueError(
            f"batch_size is {batch_size}; give a multiple of pack ({pack}), at most the {len(images)} images there are."
        )
    if steps < 1:
        raise ValueError(f"steps is {steps!r}; give a whole number of at least 1.")
    device = settings.device()
    images = images.to(device)
    history = History()
    with seeded(settings.seed() if seed is None else seed):
        discriminator = Discriminator(pack).to(device).train()
        generator.to(device).train()
        generator.set_output_bias(images.mean())
        optimizers = [
            Adam(net.parameters(), peak_lr, betas=(0.5, 0.99), fused=True) for net in (generator, discriminator)
        ]
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1, 2 - 2 * step / steps)) for o in optimizers
        ]
        sums = torch.zeros(2, device=device)
        with tqdm(total=steps, desc=label, disable=not progress, leave=False, unit="batch") as bar:
            for step in range(1, steps + 1):
                real = images[torch.randint(len(images), (batch_size,), device=device)]
                losses = _step(generator, discriminator, real, optimizers, penalty if step % PENALTY_EVERY == 0 else 0)
                for schedule in schedules:
                    schedule.step()
                sums += losses
                bar.update()
                if step % 50 == 0:
                    means = dict(zip(("discriminator", "generator"), (sums / 50).tolist(), strict=True))
                    history.epochs.append({"epoch": step * batch_size / len(images), **means})
                    bar.set_postfix({name: f"{value:.2f}" for name, value in means.items()}, refresh=False)
                    sums.zero_()
    generator.eval()
    generator.zero_grad(set_to_none=True)  # as in `fit`
    return history


def _step(
    generator: Generator,
    discriminator: Discriminator,
    real: Tensor,
    optimizers: list[torch.optim.Optimizer],
    penalty: float,
) -> Tensor:
    """One step of both networks; the two losses."""
    with autocast(generator, real.device):
        logits = generator.decode_logits(torch.randn(len(real), generator.latent_dim, device=real.device))
        fake = torch.sigmoid(logits.float())
        on_real, on_fake = discriminator(torch.cat([real, fake.detach()])).float().chunk(2)
        loss_d = discriminator_loss(on_real, on_fake)
    _update(optimizers[1], loss_d)
    if penalty:  # dear, so seldom, and as a step of its own
        _update(optimizers[1], penalty * gradient_penalty(discriminator, real))
    with autocast(generator, real.device):
        loss_g = generator_loss(discriminator(fake).float())
    _update(optimizers[0], loss_g)
    return torch.stack([loss_d.detach(), loss_g.detach()])


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


# what shapes a trained generator besides the code of the other modules
_OWN_CODE = cache.digest(Path(__file__).read_bytes())


def fit_or_load_gan(
    latent_dim: int, images: Tensor, *, name: str, seed: int | None = None, **options
) -> tuple[Generator, History]:
    """The trained generator and its history: from the cache if exactly this was trained before, else fitted now and kept.

    As `training.fit_or_load`; `options` are the keyword arguments of `fit_gan`.
    """
    seed = settings.seed() if seed is None else seed
    with seeded(seed):
        generator = Generator(latent_dim)
    recipe = recipe_of({"gan": latent_dim}, options, seed, {"images": images}, _OWN_CODE)
    history = found_or_trained(
        generator, recipe, name, lambda path: fit_gan(generator, images, seed=seed, label=name, **options)
    )
    return generator, history


def find_codes(
    model: Autoencoder, images: Tensor, *, steps: int = 100, tries: int = 3, lr: float = 0.1, seed: int = 0
) -> Tensor:
    """A code `(N, latent_dim)` for each image by gradient descent on the squared error, the best of `tries` random starts.

    What a model without an encoder has to do in place of `encode`; costs `steps * tries` passes forward and backward an
    image.
    """
    check_images(images)
    device = next(model.parameters()).device
    images = images.to(device)
    with seeded(seed):
        codes = torch.randn(tries, len(images), model.latent_dim, device=device, requires_grad=True)
    optimizer = Adam([codes], lr)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        _squared_errors(model, codes, images).sum().backward(inputs=[codes])
        optimizer.step()
    with torch.no_grad():
        best = _squared_errors(model, codes, images).argmin(0)
    return codes.detach()[best, torch.arange(len(images), device=device)].cpu()


def _squared_errors(model: Autoencoder, codes: Tensor, images: Tensor) -> Tensor:
    decoded = model.decode(codes.flatten(0, 1)).view(*codes.shape[:2], *images.shape[1:])
    return (decoded - images).square().flatten(2).sum(2)
