"""How is a model fitted, watched, interrupted, and found again?"""

import inspect
import io
import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import cache, processes, settings
from vae_utils.corruption import Corrupted, with_mask_channel
from vae_utils.files import write_atomically
from vae_utils.model import Autoencoder

Corruption = Callable[[Tensor], Corrupted]


@dataclass
class History:
    """What happened during training: one dict an epoch, values in nats per image.

    Keys: `epoch`, `loss` (= recon + beta * kl), `recon`, `kl`, averaged over the epoch; with validation images also
    `val_loss`, `val_recon`, `val_kl` at the end of the epoch.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    interrupted: bool = False

    def column(self, key: str) -> list[float]:
        """One value an epoch."""
        return [epoch[key] for epoch in self.epochs]


@dataclass(frozen=True)
class Losses:
    """Mean over images, in nats per image: `loss` = `recon` + beta * `kl`."""

    loss: float
    recon: float
    kl: float


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, step for step the same, that leaves the compiler behind `torch.compile` out of it.

    The original loads it although nothing here is compiled: 150 MB and two seconds in every kernel that trains.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


@contextmanager
def seeded(seed: int):
    """Random numbers inside the block depend on `seed` alone; outside, they go on as if the block had not been."""
    accelerator = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=accelerator):
        torch.manual_seed(seed)
        yield


def epochs_for(images: Tensor, epochs: int) -> int:
    """`epochs` on a data set of MNIST's size; 12 times as many on one of a thousand images, which are as soon done."""
    return epochs if len(images) >= 20_000 else 12 * epochs


def autocast(model: Autoencoder, device: torch.device) -> torch.autocast:
    """What to compute in: bfloat16 for the convolutional network where the processor multiplies it natively, which takes half
    the time; else float32."""
    if device.type == "cpu":
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native and model.encoder is None)


def _network_input(model: nn.Module, images: Tensor, observed: Tensor | None, corrupt: Corruption | None) -> Tensor:
    """The batch as the encoder sees it: spoilt by `corrupt`, unknown pixels black, with the mask beside it if it wants one."""
    if corrupt is None and observed is None and model.in_channels == 1:
        return images
    spoilt = corrupt(images) if corrupt else Corrupted(images, torch.ones_like(images[:, :1], dtype=torch.bool))
    if observed is not None:
        known = spoilt.observed & observed
        spoilt = Corrupted(spoilt.images * known, known)
    return spoilt.images if model.in_channels == 1 else with_mask_channel(spoilt)


