"""Train the VAE of the series by several processes, on one machine or many (PyTorch's DistributedDataParallel).

torchrun --standalone --nproc-per-node=2 tools/train_ddp.py
torchrun --standalone --nproc-per-node=2 tools/train_ddp.py --latent-dim 64 --in-channels 2 --corrupt "DropPixels(0.5)"
python tools/train_ddp.py                       # one process: the weights that `fit` gives

Every whole epoch is kept in the cache: when the same line is given again, a run that ended early goes on from there, to
the weights it would have had. Processes have a GPU each where there are enough, else they share the CPU.
"""

import argparse
import ast
import contextlib
import hashlib
import io
import json
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vae_utils import corruption, settings
from vae_utils.cache import CACHE_VERSION, fingerprint, write_atomically
from vae_utils.data import DataError, ImageData, load
from vae_utils.model import VAE, Autoencoder
from vae_utils.training import autocast, evaluate, network_input, pace, seeded

TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by it, beside WORLD_SIZE
SEVERAL = int(os.environ.get("WORLD_SIZE") or 1) > 1


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Inside the block, the processes that torchrun started know each other; without torchrun there is one.

    Exits when WORLD_SIZE was set by hand, and when VAE_DEVICE asks for what cannot be had.
    """
    if SEVERAL and (absent := [name for name in TORCHRUN if name not in os.environ]):
        sys.exit(f"WORLD_SIZE is set, but not {', '.join(absent)}; start several processes by torchrun (see --help).")
    asked, here = os.environ.get("VAE_DEVICE", "").strip().lower(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = asked in ("", "cuda") and torch.cuda.device_count() >= here
    if asked not in ("", "cpu") and not gpus:
        sys.exit(f"VAE_DEVICE is {asked!r}; give cpu, or cuda where there is a GPU for each process ({here} here).")
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        os.environ["VAE_DEVICE"] = "cpu"  # several processes on one GPU would only wait for each other
    if os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1"):
        use_interface_of_master()
    alone = {} if SEVERAL else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    try:
        dist.init_process_group("nccl" if gpus else "gloo", **alone)
    except RuntimeError as error:
        sys.exit(
            f"Process {os.environ.get('RANK', '0')} did not reach the others ({error}). Every host must reach the others, not "
            "only the port of --master-addr; GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME with GPUs) names the interface to use."
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


def use_interface_of_master() -> None:
    """Gloo is to use the network interface that leads to torchrun's --master-addr, unless GLOO_SOCKET_IFNAME names one.

    By itself it takes the address of the host's own name, which /etc/hosts often gives as 127.0.0.1 or 127.0.1.1: then
    every host looks for the others on itself.
    """
    try:
        master = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        family, kind, _, _, address = socket.getaddrinfo(*master, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: chooses the way, sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return
    for interface, addresses in psutil.net_if_addrs().items():
        if any(entry.address == own for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def from_rank_0(value: object) -> object:
    """What process 0 has for `value`, in every process."""
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


class Loss(nn.Module):
    """The model's loss as a forward pass, which is where DistributedDataParallel takes hold."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.loss_terms(inputs, targets)


