"""Measure speed, beside well-known recipes (`make bench`).

python tools/bench.py                     # everything; about two hours on two cores, which nothing else should use
python tools/bench.py training speed      # some parts
python tools/bench.py --publish           # what was measured, into docs/speed.md

The races run both sides in this process, in turn, and are told as ratios: seconds differ between machines, ratios less; other
parts start processes of their own. The figures go to build/bench.json too.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import torch
import torch.nn.functional as F
from jupyter_client import BlockingKernelClient, KernelManager
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import ToTensor

from vae_utils import codec as coder
from vae_utils import inference, settings
from vae_utils.cache import write_atomically
from vae_utils.data import ImageData, load
from vae_utils.model import VAE, kl_divergence
from vae_utils.training import autocast, evaluate, fit, seeded

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for its neighbour, when this file is run as a script
from tools import refresh, speedrun  # noqa: E402

SEEDS = (0, 1, 2)
EPOCHS = 10  # of a recipe
FLOP_PER_IMAGE = 26.5e6  # the article's network, forward and backward
SECONDS = 600  # the longest that a cell may take
LAST_WIDGET = "LatentExplorer("

# Runs in every kernel: a hand that moves a slider twenty times a second, and what the process holds meanwhile.
MOVE_SLIDERS = """
import json, time
from pathlib import Path
explorer, milliseconds = LatentExplorer(vae, data.test_images, order), []
for move in range(200):
    started = time.perf_counter()
    explorer.sliders[move % len(explorer.sliders)].value = -2 + 0.02 * move
    milliseconds.append(1000 * (time.perf_counter() - started))
    time.sleep(0.05)
assert not explorer.error.value, explorer.error.value
memory = Path("/proc/self/smaps_rollup")
lines = memory.read_text().splitlines()[1:] if memory.exists() else []
mib = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
print(json.dumps({"milliseconds": sorted(milliseconds), "resident": mib.get("Rss", 0), "own_share": mib.get("Pss", 0)}))
"""

# --- the other side of the races -----------------------------------------------------------------------------------------


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
        self.bytes, self.transform = (images[:, 0] * 255).round().byte().numpy(), ToTensor()

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, number: int) -> Tensor:
        return self.transform(Image.fromarray(self.bytes[number]))


def recipe(model: nn.Module, images: Tensor, epochs: int) -> None:
    """Train as tutorials do: DataLoader, ToTensor, Adam at 1e-3, batches of 128, the loss read at every step."""
    loader = torch.utils.data.DataLoader(Pictures(images), batch_size=128, shuffle=True)
    optimizer, total = torch.optim.Adam(model.parameters(), lr=1e-3), 0.0
    model.to(settings.device()).train()
    for _ in range(epochs):
        for x in loader:
            x = x.to(settings.device())
            recon, mu, logvar = model(x)
            loss = F.binary_cross_entropy(recon, x, reduction="sum") + kl_divergence(mu, logvar).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


@torch.no_grad()
def test_loss(model: nn.Module, images: Tensor) -> float:
    """Nats per image on `images`, a mean over `speedrun.Z_SAMPLES` draws of z."""
    if isinstance(model, VAE):
        return evaluate(model, images, samples=speedrun.Z_SAMPLES).loss
    total, device = 0.0, next(model.parameters()).device
    with seeded(0):
        for _ in range(speedrun.Z_SAMPLES):
            for x in images.to(device).split(500):
                recon, mu, logvar = model(x)
                total += float(F.binary_cross_entropy(recon, x, reduction="sum") + kl_divergence(mu, logvar).sum())
    return total / speedrun.Z_SAMPLES / len(images)


def article() -> VAE:
    """The article's network as its readers get it, with the weights in PyTorch's own order."""
    return VAE(latent_dim=10).to(memory_format=torch.contiguous_format)


def perceptron() -> VAE:
    """The layers of `Perceptron` for `fit`."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Unflatten(1, (1, 28, 28)))
    return VAE(latent_dim=20, encoder=encoder, decoder=decoder)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def race(name: str, theirs: Callable, ours: Callable, data: ImageData, train: Callable, seeds: Iterable[int]) -> dict:
    """For each seed: the recipe with the model of `theirs`, then `train(model, images, seed)` with that of `ours`."""
    rounds = []
    for seed in seeds:
        with seeded(seed):
            rival, model = theirs(), ours()
            slow = seconds(lambda rival=rival: recipe(rival, data.train_images, EPOCHS))
            fast = seconds(lambda model=model, seed=seed: train(model, data.train_images, seed))
        losses = test_loss(rival, data.test_images), test_loss(model, data.test_images)
        rounds.append({"recipe_s": slow, "our_s": fast, "recipe_loss": losses[0], "our_loss": losses[1]})
        print(f"  {name}, seed {seed}: {slow:.1f} s to {losses[0]:.2f} nats; we {fast:.1f} s to {losses[1]:.2f}")
    reached = statistics.mean(r["our_loss"] - r["recipe_loss"] for r in rounds) <= 0
    ratios = sorted(r["recipe_s"] / r["our_s"] for r in rounds)
    told = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) times as fast"
    print(f"{name}: {told}{'' if reached else ', BUT NOT TO THE SAME LOSS'}", flush=True)
    return {"rounds": rounds, "ratios": ratios, "reached": reached}


