"""The VAE speedrun: the article's network to a given test loss in as few seconds as two processor cores allow.

python tools/speedrun.py                       # the records: one run each
python tools/speedrun.py --seeds 10            # ten runs each, with the test that the rules in docs/speed.md ask for
python tools/speedrun.py --ablate              # the faster record with every trick left out in turn
python tools/speedrun.py --seeds 3 --validate  # on the validation images: where settings are chosen

The rules, the records and what did not pay are in docs/speed.md; `make bench` times this program beside the article's recipe.
"""

import argparse
import contextlib
import ctypes
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from vae_utils.data import ImageData, load
from vae_utils.model import VAE
from vae_utils.training import autocast, evaluate, seeded

Z_SAMPLES = 3  # losses are means over so many draws of z
FRESH = 100  # settings are chosen with seeds from here on, records run with smaller ones


@dataclass(frozen=True)
class Run:
    """How one run trains; `epochs` counts passes over the images."""

    epochs: float = 2.95
    batches: tuple[tuple[float, int], ...] = (
        (0.0, 32),
        (0.3, 64),
        (0.7, 128),
    )  # from this share of the run on, so many
    peak_lr: float = 6e-3  # of the fully connected weights;
    conv_rate: float = 3.0  # kernels, which are small and shared by all places, learn at so many times this rate,
    bias_rate: float = 4.0  # biases at so many
    beta2: float = 0.95  # Adam's memory of squared gradients, in a training of one to three thousand steps
    warm_up: float = 0.3  # share of the run in which the rate rises; then it falls to 0 along a line
    bias: bool = True  # the last layer's bias starts at the data's mean
    channels_last: bool = True  # the weights lie in memory as the processor's convolutions want them
    keep_memory: bool = True  # freed memory stays with the process; to fetch it again took up to a fifth of a step


FASTER, SLOWER = 105.6, 101.35  # the targets
RECORDS = {FASTER: Run(epochs=1.0), SLOWER: Run()}
FIRST_SEED = {FASTER: 10, SLOWER: 20}  # records before these had the smaller ones
TRICKS = {
    "batches that grow (all 128)": {"batches": ((0.0, 128),)},
    "batches that grow (all 32)": {"batches": ((0.0, 32),)},
    "Adam's shorter memory (.999)": {"beta2": 0.999},
    "the kernels' own rate": {"conv_rate": 1.0},
    "the biases' own rate": {"bias_rate": 1.0},
    "the bias at the data's mean": {"bias": False},
    "the memory layout": {"channels_last": False},
    "the memory that stays": {"keep_memory": False},
}


def seeds(target: float, count: int, validate: bool = False) -> range:
    """The seeds of `count` runs at that target."""
    first = FRESH if validate else FIRST_SEED[target]
    return range(first, first + count)


def ablations() -> dict[str, Run]:
    """The faster record without each of its tricks, by name."""
    return {f"without {name}": replace(RECORDS[FASTER], **change) for name, change in TRICKS.items()}


def keep_memory() -> None:
    """Large freed blocks stay with this process from now on (mallopt of the GNU C library; elsewhere nothing happens)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: no block is fetched by itself
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back


def train(model: VAE, images: Tensor, run: Run, seed: int) -> None:
    """Train in place on `images`, `(N, 1, 28, 28)` in [0, 1]."""
    if run.keep_memory:
        keep_memory()
    torch.manual_seed(seed)
    model.to(memory_format=torch.channels_last if run.channels_last else torch.contiguous_format).train()
    if run.bias:
        torch.nn.init.constant_(model.conv1_t.bias, torch.logit(images.mean(), eps=1e-3).item())
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        factor = run.bias_rate if name.endswith("bias") else run.conv_rate if name.startswith("conv") else 1.0
        groups.setdefault(factor, []).append(parameter)
    groups = [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
    optimizer = torch.optim.Adam(groups, lr=run.peak_lr, betas=(0.9, run.beta2), fused=True)
    total = int(run.epochs * len(images))
    order, seen = torch.cat([torch.randperm(len(images)) for _ in range(math.ceil(run.epochs))]), 0
    while seen < total:
        done, size = seen / total, max(size for start, size in run.batches if start <= seen / total)
        targets, seen = images[order[seen : seen + size]], seen + size
        with autocast(model, targets.device):
            recon, kl = model.loss_terms(targets, targets)
        optimizer.zero_grad(set_to_none=True)
        (recon + kl).mean().backward()
        rise, fall = done / run.warm_up, (1 - done) / (1 - run.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * run.peak_lr * max(0.02, min(rise, fall))
        optimizer.step()
    model.zero_grad(set_to_none=True)
    model.eval()


def attempt(data: ImageData, run: Run, seed: int, images: Tensor) -> tuple[float, float]:
    """Seconds of training and loss on `images` (nats each) of one run. Loading, and measuring the loss, are not counted."""
    with seeded(seed):
        model = VAE(latent_dim=10)
        started = time.perf_counter()
        train(model, data.train_images, run, seed)
        seconds = time.perf_counter() - started
    return seconds, evaluate(model, images, samples=Z_SAMPLES).loss


def runs(data: ImageData, run: Run, seeds: Iterable[int], target: float, name: str, validate: bool = False) -> dict:
    """Several runs with what the rules ask for: the chance of so low a mean loss if the true mean were at `target`.

    The loss is that on the test images, or, with `validate`, on the validation images.
    """
    images = data.val_images if validate else data.test_images
    attempts = [attempt(data, run, seed, images) for seed in seeds]
    seconds, losses = (list(column) for column in zip(*attempts, strict=True))
    p = stats.ttest_1samp(losses, target, alternative="less").pvalue if len(losses) > 1 else None
    told = "" if p is None else f" ± {statistics.stdev(losses):.2f}, p = {p:.2g} were the true mean {target}"
    print(f"{name}: {statistics.median(seconds):.1f} s, {statistics.mean(losses):.2f} nats{told}", flush=True)
    return {"run": asdict(run), "target": target, "seconds": seconds, "losses": losses, "p": p}


def in_a_fresh_process(run: Run, seeds: Iterable[int], target: float, name: str, validate: bool = False) -> dict:
    """`runs` on the data set of the environment, where no other run has changed how memory is kept."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_warmed_up, run, seeds, target, name, validate).result()


def _warmed_up(run: Run, *rest: object) -> dict:
    data = load()
    attempt(data, replace(run, epochs=0.05), 0, data.val_images)  # what is set up once is not counted
    return runs(data, run, *rest)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="speedrun.py", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind (default 1)")
    parser.add_argument("--ablate", action="store_true", help="the faster record with every trick left out in turn")
    parser.add_argument("--validate", action="store_true", help=f"the loss on validation images; seeds from {FRESH} on")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error(f"--seeds is {asked.seeds}; give at least 1")
    todo = [(f"{target} nats", record, target) for target, record in RECORDS.items()]
    todo += [(f"  {name}", run, FASTER) for name, run in ablations().items() if asked.ablate]
    for name, run, target in todo:
        in_a_fresh_process(run, seeds(target, asked.seeds, asked.validate), target, name, asked.validate)


if __name__ == "__main__":
    main()
