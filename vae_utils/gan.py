"""A small generative adversarial network (GAN; Goodfellow et al. 2014, arXiv:1406.2661): a rival for the VAE in notebook 03.

In the manner of DCGAN (Radford et al. 2015, arXiv:1511.06434): strided convolutions both ways, with the hinge loss and an
exponential moving average of the generator's weights.
"""

import copy
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import settings
from vae_utils.model import check_values
from vae_utils.training import History, autocast, seeded


class Generator(nn.Module):
    """Codes `(N, latent_dim)` from N(0, I) to images `(N, 1, 28, 28)` in [0, 1]."""

    def __init__(self, latent_dim: int, width: int = 32):
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * 49, bias=False),
            nn.BatchNorm1d(2 * width * 49),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),  # -> 14x14
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # -> 28x28
        ).to(memory_format=torch.channels_last)

    def decode(self, z: Tensor) -> Tensor:
        """Named like the decoder of a VAE, so that both are sampled in the same way."""
        return torch.sigmoid(self.layers(z))


class Discriminator(nn.Module):
    """Images `(N, 1, 28, 28)` to one score each, `(N,)`, high for "real". Batch normalisation here would let it tell a real
    batch from a generated one by its statistics."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),  # -> 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # -> 7x7
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1),  # -> 3x3
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * 9, 1),
        ).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, 0]


def fit_gan(
    model: Generator,
    images: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    lr: tuple[float, float] = (1e-3, 2e-3),
    watch: Callable[[Generator], dict[str, float]] | None = None,
    seed: int | None = None,
    progress: bool = True,
    label: str = "GAN",
) -> History:
    """Train `model`, the generator, in place against a discriminator that is thrown away; it ends as the moving average.

    Hinge loss (Lim & Ye 2017, arXiv:1705.02894); Adam with momentum 0.5, learning rates `lr` of generator and discriminator
    falling linearly to 0. `watch` measures the average after 1/8, 1/4, 1/2 and all of the steps, off the clock.

    Returns a History with one entry for each of these times: `step`, `seconds` of training, the losses `discriminator` and
    `generator`, and what `watch` gave. Raises ValueError for images outside [0, 1].
    """
    check_values(images)
    device, history, watched = settings.device(), History(), 0.0
    images = images.to(device)
    with seeded(settings.seed() if seed is None else seed):
        discriminator = Discriminator().to(device).train()
        generator, average = model.to(device).train(), copy.deepcopy(model).eval()
        optimizers = [
            torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.99), fused=True)
            for net, rate in zip((generator, discriminator), lr, strict=True)
        ]
        schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 - step / steps) for o in optimizers]
        marks = {max(1, steps // 8), max(1, steps // 4), max(1, steps // 2), steps}
        started = time.perf_counter()
        for step in tqdm(range(1, steps + 1), label, disable=not progress, leave=False, unit="batch"):
            real = images[torch.randint(len(images), (batch_size,), device=device)]
            losses = _step(generator, discriminator, real, optimizers)
            for schedule in schedules:
                schedule.step()
            keep = min(0.995, step / (step + 10))  # the first steps are soon forgotten
            for kept, new in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - keep) if kept.is_floating_point() else kept.copy_(new)
            if step in marks:
                paused = time.perf_counter()
                entry = dict(zip(("discriminator", "generator"), losses.tolist(), strict=True))
                found = watch(average) if watch else {}
                history.epochs.append({"step": step, "seconds": paused - started - watched, **entry, **found})
                watched += time.perf_counter() - paused
    model.load_state_dict(average.state_dict())
    model.zero_grad()  # as in `fit`
    model.eval()
    return history


def _step(generator: Generator, discriminator: Discriminator, real: Tensor, optimizers: list) -> Tensor:
    """One step of the discriminator, then one of the generator; the two losses."""
    with autocast(generator, real.device):
        fake = generator.decode(torch.randn(len(real), generator.latent_dim, device=real.device)).float()
        on_real, on_fake = discriminator(torch.cat([real, fake.detach()])).float().chunk(2)
    loss_d = (F.relu(1 - on_real) + F.relu(1 + on_fake)).mean()
    optimizers[1].zero_grad()
    loss_d.backward()
    optimizers[1].step()
    with autocast(generator, real.device):
        loss_g = -discriminator(fake).float().mean()
    optimizers[0].zero_grad()
    loss_g.backward(inputs=list(generator.parameters()))
    optimizers[0].step()
    return torch.stack([loss_d.detach(), loss_g.detach()])
