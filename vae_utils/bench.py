"""How fast is it, compared with what? (`make bench`)

python -m vae_utils.bench                     # everything; about 40 minutes on two cores, which nothing else should use
python -m vae_utils.bench training speed      # some parts

Every comparison runs both sides in this process, in turn, and is told as a ratio: seconds differ between machines, ratios
less. The figures go to build/bench.json too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_utils import inference, notebooks, settings
from vae_utils.data import ImageData, load
from vae_utils.files import write_atomically
from vae_utils.model import IMAGE_SIZE, VAE, kl_divergence
from vae_utils.training import evaluate, fit, seeded

SEEDS = (0, 1, 2)
Z_SAMPLES = 3  # test losses are means over so many draws of z
FLOP_PER_IMAGE = 26.5e6  # the article's network, forward and backward


# --- the other side -----------------------------------------------------------------------------------------------------


class Perceptron(nn.Module):
    """The two-layer VAE of pytorch/examples: 784-400-20 and back."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.fc1(x.flatten(1)))
        mu, logvar = self.fc21(h), self.fc22(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))).view_as(x), mu, logvar


class Pictures(torch.utils.data.Dataset):
    """Images as torchvision's data sets hand them out: one by one, from bytes to a PIL image to a tensor."""

    def __init__(self, images: Tensor):
        from torchvision.transforms import ToTensor  # slow to import, and needed here alone

        self.bytes, self.transform = (images[:, 0] * 255).round().byte().numpy(), ToTensor()

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, number: int) -> Tensor:
        from PIL import Image

        return self.transform(Image.fromarray(self.bytes[number]))


def recipe(model: nn.Module, images: Tensor, epochs: int) -> None:
    """Train as tutorials do: DataLoader, ToTensor, Adam at 1e-3, batches of 128, the loss read at every step."""
    loader = torch.utils.data.DataLoader(Pictures(images), batch_size=128, shuffle=True)
    optimizer, total = torch.optim.Adam(model.parameters(), lr=1e-3), 0.0
    device = settings.device()
    model.to(device).train()
    for _ in range(epochs):
        for x in loader:
            x = x.to(device)
            recon, mu, logvar = model(x)
            loss = F.binary_cross_entropy(recon, x, reduction="sum") + kl_divergence(mu, logvar).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


@torch.no_grad()
def test_loss(model: nn.Module, images: Tensor) -> float:
    """Nats an image on `images`, a mean over `Z_SAMPLES` draws of z."""
    if isinstance(model, VAE):
        return evaluate(model, images, samples=Z_SAMPLES).loss
    total, device = 0.0, next(model.parameters()).device
    with seeded(0):
        for _ in range(Z_SAMPLES):
            for x in images.to(device).split(500):
                recon, mu, logvar = model(x)
                total += float(F.binary_cross_entropy(recon, x, reduction="sum") + kl_divergence(mu, logvar).sum())
    return total / Z_SAMPLES / len(images)


