"""Training: `fit` is the loop, `evaluate` the loss on other images, `History` what happened."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_utils import settings
from vae_utils.corruption import Corrupted, with_mask_channel
from vae_utils.model import Autoencoder, check_values


@dataclass
class History:
    """The course of a training, in nats per image.

    `epochs`: one dict per epoch with `epoch`, `loss` (= recon + beta * kl), `recon`, `kl`, averaged over the epoch, and with
    validation images `val_loss`, `val_recon`, `val_kl` at its end. `steps`: the loss of every batch.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    interrupted: bool = False

    def column(self, key: str) -> list[float]:
        """One value per epoch."""
        return [epoch[key] for epoch in self.epochs]


@dataclass(frozen=True)
class Losses:
    """Mean over images, in nats per image: `loss` = `recon` + beta * `kl`."""

    loss: float
    recon: float
    kl: float


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers inside the block depend on `seed` alone; outside, they go on as if the block had not been."""
    accelerator = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=accelerator):
        torch.manual_seed(seed)
        yield


def pace(images: Tensor, epochs: int, batch_size: int = 128) -> dict[str, int]:
    """Options of `fit`: these on a data set of MNIST's size, four times the epochs in quarter batches on a thousand images."""
    factor = 4 if len(images) < 5000 else 1
    return {"epochs": factor * epochs, "batch_size": batch_size // factor}


def autocast(model: torch.nn.Module, device: torch.device) -> torch.autocast:
    """bfloat16 for convolutional networks where the processor multiplies it natively, in half the time; else float32."""
    if device.type == "cpu":
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native and getattr(model, "encoder", None) is None)


def fit(
    model: Autoencoder,
    images: Tensor,
    *,
    val_images: Tensor | None = None,
    observed: Tensor | None = None,
    corrupt: Callable[[Tensor], Corrupted] | None = None,
    epochs: int = 3,
    batch_size: int = 128,
    peak_lr: float = 5e-3,
    beta: float = 1.0,
    seed: int | None = None,
    progress: bool = True,
    label: str = "training",
) -> History:
    """Train `model` in place on images held in memory: Adam with a one-cycle learning rate (Smith & Topin 2017).

    Every call sets `conv1_t`'s bias to the images' mean, a trained model's too. Ctrl-C ends early and keeps what was learnt.

    Args:
        images: `(N, 1, 28, 28)` in [0, 1] (or whatever the model's own encoder takes): what the model learns to give back.
        val_images: held-out examples, evaluated after every epoch; they never influence the weights.
        observed: bool `(N, 1, 28, 28)`; pixels where it is False are unknown: they enter neither the input nor the loss.
        corrupt: corrupts each batch anew (see `corruption`): the model sees the result and is scored against the clean one.
        beta: weight of the KL term (1 is the VAE).
        seed: of order, noise and corruption (default `settings.seed()`): with the same machine, threads and model, same weights.

    Raises ValueError for images or settings that cannot be trained with, FloatingPointError when the loss is no number.
    """
    _check(model, images, observed, epochs=epochs, batch_size=batch_size, peak_lr=peak_lr, beta=beta)
    if val_images is not None:  # now, not after the first epoch
        _check(model, val_images)
    device, seed = settings.device(), settings.seed() if seed is None else seed
    model.to(device).train()
    images, observed = images.to(device), None if observed is None else observed.to(device)
    if hasattr(model, "conv1_t"):  # start at the data's mean: the first steps need not find out how dark it is
        torch.nn.init.constant_(model.conv1_t.bias, torch.logit(images.mean(), eps=1e-3).item())
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = torch.optim.Adam(model.parameters(), lr=peak_lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=epochs * steps, cycle_momentum=False)
    history, bar = History(), tqdm(total=epochs * steps, desc=label, disable=not progress, leave=False, unit="batch")
    with seeded(seed), bar:
        try:
            for epoch in range(1, epochs + 1):
                terms = []  # loss, reconstruction and KL of each batch
                for batch in torch.randperm(len(images), device=device)[: steps * batch_size].split(batch_size):
                    targets, known = images[batch], None if observed is None else observed[batch]
                    inputs = network_input(model, targets, known, corrupt)
                    with autocast(model, device):
                        recon, kl = model.loss_terms(inputs, targets, known)
                    loss = (recon + beta * kl).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    terms.append(torch.stack([loss.detach(), recon.detach().mean(), kl.detach().mean()]))
                    bar.update()
                    if len(terms) % 25 == 0 or len(terms) == steps:  # reading a number makes an accelerator wait
                        value = terms[-1][0].item()
                        bar.set_postfix(loss=f"{value:.1f}", refresh=False)
                        if not math.isfinite(value):
                            raise FloatingPointError(f"Loss {value} in epoch {epoch}; try peak_lr={peak_lr / 3:.2g}.")
                means = torch.stack(terms).mean(0).tolist()
                history.steps += [round(value, 3) for value in torch.stack(terms)[:, 0].tolist()]
                history.epochs.append({"epoch": epoch, **dict(zip(("loss", "recon", "kl"), means, strict=True))})
                if val_images is not None:
                    val = evaluate(model, val_images, corrupt=corrupt, beta=beta, seed=epoch)
                    history.epochs[-1] |= {f"val_{name}": value for name, value in asdict(val).items()}
                    model.train()
        except KeyboardInterrupt:
            history.interrupted = True
            print(f"Interrupted in epoch {len(history.epochs) + 1} of {epochs}: the model keeps what it learnt so far.")
    optimizer.zero_grad(set_to_none=True)  # gradients take as much memory as the model
    model.eval()
    return history