class Training:
    """A model with its optimizer and schedule, as `vae_utils.training.fit` has them, and a checkpoint after every epoch.

    Args:
        asked: the command line; images: `(N, 1, 28, 28)` in [0, 1], the same in every process.
        recipe: all that shapes the result; checkpoint: the file to go on from and to write.
    """

    def __init__(self, asked: argparse.Namespace, images: Tensor, recipe: str, checkpoint: Path):
        self.asked, self.images, self.recipe, self.checkpoint = asked, images, recipe, checkpoint
        options = pace(images, asked.epochs, asked.batch_size)
        self.epochs, self.batch_size = options["epochs"], min(options["batch_size"], len(images))
        self.steps = len(images) // self.batch_size
        if self.batch_size % dist.get_world_size():
            sys.exit(
                f"{dist.get_world_size()} processes cannot share batches of {self.batch_size}; change --batch-size."
            )
        self.build()

    def build(self) -> None:
        asked, self.history = self.asked, []
        with seeded(asked.seed):
            kind = Autoencoder if asked.autoencoder else VAE
            self.model = kind(asked.latent_dim, in_channels=asked.in_channels).to(self.images.device)
        nn.init.constant_(self.model.conv1_t.bias, torch.logit(self.images.mean(), eps=1e-3).item())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=asked.peak_lr, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, asked.peak_lr, total_steps=self.epochs * self.steps, cycle_momentum=False
        )
        self.parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def run(self, val_images: Tensor | None) -> None:
        """Train up to the last epoch. Raises FloatingPointError when the loss is no longer a number."""
        rank, asked = dist.get_rank(), self.asked
        with (
            seeded(asked.seed + rank),  # each process draws noise of its own
            tqdm(total=self.epochs * self.steps, disable=rank > 0, leave=False, unit="batch") as bar,
        ):
            self.resume()
            network = DistributedDataParallel(Loss(self.model))
            bar.update(len(self.history) * self.steps)
            for epoch in range(len(self.history) + 1, self.epochs + 1):
                means = self.one_epoch(network, bar)
                self.history.append({"epoch": epoch, **dict(zip(("loss", "recon", "kl"), means, strict=True))})
                if val_images is not None and rank == 0:
                    val = evaluate(self.model, val_images, corrupt=asked.corrupt, beta=asked.beta, seed=epoch)
                    self.history[-1] |= {"val_loss": val.loss, "val_recon": val.recon, "val_kl": val.kl}
                self.keep()

    def one_epoch(self, network: nn.Module, bar: tqdm) -> list[float]:
        """One pass over the images; returns the means of loss, reconstruction and KL."""
        rank, world, images, terms = dist.get_rank(), dist.get_world_size(), self.images, []
        self.model.train()
        order = from_rank_0(torch.randperm(len(images), device=images.device).cpu()).to(images.device)
        for batch in order[: self.steps * self.batch_size].split(self.batch_size):
            targets = images[batch[rank::world]]
            inputs = network_input(self.model, targets, None, self.asked.corrupt)
            with autocast(self.model, images.device):
                recon, kl = network(inputs, targets)
            loss = (recon + self.asked.beta * kl).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            terms.append(torch.stack([loss.detach(), recon.detach().mean(), kl.detach().mean()]))
            bar.update()
            if len(terms) % 25 == 0 or len(terms) == self.steps:  # reading a number makes an accelerator wait
                means = torch.stack(terms).mean(0)
                dist.all_reduce(means)
                means /= world
                bar.set_postfix(loss=f"{means[0]:.1f}", refresh=False)
                if not math.isfinite(means[0]):
                    raise FloatingPointError(f"The loss became {means[0]}; try a smaller --peak-lr.")
        return means.tolist()

    def keep(self) -> None:
        """Write the checkpoint. A folder that cannot be written to costs the checkpoint, not the run."""
        random = [None] * dist.get_world_size()
        dist.all_gather_object(random, (torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda())))
        state = {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        torch.save(state | {"random": random, "history": self.history, "recipe": self.recipe}, buffer)
        try:
            if dist.get_rank() == 0:
                write_atomically(self.checkpoint, buffer.getvalue())
        except OSError as error:
            say(f"No checkpoint could be kept in {self.checkpoint.parent} ({error.strerror}); training goes on.")

    def resume(self) -> None:
        """Go on where the checkpoint left off; one that is damaged or another's is set aside, never used."""
        state = from_rank_0(self.read_checkpoint() if dist.get_rank() == 0 else None)
        if state is None:
            return
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history = state["history"]
        if dist.get_rank() < len(state["random"]):  # more processes than before: the new ones draw noise of their own
            processor, *accelerator = state["random"][dist.get_rank()]
            torch.set_rng_state(processor)
            for value, number in zip(accelerator, cuda(), strict=False):
                torch.cuda.set_rng_state(value, number)
        say(f"Going on after epoch {len(self.history)}.")

    def read_checkpoint(self) -> dict | None:
        if not self.checkpoint.exists():
            return None
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            if state["recipe"] != self.recipe:
                raise ValueError("it is another training's")
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            return state
        except Exception as error:  # whatever a damaged file makes of itself
            aside = self.checkpoint.with_suffix(".set-aside")
            say(f"{self.checkpoint.name} cannot be used ({error}) and is now {aside.name}; training from the start.")
            with contextlib.suppress(OSError):
                self.checkpoint.replace(aside)
            self.build()
            return None


def cuda() -> list[int]:
    """The number of this process's GPU, if it has one."""
    return [torch.cuda.current_device()] if settings.device().type == "cuda" else []


def corruption_of(text: str) -> corruption.Corruption:
    """A corruption as it is written in Python: `AnyOf(DropPixels((0.0, 0.9)), EraseBlock(14))`. Nothing else is evaluated."""

    def build(node: ast.AST) -> object:
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        if not issubclass(kind := getattr(corruption, node.func.id), corruption.Corruption):
            raise ValueError(node.func.id)
        return kind(*map(build, node.args), **{keyword.arg: build(keyword.value) for keyword in node.keywords})

    try:
        made = build(ast.parse(text, mode="eval").body)
        if not isinstance(made, corruption.Corruption):
            raise ValueError("it is no corruption")
        made(torch.zeros(1, 1, 28, 28))  # a block larger than an image, say
        return made
    except (SyntaxError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; write it as in Python, DropPixels(0.5)") from error


def seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to 4294967295")
    return int(text)


def above_zero(kind: type) -> object:
    def number(text: str) -> float:
        if not 0 < (value := kind(text)) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="train_ddp.py", description=first, epilog=rest, formatter_class=style)
    number, real = above_zero(int), above_zero(float)
    made.add_argument("--autoencoder", action="store_true", help="a plain autoencoder instead of a VAE")
    made.add_argument("--latent-dim", type=number, default=10, metavar="N", help="default 10")
    made.add_argument(
        "--in-channels", type=int, default=1, choices=(1, 2), help="2: pixels, and the mask of known ones"
    )
    made.add_argument("--corrupt", type=corruption_of, metavar="C", help='corrupt each batch: "ReplacePixels(0.1)"')
    made.add_argument(
        "--epochs",
        type=number,
        default=3,
        metavar="N",
        help="default 3; on small data sets 4 times N, in batches of a quarter",
    )
    made.add_argument("--batch-size", type=number, default=128, metavar="N", help="of all processes; default 128")
    made.add_argument("--peak-lr", type=real, default=5e-3, metavar="RATE", help="default 5e-3")
    made.add_argument("--beta", type=real, default=1.0, metavar="WEIGHT", help="of the KL term; default 1")
    made.add_argument("--validate", action="store_true", help="note the validation loss after every epoch")
    made.add_argument("--seed", type=seed, default=settings.seed(), metavar="N", help="default: VAE_SEED, or 0")
    return made


def load_in_turn() -> ImageData:
    """The data, first in one process of each machine: only that one downloads what is not there."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        dist.barrier()
    data = load()
    if first:
        dist.barrier()
    return data


def train(asked: argparse.Namespace, data: ImageData) -> None:
    """Train, keep the result in the cache, and say how good it is; only process 0 speaks and writes."""
    settled = {key: repr(value) for key, value in sorted(vars(asked).items())}
    recipe = json.dumps(settled | {"version": CACHE_VERSION, "data": fingerprint({"": data.train_images})})
    recipes = [None] * dist.get_world_size()
    dist.all_gather_object(recipes, recipe)
    if others := [rank for rank, other in enumerate(recipes) if other != recipes[0]]:
        sys.exit(
            f"Process {others[0]} has other options or other data than process 0; give every host the same line, the same "
            f"VAE_DATASET and VAE_SEED. Process 0 trains by {recipes[0]}, process {others[0]} by {recipes[others[0]]}."
        )
    name = f"{'autoencoder' if asked.autoencoder else 'vae'}-{asked.latent_dim}-ddp"
    path = settings.cache_dir() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.safetensors"
    if from_rank_0(path.exists()):
        return say(f"{path} is there already: this line has been trained before.")
    training = Training(asked, data.train_images.to(settings.device()), recipe, path.with_suffix(".checkpoint"))
    training.run(data.val_images if asked.validate else None)
    if dist.get_rank() > 0:
        return None
    state = {name: value.detach().cpu().contiguous() for name, value in training.model.state_dict().items()}
    metadata = {"recipe": recipe, "history": json.dumps(training.history)}
    try:
        write_atomically(path, safetensors.torch.save(state, metadata))
        training.checkpoint.unlink(missing_ok=True)
        say(f"Kept as {path}: model.load_state_dict(safetensors.torch.load_file(...)) fills a model from it.")
    except OSError as error:
        say(f"The trained model could not be kept in {path.parent} ({error.strerror}).")
    losses = evaluate(training.model, data.test_images, corrupt=asked.corrupt, beta=asked.beta)
    say(
        f"{data.title}, {len(training.history)} epochs, {dist.get_world_size()} process(es): test loss {losses.loss:.2f} nats "
        f"per image = reconstruction {losses.recon:.2f} + beta * KL {losses.kl:.2f}"
    )


def stop(signum: int, frame: object) -> None:
    raise RuntimeError("told to stop")


def main(arguments: list[str] | None = None) -> None:
    """Ends with a sentence and a status above 0 for bad input, after Ctrl-C, and when another process has ended."""
    if SEVERAL:
        signal.signal(signal.SIGTERM, stop)  # torchrun's way to say that one of the others is gone
    try:
        try:
            asked = parser().parse_args(arguments)
            with processes():
                train(asked, load_in_turn())
        except (DataError, ValueError, FloatingPointError) as error:
            sys.exit(str(error))
        except RuntimeError as error:
            if not SEVERAL:
                raise
            sys.exit(
                f"Process {os.environ['RANK']} stops, because another process of this training ended ({error}). Every "
                f"whole epoch is kept in {settings.cache_dir()}: the same line goes on from there."
            )
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("Interrupted; the same line goes on from the last whole epoch.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