# --- the parts ----------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def spread(values: list[float], digits: int = 1) -> str:
    """`median (smallest to largest)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def race(
    name: str, theirs: Callable[[], nn.Module], ours: Callable[[], VAE], data: ImageData, recipe_epochs: int, **options
) -> dict:
    """The recipe with the model of `theirs` for `recipe_epochs`, then `fit` with that of `ours` and `options`, for each seed."""
    rounds = []
    for seed in SEEDS:
        with seeded(seed):
            model = theirs()
            slow = seconds(lambda model=model: recipe(model, data.train_images, recipe_epochs))
            loss = test_loss(model, data.test_images)
            model = ours()
        fast = seconds(
            lambda model=model, seed=seed: fit(model, data.train_images, seed=seed, progress=False, **options)
        )
        losses = loss, test_loss(model, data.test_images)
        rounds.append({"recipe_s": slow, "fit_s": fast, "recipe_loss": losses[0], "fit_loss": losses[1]})
        print(
            f"  {name}, seed {seed}: recipe {slow:.1f} s to {losses[0]:.2f} nats; fit {fast:.1f} s to {losses[1]:.2f} nats",
            flush=True,
        )
    reached = all(r["fit_loss"] <= r["recipe_loss"] for r in rounds)
    ratios = [r["recipe_s"] / r["fit_s"] for r in rounds]
    print(f"{name}: {spread(ratios)} times as fast{'' if reached else ', BUT NOT TO THE SAME LOSS'}", flush=True)
    return {"rounds": rounds, "ratios": ratios, "reached": reached, "recipe_epochs": recipe_epochs, "fit": options}


def article() -> VAE:
    """The article's network as its readers get it, with the weights in PyTorch's own order."""
    return VAE(latent_dim=10).to(memory_format=torch.contiguous_format)


def perceptron() -> VAE:
    """The layers of `Perceptron` for `fit`."""
    return VAE(
        latent_dim=20,
        encoder=nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40)),
        decoder=nn.Sequential(
            nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Unflatten(1, (1, IMAGE_SIZE, IMAGE_SIZE))
        ),
    )


def training(data: ImageData) -> dict:
    """(a), (b): seconds until `fit` reaches the final test loss of two well-known recipes, ten epochs each."""
    rate = {"peak_lr": 1e-2}
    return {
        "article": race("the article's recipe", article, lambda: VAE(latent_dim=10), data, 10, epochs=4, **rate),
        "perceptron": race("pytorch/examples' recipe", Perceptron, perceptron, data, 10, epochs=5, **rate),
    }


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of this machine's own matrix product."""
    a, b = (torch.randn(size, size, device=settings.device()).to(dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(10))


def speed(data: ImageData) -> dict:
    """(c), (d): images a second in training, as a share of the machine's matrix-product rate, and through a trained model."""
    figures: dict = {"float32_rate": matrix_rate(torch.float32), "bfloat16_rate": matrix_rate(torch.bfloat16)}
    images = data.train_images[:20_000]
    model = VAE(latent_dim=10)
    fit(model, images[:2000], epochs=1, progress=False)  # what is set up once is not counted
    rate = len(images) / min(seconds(lambda: fit(model, images, epochs=1, progress=False)) for _ in range(3))
    figures |= {"training_images_a_second": rate}
    print(f"training: {rate:,.0f} images a second")
    for name in ("float32", "bfloat16"):
        share = rate * FLOP_PER_IMAGE / figures[f"{name}_rate"]
        figures[f"share_of_{name}"] = share
        print(f"  {100 * share:.0f} % of the {name} matrix product's {figures[f'{name}_rate'] / 1e9:.0f} GFLOP/s")
    codes = inference.encode(model, images)[0]
    for name, work in (
        ("encode", lambda: inference.encode(model, images)),
        ("decode", lambda: inference.decode(model, codes)),
    ):
        figures[f"{name}_images_a_second"] = len(images) / min(seconds(work) for _ in range(3))
        print(f"{name}: {figures[f'{name}_images_a_second']:,.0f} images a second")
    return figures


def growth(data: ImageData) -> dict:
    """How the cost of an epoch grows with images, latent numbers and the batch, beside 10,000 / 10 / 128."""

    def epoch(images: int = 10_000, latent_dim: int = 10, batch_size: int = 128) -> float:
        model = VAE(latent_dim=latent_dim)
        work = data.train_images[:images]
        return min(seconds(lambda: fit(model, work, epochs=1, batch_size=batch_size, progress=False)) for _ in range(2))

    base, figures = epoch(), {}
    for name, values in {
        "images": (5_000, 20_000, 40_000),
        "latent_dim": (2, 50, 200),
        "batch_size": (32, 64, 512),
    }.items():
        figures[name] = {value: epoch(**{name: value}) / base for value in values}
        print(f"{name}: " + ", ".join(f"{value}: {ratio:.2f}×" for value, ratio in figures[name].items()))
    return figures


def codec(data: ImageData) -> dict:
    """(e): megabytes of pixels a second through the lossy codec, both ways."""
    from vae_utils import codec as coder

    model = VAE(latent_dim=10)
    fit(model, data.train_images[:5000], epochs=1, progress=False)
    images = data.test_images
    packed = coder.compress(model, images)
    work = {"compress": lambda: coder.compress(model, images), "decompress": lambda: coder.decompress(model, packed)}
    figures = {name: images.numel() / 1e6 / min(seconds(step) for _ in range(3)) for name, step in work.items()}
    print(", ".join(f"{name} {rate:.1f} MB of pixels a second" for name, rate in figures.items()))
    return figures


def peak_memory(command: list[str], variables: dict[str, str]) -> tuple[float, float]:
    """Seconds, and the largest resident memory in MiB of any one process that `command` started (Linux; else 0)."""
    peak, done = 0.0, threading.Event()

    def children(parent: int) -> list[int]:
        listing = Path(f"/proc/{parent}/task/{parent}/children")
        own = [int(child) for child in listing.read_text().split()] if listing.exists() else []
        return own + [grandchild for child in own for grandchild in children(child)]

    def watch(parent: int) -> None:
        nonlocal peak
        while not done.wait(0.2):
            for child in children(parent):
                try:
                    lines = Path(f"/proc/{child}/status").read_text().splitlines()
                except OSError:
                    continue
                peak = max([peak, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))])

    started = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL) as process:
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        code = process.wait()
    elapsed = time.perf_counter() - started
    done.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with status {code}.")
    return elapsed, peak