class _Loss(nn.Module):
    """What a model minimises as a forward pass, which is where PyTorch's parallel engine takes hold."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.model.loss_terms(inputs, targets, weights)


def _check_training_data(model: nn.Module, images: Tensor, observed: Tensor | None) -> None:
    if len(images) == 0:
        raise ValueError("images is empty; give at least one image to train on.")
    if getattr(model, "in_channels", 1) == 1:
        model.check_input(images)
    if observed is not None and observed.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(f"observed has shape {tuple(observed.shape)}; expected {(len(images), 1, *images.shape[2:])}.")


def fit(
    model: Autoencoder,
    images: Tensor,
    *,
    val_images: Tensor | None = None,
    observed: Tensor | None = None,
    corrupt: Corruption | None = None,
    epochs: int = 3,
    batch_size: int = 128,
    peak_lr: float = 5e-3,
    beta: float = 1.0,
    seed: int | None = None,
    fresh: bool = True,
    progress: bool = True,
    label: str = "training",
    checkpoint: Path | None = None,
) -> History:
    """Train `model` in place on a tensor held in memory, and return what happened.

    Adam with a one-cycle learning rate (Smith & Topin 2017, "Super-convergence"). The same seed, thread count and machine
    give the same weights to the last bit. Ctrl-C ends training early and keeps the model and the history so far.

    Args:
        images: `(N, 1, 28, 28)` in [0, 1] (or whatever the model's own encoder takes): what the model learns to give back.
        val_images: held-out examples, evaluated after every epoch; they never influence the weights.
        observed: bool `(N, 1, 28, 28)`; pixels where it is False are unknown: they enter neither the input nor the loss.
        corrupt: spoils each batch anew (see `corruption`). The model sees the spoilt image and is scored against the clean one.
            A model with `in_channels=2` is given the mask of what is observed as its second channel.
        epochs, batch_size, peak_lr: passes over the data, images a step, largest learning rate.
        beta: weight of the KL term (1 is the VAE).
        seed: default `settings.seed()`. Seeds order, noise and corruption; not the weights, which came with the model.
        fresh: the model has not been trained before, so its output bias may be set from the data. False goes on training.
        progress: show a bar with loss, reconstruction and KL.
        checkpoint: a file to go on from if it is there, written after every epoch and removed at the end.

    Within `processes.together()` all processes train one model: each takes its share of every batch.

    Raises:
        ValueError: for an empty or unsuitable batch (see `check_input`), settings out of range, or a batch that cannot be
            shared out evenly.
        FloatingPointError: when the loss is no longer a number; the message says what to lower.
    """
    _check_training_data(model, images, observed)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("peak_lr", peak_lr)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; give a number above 0.")
    device = settings.device()
    model.to(device).train()
    images = images.to(device)
    observed = None if observed is None else observed.to(device)
    if fresh:
        model.set_output_bias(images.mean())
    batch_size = min(batch_size, len(images))
    if batch_size % processes.count():
        raise ValueError(
            f"batch_size is {batch_size}; give a multiple of the {processes.count()} processes that share it."
        )
    steps = len(images) // batch_size
    optimizer = Adam(model.parameters(), lr=peak_lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=epochs * steps, cycle_momentum=False)
    history = History()
    network = processes.parallel(_Loss(model))
    progress = progress and processes.rank() == 0
    with (
        seeded((settings.seed() if seed is None else seed) + processes.rank()),  # each process draws noise of its own
        tqdm(total=epochs * steps, desc=label, disable=not progress, leave=False, unit="batch") as bar,
    ):
        if checkpoint is not None:
            _go_on(_read_checkpoint(checkpoint), model, optimizer, schedule, history)
            bar.update(len(history.epochs) * steps)
        try:
            for epoch in range(len(history.epochs) + 1, epochs + 1):
                sums = torch.zeros(3, device=device)
                order = processes.from_first(torch.randperm(len(images), device=device))
                for step in range(steps):
                    batch = order[step * batch_size : (step + 1) * batch_size][processes.rank() :: processes.count()]
                    known = None if observed is None else observed[batch]
                    targets = images[batch]
                    inputs = _network_input(model, targets, known, corrupt)
                    with autocast(model, device):
                        recon, kl = network(inputs, targets, known)
                    loss = (recon + beta * kl).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    sums += torch.stack([loss.detach(), recon.detach().mean(), kl.detach().mean()])
                    bar.update()
                    # reading a number makes an accelerator wait: not every step
                    if step % 25 == 24 or step + 1 == steps:
                        means = dict(
                            zip(("loss", "recon", "kl"), processes.mean(sums / (step + 1)).tolist(), strict=True)
                        )
                        bar.set_postfix({name: f"{value:.1f}" for name, value in means.items()}, refresh=False)
                        if not math.isfinite(means["loss"]):
                            raise FloatingPointError(
                                f"The loss became {means['loss']} in epoch {epoch}; try peak_lr={peak_lr / 3:.2g}."
                            )
                history.epochs.append({"epoch": epoch, **means})
                if val_images is not None:
                    val = evaluate(model, val_images, corrupt=corrupt, beta=beta, seed=epoch)
                    history.epochs[-1] |= {f"val_{name}": value for name, value in asdict(val).items()}
                    model.train()
                if checkpoint is not None and processes.rank() == 0:
                    _keep_checkpoint(checkpoint, model, optimizer, schedule, history)
        except KeyboardInterrupt:
            history.interrupted = True
            print(f"Interrupted in epoch {len(history.epochs) + 1} of {epochs}: the model keeps what it learnt so far.")
    model.eval()
    optimizer.zero_grad(set_to_none=True)  # gradients take as much memory as the model, and nobody asks for them again
    if checkpoint is not None and not history.interrupted and processes.rank() == 0:
        checkpoint.unlink(missing_ok=True)
    return history


def _keep_checkpoint(path: Path, model: nn.Module, optimizer, schedule, history: History) -> None:
    buffer = io.BytesIO()
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save(state | {"epochs": history.epochs, "random": torch.get_rng_state()}, buffer)
    write_atomically(path, buffer.getvalue())


def _read_checkpoint(path: Path) -> dict | None:
    """The content of the first process's checkpoint; None when there is none, with a sentence when it cannot be read."""
    state = None
    if processes.rank() == 0 and path.exists():
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes of itself
            print(f"The checkpoint {path.name} is damaged ({type(error).__name__}); training from the start.")
    return processes.from_first(state)


def _go_on(state: dict | None, model: nn.Module, optimizer, schedule, history: History) -> None:
    """Take up training where `state` left it."""
    if state is None:
        return
    for name, part in (("model", model), ("optimizer", optimizer), ("schedule", schedule)):
        part.load_state_dict(state[name])
    if processes.rank() == 0:  # the others go on with new noise of their own
        torch.set_rng_state(state["random"])
    history.epochs.extend(state["epochs"])


@torch.no_grad()
def evaluate(
    model: Autoencoder,
    images: Tensor,
    *,
    corrupt: Corruption | None = None,
    beta: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 500,
) -> Losses:
    """Mean loss on `images` in float32, z sampled `samples` times an image (and the corruption drawn anew each time).

    The arguments are those of `fit`; the noise depends on `seed` alone, so that two models meet the same one.
    Raises ValueError for an empty batch.
    """
    _check_training_data(model, images, None)
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64)
    with seeded(seed):
        for _ in range(samples):
            for batch in images.split(batch_size):
                targets = batch.to(device)
                terms = model.loss_terms(_network_input(model, targets, None, corrupt), targets)
                # moved first: Apple's MPS has no float64
                total += torch.stack([term.sum() for term in terms]).cpu().double()
    recon, kl = (total / (samples * len(images))).tolist()
    return Losses(loss=recon + beta * kl, recon=recon, kl=kl)