# --- the parts -----------------------------------------------------------------------------------------------------------


def training(data: ImageData) -> dict:
    """Seconds to the final test loss of two well-known recipes of ten epochs: by the speedrun's program, and by `fit`."""

    def by_fit(model: VAE, images: Tensor, seed: int) -> None:
        # on validation images the recipe ends at 107.0 nats, four epochs at 106.6, three at 107.7
        fit(model, images, epochs=4, peak_lr=1e-2, seed=seed, progress=False)

    def by_record(model: VAE, images: Tensor, seed: int) -> None:
        # two passes are lower than the recipe on the validation images, but higher on the test images: docs/speed.md
        run = replace(speedrun.RECORDS[speedrun.SLOWER], epochs=2.35)
        speedrun.train(model, images, run, seed)

    return {
        "article": race("the article's recipe", article, lambda: VAE(latent_dim=10), data, by_record, SEEDS),
        "perceptron": race("pytorch/examples' recipe", Perceptron, perceptron, data, by_fit, SEEDS),
    }


def records(data: ImageData) -> dict:
    """The speedrun's records, ten runs each."""
    run, seeds = speedrun.in_a_fresh_process, speedrun.seeds
    return {f"{t} nats": run(record, seeds(t, 10), t, f"{t} nats") for t, record in speedrun.RECORDS.items()}