def all_notebooks(data: ImageData) -> dict:
    """(f): wall time and largest kernel of each notebook by itself and of `make run`, from scratch and with a full cache."""
    import tempfile

    figures: dict = {}
    for path in [*notebooks.find([]), None]:
        name, chosen = ("make run", []) if path is None else (path.stem, [path.stem])
        command = [sys.executable, "-m", "vae_utils.notebooks", "run", *chosen]
        with tempfile.TemporaryDirectory() as cache:
            variables = {"VAE_CACHE_DIR": cache, "VAE_DATASET": data.name}
            for kind in ("cold", "warm"):
                elapsed, peak = figures.setdefault(name, {})[kind] = peak_memory(command, variables)
                print(f"{name}, {kind}: {elapsed:.0f} s, {peak:.0f} MiB", flush=True)
    return figures


def learners(data: ImageData) -> dict:
    """(g): 1, 2, 4 and 8 kernels at notebook 03's sliders, all at once; models from the cache, which is filled first."""
    from vae_utils import classroom

    [path] = notebooks.find(["03"])
    variables = {"VAE_DATASET": data.name}
    classroom.at_once(1, path, variables)
    figures: dict = {}
    for count in (1, 2, 4, 8):
        for threads in ("all", "1"):
            limit = {} if threads == "all" else {"CPU_LIMIT": threads}
            everyone = classroom.at_once(count, path, variables | limit)
            moves = sorted(value for one in everyone for value in one["milliseconds"])
            figures[f"{count} kernels, {threads} threads"] = row = {
                "opened_s": max(one["opened"] for one in everyone),
                "median_ms": statistics.median(moves),
                "slow_ms": moves[int(0.99 * len(moves))],
                "resident_mib": max(one["resident"] for one in everyone),
                "own_share_mib": statistics.mean(one["own_share"] for one in everyone),
            }
            print(
                f"{count} kernels, {threads} threads: open after {row['opened_s']:.0f} s; a move {row['median_ms']:.0f} ms, 99 % "
                f"within {row['slow_ms']:.0f} ms; {row['own_share_mib']:.0f} MiB a learner ({row['resident_mib']:.0f} resident)",
                flush=True,
            )
    return figures


PARTS = {
    "training": training,
    "speed": speed,
    "growth": growth,
    "codec": codec,
    "notebooks": all_notebooks,
    "learners": learners,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vae_utils.bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all when none is given")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := sorted(set(asked) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    data, path = load(), settings.project_root() / "build" / "bench.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {settings.device()}, {data.title}"
    )
    for name in asked:
        print(f"\n{name}: {PARTS[name].__doc__}", flush=True)
        results[name] = PARTS[name](data)
        write_atomically(path, json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
