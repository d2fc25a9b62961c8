"""The VAE speedrun: the article's network to a given test loss in as few seconds as two processor cores allow.

python tools/speedrun.py                       # the records: one run each
python tools/speedrun.py --seeds 10            # ten runs each, with the test that the rules in docs/speed.md ask for
python tools/speedrun.py --ablate              # every trick left out in turn

The rules, the records and what did not pay are in docs/speed.md; `make bench` times a record beside the article's recipe.
"""

import argparse
import contextlib
import ctypes
import math
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from vae_utils.data import ImageData, load
from vae_utils.model import VAE
from vae_utils.training import autocast, evaluate, seeded

Z_SAMPLES = 3  # test losses are means over so many draws of z


@dataclass(frozen=True)
class Run:
    """How one run trains; `epochs` counts passes over the images."""

    epochs: float = 2.95
    batches: tuple[tuple[float, int], ...] = (
        (0.0, 32),
        (0.3, 64),
        (0.7, 128),
    )  # from this share of the run on, so many
    peak_lr: float = 6e-3
    beta2: float = 0.95  # Adam's memory of squared gradients, in a training of two thousand steps
    warm_up: float = 0.1  # share of the run in which the rate rises; then it falls to 0 along a line
    kl_warm_up: float = 0.3  # share of the run in which the KL term's weight rises to 1,
    kl_start: float = 0.3  # from here: the code is used before it is taxed (Sønderby et al. 2016, 2.3)
    bias: bool = True  # the last layer's bias starts at the data's mean
    channels_last: bool = True  # the weights lie in memory as the processor's convolutions want them
    keep_memory: bool = True  # freed memory stays with the process; to fetch it again takes a tenth of a step


FASTER, SLOWER = 105.6, 101.35  # the targets
RECORDS = {FASTER: Run(epochs=1.15), SLOWER: Run()}
TRICKS = {
    "the KL term's warm-up": {"kl_warm_up": 0.0},
    "batches that grow (all 128)": {"batches": ((0.0, 128),)},
    "batches that grow (all 32)": {"batches": ((0.0, 32),)},
    "Adam's shorter memory (.999)": {"beta2": 0.999},
    "the rate's early peak (.3)": {"warm_up": 0.3},
    "the bias at the data's mean": {"bias": False},
    "the memory layout": {"channels_last": False},
    "the memory that stays": {"keep_memory": False},
}


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
    optimizer = torch.optim.Adam(model.parameters(), lr=run.peak_lr, betas=(0.9, run.beta2), fused=True)
    total = int(run.epochs * len(images))
    order, seen = torch.cat([torch.randperm(len(images)) for _ in range(math.ceil(run.epochs))]), 0
    while seen < total:
        done, size = seen / total, max(size for start, size in run.batches if start <= seen / total)
        targets, seen = images[order[seen : seen + size]], seen + size
        with autocast(model, targets.device):
            recon, kl = model.loss_terms(targets, targets)
        beta = min(1.0, run.kl_start + (1 - run.kl_start) * done / run.kl_warm_up) if run.kl_warm_up else 1.0
        optimizer.zero_grad(set_to_none=True)
        (recon + beta * kl).mean().backward()
        rise, fall = done / run.warm_up, (1 - done) / (1 - run.warm_up)
        optimizer.param_groups[0]["lr"] = run.peak_lr * max(0.02, min(rise, fall))
        optimizer.step()
    model.zero_grad(set_to_none=True)
    model.eval()


def attempt(data: ImageData, run: Run, seed: int) -> tuple[float, float]:
    """Seconds of training and test loss (nats per image) of one run. Loading, and measuring the loss, are not counted."""
    with seeded(seed):
        model = VAE(latent_dim=10)
        started = time.perf_counter()
        train(model, data.train_images, run, seed)
        seconds = time.perf_counter() - started
    return seconds, evaluate(model, data.test_images, samples=Z_SAMPLES).loss


def runs(data: ImageData, run: Run, seeds: range, target: float, name: str) -> dict:
    """Several runs with what the rules ask for: the chance of so low a mean loss if the true mean were above `target`."""
    attempts = [attempt(data, run, seed) for seed in seeds]
    seconds, losses = (list(column) for column in zip(*attempts, strict=True))
    p = stats.ttest_1samp(losses, target, alternative="less").pvalue if len(losses) > 1 else None
    told = "" if p is None else f" ± {statistics.stdev(losses):.2f}, p = {p:.2g} that its mean is above {target}"
    print(f"{name}: {statistics.median(seconds):.1f} s, {statistics.mean(losses):.2f} nats{told}", flush=True)
    return {"run": asdict(run), "target": target, "seconds": seconds, "losses": losses, "p": p}


def in_a_fresh_process(run: Run, seeds: range, target: float, name: str) -> dict:
    """`runs` on the data set of the environment, where no other run has changed how memory is kept."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_warmed_up, run, seeds, target, name).result()


def _warmed_up(run: Run, *rest: object) -> dict:
    data = load()
    attempt(data, replace(run, epochs=0.05), 0)  # what is set up once is not counted
    return runs(data, run, *rest)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="speedrun.py", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind (default 1)")
    parser.add_argument("--ablate", action="store_true", help="leave out every trick of the faster record in turn")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error(f"--seeds is {asked.seeds}; give at least 1")
    for target, record in RECORDS.items():
        in_a_fresh_process(record, range(asked.seeds), target, f"{target} nats")
    for name, run in ablations().items() if asked.ablate else ():
        in_a_fresh_process(run, range(asked.seeds), FASTER, f"  {name}")


if __name__ == "__main__":
    main()
