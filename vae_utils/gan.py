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
    """Codes `(N, latent_dim)` from N(0, I) to images `(N, 1, 28, 28)` in [0, 1]; with `classes`, the one-hot class stands
    behind the code, `(N, latent_dim + classes)`."""

    def __init__(self, latent_dim: int, width: int = 32, classes: int = 0):
        super().__init__()
        self.latent_dim, self.classes = latent_dim, classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + classes, 2 * width * 49, bias=False),
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
    """Images `(N, 1, 28, 28)` and their one-hot classes `(N, classes)` to one score each, `(N,)`, high for "real". A class
    adds its own product with the features (Miyato & Koyama 2018, arXiv:1802.05637). Batch normalisation here would let it
    tell a real batch from a generated one by its statistics."""

    def __init__(self, width: int = 32, classes: int = 0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),  # -> 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # -> 7x7
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1),  # -> 3x3
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * 9, 1 + classes),
        ).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, one_hot: Tensor | None = None) -> Tensor:
        scores = self.layers(x)
        return scores[:, 0] if one_hot is None else scores[:, 0] + (scores[:, 1:] * one_hot).sum(1)


def fit_gan(
    model: Generator,
    images: Tensor,
    *,
    steps: int,
    labels: Tensor | None = None,
    batch_size: int = 64,
    lr: tuple[float, float] = (1e-3, 2e-3),
    watch: Callable[[Generator], dict[str, float]] | None = None,
    seed: int | None = None,
    progress: bool = True,
    label: str = "GAN",
) -> History:
    """Train `model`, the generator, in place against a discriminator that is thrown away; it ends as the moving average.

    Hinge loss (Lim & Ye 2017, arXiv:1705.02894); Adam with momentum 0.5, learning rates `lr` of generator and discriminator
    falling linearly to 0. A `model` with classes needs `labels`, `(N,)`, and draws digits of the classes of each batch.
    `watch` measures the average after 1/8, 1/4, 1/2 and all of the steps, off the clock.

    Returns a History with one entry for each of these times: `step`, `seconds` of training, the losses `discriminator` and
    `generator`, and what `watch` gave. Raises ValueError for images outside [0, 1].
    """
    check_values(images)
    device, history, watched = settings.device(), History(), 0.0
    images = images.to(device)
    one_hot = F.one_hot(labels, model.classes).float().to(device) if model.classes else images.new_zeros(len(images), 0)
    with seeded(settings.seed() if seed is None else seed):
        discriminator = Discriminator(classes=model.classes).to(device).train()
        generator, average = model.to(device).train(), copy.deepcopy(model).eval()
        nets = zip((generator, discriminator), lr, strict=True)
        optimizers = [torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.99), fused=True) for net, rate in nets]
        schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 - step / steps) for o in optimizers]
        marks = {max(1, steps // 8), max(1, steps // 4), max(1, steps // 2), steps}
        started = time.perf_counter()
        for step in tqdm(range(1, steps + 1), label, disable=not progress, leave=False, unit="batch"):
            batch = torch.randint(len(images), (batch_size,), device=device)
            real, own = images[batch], one_hot[batch]
            codes = torch.cat([torch.randn(batch_size, model.latent_dim, device=device), own], 1)
            with autocast(generator, device):
                fake = generator.decode(codes).float()
                scores = discriminator(torch.cat([real, fake.detach()]), torch.cat([own, own])).float()
            loss_d = (F.relu(1 - scores[:batch_size]) + F.relu(1 + scores[batch_size:])).mean()
            optimizers[1].zero_grad()
            loss_d.backward()
            optimizers[1].step()
            with autocast(generator, device):
                loss_g = -discriminator(fake, own).float().mean()
            optimizers[0].zero_grad()
            loss_g.backward(inputs=list(generator.parameters()))
            optimizers[0].step()
            for schedule in schedules:
                schedule.step()
            keep = min(0.995, step / (step + 10))  # the first steps are soon forgotten
            for kept, new in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - keep) if kept.is_floating_point() else kept.copy_(new)
            if step in marks:
                paused = time.perf_counter()
                entry = {"step": step, "seconds": paused - started - watched, "discriminator": loss_d.item()}
                history.epochs.append(entry | {"generator": loss_g.item()} | (watch(average) if watch else {}))
                watched += time.perf_counter() - paused
    model.load_state_dict(average.state_dict())
    model.zero_grad()  # as in `fit`
    model.eval()
    return history