def network_input(model: Autoencoder, images: Tensor, observed: Tensor | None, corrupt: Callable | None) -> Tensor:
    """A batch as the encoder sees it: corrupted, unknown pixels black, with the mask beside it if the encoder wants one."""
    if corrupt is None and observed is None and model.in_channels == 1:
        return images
    corrupted = corrupt(images) if corrupt else Corrupted(images, torch.ones_like(images[:, :1], dtype=torch.bool))
    if observed is not None:
        known = corrupted.observed & observed
        corrupted = Corrupted(corrupted.images * known, known)
    return corrupted.images if model.in_channels == 1 else with_mask_channel(corrupted)


def _check(model: Autoencoder, images: Tensor, observed: Tensor | None = None, **options: float) -> None:
    """The door: raises ValueError for what cannot be trained on or with."""
    if model.in_channels == 1:
        model.check_input(images)
    else:  # the mask comes later
        check_values(images, getattr(model, "likelihood", "bernoulli") == "bernoulli")
    if len(images) == 0:
        raise ValueError("images is empty; give at least one image.")
    shape = (len(images), 1, *images.shape[2:])
    if observed is not None and not (observed.dtype == torch.bool and observed.shape == shape and observed.any()):
        found = f"{observed.dtype} {tuple(observed.shape)}, {int(observed.sum())} of them not 0"
        raise ValueError(f"observed is {found}; expected bool {shape}, True where a pixel is known.")
    for name, value in options.items():
        kind, least = Real if name in ("peak_lr", "beta") else Integral, "of at least" if name == "beta" else "above"
        if not (isinstance(value, kind) and 0 <= value < math.inf and (value > 0 or name == "beta")):
            raise ValueError(f"{name} is {value!r}; give a {'whole ' * (kind is Integral)}number {least} 0.")


@torch.no_grad()
def evaluate(
    model: Autoencoder,
    images: Tensor,
    *,
    corrupt: Callable[[Tensor], Corrupted] | None = None,
    beta: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 500,
) -> Losses:
    """Mean loss on `images` in float32, z sampled `samples` times per image (and the corruption drawn anew each time).

    The arguments and errors are those of `fit`; the noise depends on `seed` alone, so that two models meet the same one.
    """
    _check(model, images, samples=samples, batch_size=batch_size, beta=beta)
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64)
    with seeded(seed):
        for batch in [batch for _ in range(samples) for batch in images.split(batch_size)]:
            targets = batch.to(device)
            terms = model.loss_terms(network_input(model, targets, None, corrupt), targets)
            total += torch.stack([term.sum() for term in terms]).cpu().double()  # in this order: MPS has no float64
    recon, kl = (total / (samples * len(images))).tolist()
    return Losses(loss=recon + beta * kl, recon=recon, kl=kl)
