"""A small generative adversarial network (GAN; Goodfellow et al. 2014, arXiv:1406.2661) made of the two halves of the VAE.

The decoder is the generator; the encoder's layers with a single output are the discriminator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import settings
from vae_utils.cache import fit_or_load
from vae_utils.model import Autoencoder, check_values
from vae_utils.training import History, autocast, seeded

PENALTY_EVERY = 4  # steps


class Generator(Autoencoder):
    """The VAE's decoder alone: `decode` turns codes `(N, latent_dim)` from N(0, I) into images in [0, 1]."""

    def __init__(self, latent_dim: int):
        super().__init__(latent_dim)
        for name in ("conv1", "conv2", "fc1", "fc21"):  # it has no encoder
            delattr(self, name)


class Discriminator(nn.Module):
    """The VAE's encoder with one output: `(N, 1, 28, 28)` to one logit per pack of images, `(N / pack,)`, positive for "real".

    It sees several images at once, as channels, so that a generator of one digit alone is found out (Lin et al. 2018,
    "PacGAN", arXiv:1712.04086).
    """

    def __init__(self, pack: int = 8):
        super().__init__()
        layers = Autoencoder(latent_dim=1, in_channels=pack)
        self.pack = pack
        self.conv1, self.conv2, self.fc1, self.fc21 = layers.conv1, layers.conv2, layers.fc1, layers.fc21

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.pack, *x.shape[2:])
        # leaky, so that the generator gets a gradient everywhere
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
    model: Generator,
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
    """Train `model`, the generator, in place against a discriminator that is thrown away afterwards.

    One step: the discriminator learns from `batch_size` real and as many generated images, then the generator from its
    answer. Adam with momentum 0.5; the learning rate falls to 0 over the second half.

    Returns a History with one entry for each 50 steps: `epoch` (passes over the images so far), `discriminator` and
    `generator` (their losses, nats per pack). Raises ValueError for images outside [0, 1].
    """
    check_values(images)
    device = settings.device()
    images = images.to(device)
    history = History()
    with seeded(settings.seed() if seed is None else seed):
        discriminator = Discriminator(pack).to(device).train()
        model.to(device).train()
        torch.nn.init.constant_(model.conv1_t.bias, torch.logit(images.mean(), eps=1e-3).item())  # as in `fit`
        optimizers = [
            torch.optim.Adam(net.parameters(), peak_lr, betas=(0.5, 0.99), fused=True) for net in (model, discriminator)
        ]
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1, 2 - 2 * step / steps)) for o in optimizers
        ]
        sums = torch.zeros(2, device=device)
        with tqdm(total=steps, desc=label, disable=not progress, leave=False, unit="batch") as bar:
            for step in range(1, steps + 1):
                real = images[torch.randint(len(images), (batch_size,), device=device)]
                losses = _step(model, discriminator, real, optimizers, penalty if step % PENALTY_EVERY == 0 else 0)
                for schedule in schedules:
                    schedule.step()
                sums += losses
                bar.update()
                if step % 50 == 0:
                    means = dict(zip(("discriminator", "generator"), (sums / 50).tolist(), strict=True))
                    history.epochs.append({"epoch": step * batch_size / len(images), **means})
                    bar.set_postfix({name: f"{value:.2f}" for name, value in means.items()}, refresh=False)
                    sums.zero_()
    model.eval()
    model.zero_grad()  # as in `fit`
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
    if penalty:  # twice the cost of a step, so in every few only, and as a step of its own
        _update(optimizers[1], penalty * gradient_penalty(discriminator, real))
    with autocast(generator, real.device):
        loss_g = generator_loss(discriminator(fake).float())
    _update(optimizers[0], loss_g)
    return torch.stack([loss_d.detach(), loss_g.detach()])


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def fit_or_load_gan(latent_dim: int, images: Tensor, *, name: str, **options) -> tuple[Generator, History]:
    """The trained generator and its history, through the cache; `options` are those of `fit_gan`."""
    return fit_or_load(lambda: Generator(latent_dim), images, name=name, train=fit_gan, **options)


def find_codes(
    model: Autoencoder, images: Tensor, *, steps: int = 100, tries: int = 3, lr: float = 0.1, seed: int = 0
) -> Tensor:
    """A code `(N, latent_dim)` for each image by gradient descent on the squared error, the best of `tries` random starts.

    What a model without an encoder has to do in place of `encode`; `steps * tries` passes forward and backward per image.
    """
    device = next(model.parameters()).device
    images = images.to(device)
    with seeded(seed):
        codes = torch.randn(tries, len(images), model.latent_dim, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([codes], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        _squared_errors(model, codes, images).sum().backward(inputs=[codes])
        optimizer.step()
    with torch.no_grad():
        best = _squared_errors(model, codes, images).argmin(0)
    return codes.detach()[best, torch.arange(len(images), device=device)].cpu()


def _squared_errors(model: Autoencoder, codes: Tensor, images: Tensor) -> Tensor:
    decoded = model.decode(codes.flatten(0, 1)).view(*codes.shape[:2], *images.shape[1:])
    return (decoded - images).square().flatten(2).sum(2)