def ablation(data: ImageData) -> dict:
    """The faster record with every trick left out in turn, three runs each."""
    run, target = speedrun.in_a_fresh_process, speedrun.FASTER
    seeds = speedrun.seeds(target, 3)
    return {name: run(changed, seeds, target, name) for name, changed in speedrun.ablations().items()}


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations per second of this machine's own matrix product."""
    a, b = (torch.randn(size, size, device=settings.device()).to(dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(10))


def speed(data: ImageData) -> dict:
    """Images per second in training, as a share of the machine's matrix-product rate, and through a trained model."""
    images, model = data.train_images[:20_000], VAE(latent_dim=10)
    fit(model, images[:2000], epochs=1, progress=False)  # what is set up once is not counted
    codes = inference.encode(model, images)[0]
    work = {
        "training": lambda: fit(model, images, epochs=1, progress=False),
        "encode": lambda: inference.encode(model, images),
        "decode": lambda: inference.decode(model, codes),
    }
    rates = {name: len(images) / min(seconds(step) for _ in range(3)) for name, step in work.items()}
    print(", ".join(f"{name}: {rate:,.0f} images per second" for name, rate in rates.items()))
    with autocast(model, settings.device()):  # a processor without bfloat16 takes minutes for one such product
        used = torch.bfloat16 if torch.is_autocast_enabled(settings.device().type) else torch.float32
    for dtype in {torch.float32, used}:
        rates[str(dtype)] = matrix_rate(dtype)
        share = rates["training"] * FLOP_PER_IMAGE / rates[str(dtype)]
        print(f"  training: {share:.0%} of the {dtype} matrix product's {rates[str(dtype)] / 1e9:.0f} GFLOP/s")
        if dtype == used:
            rates |= {"share": share, "share_of": str(dtype)}
    return rates


def sized(side: int, latent_dim: int) -> VAE:
    """The article's layers for images of `side` x `side` pixels (a multiple of 4); as a reader's own, they train in float32."""
    small = side // 4
    encoder = [nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    encoder += [nn.Linear(64 * small**2, 400), nn.ReLU(), nn.Linear(400, 2 * latent_dim)]
    decoder = [nn.Linear(latent_dim, 400), nn.ReLU(), nn.Linear(400, 64 * small**2), nn.ReLU()]
    decoder += [nn.Unflatten(1, (64, small, small)), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()]
    decoder += [nn.ConvTranspose2d(32, 1, 3, 2, 1, 1)]
    model = VAE(latent_dim, encoder=nn.Sequential(*encoder), decoder=nn.Sequential(*decoder))
    return model.to(memory_format=torch.channels_last)


def largest(process: int | str) -> float:
    """The largest resident memory of a process so far, in MiB; 0 when it is gone or the system does not tell (not Linux)."""
    try:  # getrusage would count what the process that started this one held
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def one_size(images: int = 10_000, latent_dim: int = 10, batch_size: int = 128, side: int = 28) -> tuple[float, float]:
    """Seconds of an epoch, and the largest memory of this process (MiB). Runs in a process of its own.

    The pixels are random: what they show changes neither, and loading a data set would take more memory than training does.
    """
    data, model = torch.rand(images, 1, side, side), sized(side, latent_dim)
    options = {"epochs": 1, "batch_size": batch_size, "progress": False}
    took = min(seconds(lambda: fit(model, data, **options)) for _ in range(3))
    return took, largest("self")


def growth(data: ImageData) -> dict:
    """Seconds and memory of an epoch against images, latent dimensions, batch and side of the images."""
    sizes = {"images": (5_000, 10_000, 40_000), "latent_dim": (2, 10, 200)}
    sizes |= {"batch_size": (32, 128, 512), "side": (16, 28, 56)}
    figures: dict = {}
    for name, values in sizes.items():
        for value in values:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
                took, memory = alone.submit(one_size, **{name: value}).result()
            figures.setdefault(name, {})[value] = {"seconds": took, "mib": memory}
        print(
            f"{name}: " + ", ".join(f"{v}: {f['seconds']:.1f} s, {f['mib']:.0f} MiB" for v, f in figures[name].items())
        )
    return figures


def scale(data: ImageData) -> dict:
    """train_ddp.py with 1, 2 and 4 processes on this machine, equal batches, three seeds: seconds (start included) and loss."""
    figures: dict = {}
    for count in (1, 2, 4):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command.append(str(ROOT / "tools" / "train_ddp.py"))
        threads = dict.fromkeys(refresh.THREADS, str(max(1, torch.get_num_threads() // count)))
        row = figures[count] = {"seconds": [], "losses": []}
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as cache:
                variables = os.environ | threads | {"VAE_CACHE_DIR": cache, "VAE_DATASET": data.name}
                variables["VAE_SEED"] = str(seed)
                started = time.perf_counter()
                said = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
                row["seconds"].append(time.perf_counter() - started)
            row["losses"].append(float(said.split("test loss ")[1].split()[0]))
        told = ", ".join(f"{loss:.2f}" for loss in row["losses"])
        print(f"{count} processes: {statistics.median(row['seconds']):.0f} s, {told} nats", flush=True)
    return figures


def codec(data: ImageData) -> dict:
    """Megabytes of pixels per second through the lossy codec, both ways."""
    model, images = VAE(latent_dim=10), data.test_images
    fit(model, data.train_images[:5000], epochs=1, progress=False)
    packed = coder.compress(model, images)
    work = {"compress": lambda: coder.compress(model, images), "decompress": lambda: coder.decompress(model, packed)}
    figures = {name: images.numel() / 1e6 / min(seconds(step) for _ in range(3)) for name, step in work.items()}
    print(", ".join(f"{name} {rate:.1f} MB of pixels per second" for name, rate in figures.items()))
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
            peak = max([peak, *map(largest, children(parent))])

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


def notebooks(data: ImageData) -> dict:
    """Wall time and largest kernel of each notebook by itself and of `make run`, from scratch and with a full cache."""
    figures: dict = {}
    for chosen in [*([path.stem] for path in refresh.find([])), []]:
        command, name = [sys.executable, str(ROOT / "tools" / "refresh.py"), "run", *chosen], (*chosen, "make run")[0]
        with tempfile.TemporaryDirectory() as cache:
            variables = {"VAE_CACHE_DIR": cache, "VAE_DATASET": data.name}
            for kind in ("cold", "warm"):
                elapsed, peak = figures.setdefault(name, {})[kind] = peak_memory(command, variables)
                print(f"{name}, {kind}: {elapsed:.0f} s, {peak:.0f} MiB", flush=True)
    return figures


# --- many learners on one machine ----------------------------------------------------------------------------------------


def interactive_part(path: Path) -> list[str]:
    """The code cells of a notebook, up to the last one with a widget. Raises ValueError when there is none."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = max((number for number, source in enumerate(code) if source.startswith(LAST_WIDGET)), default=None)
    if last is None:
        raise ValueError(f"{path.name} has no cell that begins with {LAST_WIDGET}...); give notebook 03.")
    return code[: last + 1]


@contextmanager
def kernel(folder: Path, variables: dict[str, str]) -> Iterator[BlockingKernelClient]:
    """A kernel that works in `folder`, as JupyterLab would start it."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env=os.environ | variables, extra_arguments=["--log-level=40"])
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> str:
    """What `code` prints in the kernel. Raises RuntimeError, with the kernel's words, when it fails."""
    printed: list[str] = []

    def listen(message: dict) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, allow_stdin=False, timeout=SECONDS, output_hook=listen)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"A cell failed with {reply['ename']}: {reply['evalue']}")
    return "".join(printed)


def at_once(learners: int, path: Path, variables: dict[str, str]) -> list[dict]:
    """`learners` kernels run the interactive part of `path` at the same time, then all move sliders.

    One dict per learner: `opened` (seconds for the cells), `milliseconds` (each of 200 moves of a slider, sorted: from the new
    value to the new picture's bytes), `resident` and `own_share` (MiB: all that the process holds, and the same with what
    several share counted in parts; 0 where the system does not tell).
    """
    cells = interactive_part(path)
    with ExitStack() as stack, ThreadPoolExecutor(learners) as pool:
        clients = [stack.enter_context(kernel(path.parent, variables)) for _ in range(learners)]
        opened = list(pool.map(lambda client: seconds(lambda: [run(client, cell) for cell in cells]), clients))
        moved = pool.map(lambda client: json.loads(run(client, MOVE_SLIDERS).splitlines()[-1]), clients)
        return [{"opened": opening} | figures for opening, figures in zip(opened, moved, strict=True)]


def learners(data: ImageData) -> dict:
    """1, 2, 4 and 8 kernels at notebook 03's sliders, all at once; models from the cache, which is filled first."""
    [path] = refresh.find(["03"])
    variables = {"VAE_DATASET": data.name}
    at_once(1, path, variables)
    figures: dict = {}
    for count in (1, 2, 4, 8):
        for name, limit in (("all", {}), ("one", dict.fromkeys(refresh.THREADS, "1"))):
            everyone = at_once(count, path, variables | limit)
            moves = sorted(value for one in everyone for value in one["milliseconds"])
            figures[f"{count} kernels, {name} threads"] = row = {
                "opened_s": max(one["opened"] for one in everyone),
                "median_ms": statistics.median(moves),
                "slow_ms": moves[int(0.99 * len(moves))],
                "resident_mib": max(one["resident"] for one in everyone),
                "own_share_mib": statistics.mean(one["own_share"] for one in everyone),
            }
            print(f"{count} kernels, {name} threads: " + ", ".join(f"{k} {v:.0f}" for k, v in row.items()), flush=True)
    return figures


def tests(data: ImageData) -> dict:
    """Seconds of `make test` on the offline digits, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            "VAE_DATASET": "digits",
            "VAE_CACHE_DIR": f"{folder}/cache",
            "VAE_RESULTS_DIR": f"{folder}/results",
        }
        elapsed, peak = peak_memory(["make", "-C", str(ROOT), "test"], variables)
    print(f"make test: {elapsed:.0f} s, {peak:.0f} MiB in the largest process")
    return {"seconds": elapsed, "mib": peak}


def headlines(results: dict) -> dict:
    """`results`, and on top of them the figure of each part that is quoted."""
    found = {f"{kind}_ratio": results.get("training", {}).get(part) for kind, part in RACES.items()}
    found = {name: statistics.median(race["ratios"]) for name, race in found.items() if race}
    if "speed" in results:
        found["matmul_share"] = results["speed"]["share"]
    if "tests" in results:
        found["make_test_digits_s"] = results["tests"]["seconds"]
    for kind, (elapsed, _) in results.get("notebooks", {}).get("make run", {}).items():
        found[f"make_run_{kind}_s"] = elapsed
    return found | {name: part for name, part in results.items() if name in PARTS}


# --- the page ------------------------------------------------------------------------------------------------------------


def table(head: str, rows: Iterable[str]) -> str:
    """A table in Markdown; bars part the columns of `head` and of the rows."""
    return "\n".join(f"| {line} |" for line in (head, "|".join("---" for _ in head.split("|")), *rows))


def tables(results: dict) -> dict[str, str]:
    """The tables of docs/speed.md by name, of the parts that were measured."""

    def race(name: str, found: dict) -> str:
        recipe, ours = (statistics.median(r[key] for r in found["rounds"]) for key in ("recipe_s", "our_s"))
        nats, our_nats = (statistics.mean(r[key] for r in found["rounds"]) for key in ("recipe_loss", "our_loss"))
        low, middle, high = found["ratios"][0], statistics.median(found["ratios"]), found["ratios"][-1]
        return f"{name} | {recipe:.0f} | {nats:.2f} | {ours:.1f} | {our_nats:.2f} | **{middle:.1f}** ({low:.1f} to {high:.1f})"

    def run(name: str, found: dict) -> str:
        losses, took = found["losses"], statistics.median(found["seconds"])
        return f"{name} | {len(losses)} | {took:.1f} | {mean_and_range(losses)} | {found['p']:.2g}"

    def mean_and_range(losses: list[float]) -> str:
        return f"{statistics.mean(losses):.2f} | {min(losses):.2f} to {max(losses):.2f}"

    races, growth, scale = (results.get(name, {}) for name in ("training", "growth", "scale"))
    sizes = (f"{n} | {v} | {f['seconds']:.1f} | {f['mib']:.0f}" for n, of in growth.items() for v, f in of.items())
    took = {count: statistics.median(found["seconds"]) for count, found in scale.items()}
    speedup = (
        f"{n} | {took[n]:.0f} | {took['1'] / took[n]:.2f} | {mean_and_range(found['losses'])}"
        for n, found in scale.items()
    )
    suite, notebooks = results.get("tests"), results.get("notebooks", {}).get("make run", {})
    waited = {"`make test`, digits, empty cache": (suite["seconds"], suite["mib"])} if suite else {}
    waited |= {f"`make run`, {kind}": both for kind, both in notebooks.items()}
    waits = (f"{name} | {elapsed:.0f} | {peak:.0f}" for name, (elapsed, peak) in waited.items())
    made = {
        "races": table(
            "recipe, ten epochs | its median s | its mean nats | our s | our nats | times as fast",
            (
                race(name, races[part])
                for name, part in (("the article's", "article"), ("pytorch/examples'", "perceptron"))
                if races
            ),
        ),
        "records": table(
            "run | seeds | median s | mean nats | range | p",
            (run(name, found) for part in ("records", "ablation") for name, found in results.get(part, {}).items()),
        ),
        "growth": table("what grows | to | s an epoch | MiB", sizes),
        "scale": table("processes | median s | times as fast as one | mean test loss | range", speedup),
        "waits": table("what | s | MiB in its largest process", waits),
    }
    return {name: made[name] for name, part in TABLES.items() if results.get(part)}


def replaced(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks of that name, which may stand together so far."""
    marks = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
    return re.sub(marks, lambda _: f"{content}\n", text, count=1, flags=re.DOTALL)


def publish(results: dict) -> None:
    """Write the figures into docs/speed.json and docs/speed.md, and draw docs/figures/growth.png."""
    page = ROOT / "docs" / "speed.md"
    text = page.read_text(encoding="utf-8")
    for name, content in tables(results).items():
        text = replaced(text, name, content)
    write_atomically(page, text.encode())
    write_atomically(ROOT / "docs" / "speed.json", (json.dumps(results, indent=1) + "\n").encode())
    if "growth" in results:
        figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), sharey=True, layout="constrained")
        for place, (name, sizes) in zip(axes, results["growth"].items(), strict=True):
            values = [float(value) for value in sizes]
            for key, of in (("seconds", 1), ("mib", 100)):
                place.loglog(values, [f[key] / of for f in sizes.values()], "o-", label={1: "s", 100: "100 MiB"}[of])
            place.set(title=name.replace("_", " "), xticks=values, xticklabels=list(sizes))
            place.minorticks_off()
        axes[0].set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes[1].legend(title="an epoch takes")
        figure.savefig(ROOT / "docs" / "figures" / "growth.png", dpi=100)


# each table, and the part that it shows
TABLES = {"races": "training", "records": "records", "growth": "growth", "scale": "scale", "waits": "tests"}
RACES = {"recipe": "article", "perceptron": "perceptron"}
PARTS = {p.__name__: p for p in (training, records, ablation, speed, growth, scale, codec, notebooks, tests, learners)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all when none is given")
    parser.add_argument("--publish", action="store_true", help="put what has been measured into docs/speed.md")
    given = parser.parse_args(arguments)
    if given.publish:
        return publish(json.loads((ROOT / "build" / "bench.json").read_text()))
    asked = given.parts or list(PARTS)
    if unknown := sorted(set(asked) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    with refresh.in_plain_words():
        data, path = load(), ROOT / "build" / "bench.json"
        try:
            results = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); move it away.") from error
        write_atomically(path, json.dumps(results, indent=1).encode())  # a full disk is better noticed before measuring
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, {settings.device()}, {data.title}")
    for name in asked:
        print(f"\n{name}: {PARTS[name].__doc__}", flush=True)
        results[name] = PARTS[name](data)
        write_atomically(path, json.dumps(headlines(results), indent=1).encode())


if __name__ == "__main__":
    main()