def fit_or_load(
    make_model: Callable[[], Autoencoder],
    images: Tensor,
    *,
    name: str,
    seed: int | None = None,
    resume: bool = False,
    **options,
) -> tuple[Autoencoder, History]:
    """The trained model and its history: from the cache if exactly this was trained before, else fitted now and kept.

    The cache key is made of everything that shapes the result: architecture (with the source of layers defined outside
    torch), settings, data, seed, and the code of this package's model, training and corruption. A file whose content is not
    what its name promises is named and trained again. A folder that cannot be written to costs the cache, not the run.

    Args:
        make_model: builds the untrained model, for example `lambda: VAE(latent_dim=10)`; called with the seed set.
        name: a readable beginning for the file's name.
        seed: default `settings.seed()`.
        resume: keep a checkpoint in the cache after every epoch, and go on from the one that is there.
        options: the keyword arguments of `fit`.
    """
    seed = settings.seed() if seed is None else seed
    with seeded(seed):
        model = make_model()
    recipe = _recipe(model, images, seed, options)

    def train(path: Path) -> History:
        checkpoint = path.with_suffix(".checkpoint") if resume else None
        return fit(model, images, seed=seed, label=name, checkpoint=checkpoint, **options)

    return model, found_or_trained(model, recipe, name, train)


def _recipe(model: nn.Module, images: Tensor, seed: int, options: dict) -> dict:
    """All that shapes the result of `fit`, for the cache key."""

    def describe(value: object) -> object:
        if isinstance(value, Tensor):
            return cache.fingerprint({"": value})
        text = repr(value)
        if " at 0x" in text:
            raise ValueError(f"{text} cannot be part of a cache key; give an object whose repr says what it does.")
        return text

    return {
        "model": repr(model),
        "latent_dim": model.latent_dim,
        "likelihood": model.likelihood,
        "source": _own_source(model),
        "defaults": str(inspect.signature(fit)),
        "options": {key: describe(value) for key, value in sorted(_shaping(options).items())},
        "data": describe(images),
        "seed": seed,
        "code": CODE,
    }


def _own_source(model: nn.Module) -> dict[str, list[str]]:
    """The source of layers whose code is neither torch's nor this package's (which is in the key by itself).

    Read method by method: Python finds a function by its line, but a class only by its name.
    """
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    own = [cls for cls in classes if cls.__module__.split(".")[0] not in ("torch", "vae_utils", "builtins")]
    return {
        cls.__qualname__: [inspect.getsource(part) for part in vars(cls).values() if inspect.isfunction(part)]
        for cls in own
    }


# Read when the module is imported: whoever edits these files while a kernel runs must not have old results kept as new ones.
CODE = cache.digest(
    *(Path(__file__).with_name(f"{part}.py").read_bytes() for part in ("model", "training", "corruption"))
)


def _shaping(options: dict) -> dict:
    return {key: value for key, value in options.items() if key not in ("progress", "label")}


def recipe_of(kind: object, options: dict, seed: int, data: dict[str, Tensor], own_code: str) -> dict:
    """For `found_or_trained`: all that shapes what another module trains.

    Args:
        kind: what is trained, as JSON; options: the keyword arguments of its training; data: its tensors by name;
            own_code: digest of that module's file, read when it is imported (see `CODE`).
    """
    return {
        "kind": kind,
        "options": _shaping(options),
        "seed": seed,
        "data": cache.fingerprint(data),
        "code": [CODE, own_code],
    }


def found_or_trained(model: nn.Module, recipe: dict, name: str, train: Callable[[Path], History]) -> History:
    """The history of `model`, which is filled from the cache if `recipe` was trained before, else by `train` and kept.

    Args:
        recipe: everything that shapes the result, to be written as JSON.
        name: a readable beginning for the file's name.
        train: trains `model` in place; given the path it will be kept at.
    """
    key = json.dumps(recipe, sort_keys=True)
    path = settings.cache_dir() / f"{name}-{cache.digest(key.encode())[:16]}.safetensors"
    epochs = processes.from_first(cache.load(path, key, model) if processes.rank() == 0 else None)
    if epochs is not None:
        history = History(epochs)
    else:
        history = train(path)
        if not history.interrupted and processes.rank() == 0:
            cache.save(path, key, model, history.epochs)
    model.to(settings.device()).eval()
    for value in model.state_dict().values():
        processes.from_first(value)  # one that the first process has found is everybody's
    return history
