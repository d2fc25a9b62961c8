"""Trained models are kept in files (safetensors), each under a key of everything that the reader can change."""

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vae_utils import settings
from vae_utils.training import History, fit, seeded

# raise by hand when training gives other models: changed layers, schedule, initialisation, corruption
CACHE_VERSION = 1


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename: readers see the old file, the new one, or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads; these folders may be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of names, types, shapes and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(memoryview(array.reshape(-1)).cast("B"))
    return digest.hexdigest()


def fit_or_load(
    make_model: Callable[[], nn.Module],
    images: Tensor,
    *,
    name: str,
    train: Callable[..., History] = fit,
    seed: int | None = None,
    **options,
) -> tuple[nn.Module, History]:
    """The trained model and its history: from the cache if exactly this was trained before, else trained now and kept.

    Args:
        make_model: builds the untrained model, such as `lambda: VAE(latent_dim=10)`; called with the seed set.
        name: a readable beginning for the file's name.
        train: `train(model, images, seed=, label=, **options)` trains in place and returns a History.
        seed: default `settings.seed()`.

    A file that is damaged or another's is named and trained anew; a folder that cannot be written to costs the cache, not
    the run. Raises ValueError for a name that leads elsewhere, and for an option that cannot be part of a key.
    """
    seed = settings.seed() if seed is None else seed
    if Path(name).name != name:
        raise ValueError(f"name is {name!r}; give the beginning of a file's name, such as 'vae-10'.")
    with seeded(seed):
        model = make_model()
    shaping = {key: value for key, value in options.items() if key not in ("progress", "val_images")}
    recipe = {"version": CACHE_VERSION, "seed": seed, "data": _describe(images), "train": _describe(train)}
    recipe |= {"model": repr(model), "likelihood": getattr(model, "likelihood", "")}
    recipe |= {"validated": "val_images" in options, "options": _describe(shaping)}
    recipe |= {"classes": [_describe(kind) for kind in _own_classes(model)]}
    key = json.dumps(recipe, sort_keys=True)
    path = settings.cache_dir() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    history = _load(path, key, model)
    if history is None:
        history = train(model, images, seed=seed, label=name, **options)
        if not history.interrupted:
            _save(path, key, model, history)
    return model.to(settings.device()).eval(), history


def _describe(value: object) -> object:
    """A part of the key: contents of tensors, source of what a notebook defines, names of what the package does."""
    if isinstance(value, Tensor | np.ndarray):
        return fingerprint({"": torch.as_tensor(value)})
    if isinstance(value, nn.Module):
        return [repr(value), fingerprint(value.state_dict())]
    if isinstance(value, dict):
        return {str(key): _describe(part) for key, part in sorted(value.items())}
    if type(value) in (list, tuple):
        return [*map(_describe, value)]
    if inspect.isfunction(value):
        return _source(value) if value.__module__ == "__main__" else f"{value.__module__}.{value.__qualname__}"
    if inspect.isclass(value):  # method by method: Python finds a function by its line, but a class only by its name
        return [value.__qualname__, *(_source(part) for part in vars(value).values() if inspect.isfunction(part))]
    # such a repr does not tell one from another
    if any(sign in repr(value) for sign in (" at 0x", "tensor(", "array(", "<bound ")) or isinstance(value, Path):
        raise ValueError(f"{value!r} cannot be part of a cache key; give an object whose repr says what it does.")
    return repr(value)


def _source(function: Callable, users: tuple = ()) -> list:
    """The source of a function, and of the notebook's numbers, texts and functions that it uses."""
    found, told, users = inspect.getclosurevars(function), {}, (*users, function)
    for name, value in sorted((found.globals | found.nonlocals).items()):
        if isinstance(value, int | float | str):
            told[name] = repr(value)
        elif inspect.isfunction(value) and value.__module__ == "__main__" and value not in users:
            told[name] = _source(value, users)
    return [inspect.getsource(function), told]


def _own_classes(model: nn.Module) -> list[type]:
    """The classes of layers whose code is neither torch's nor this package's, by name."""
    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    own = [kind for kind in classes if kind.__module__.split(".")[0] not in ("torch", "vae_utils", "builtins")]
    return sorted(own, key=lambda kind: kind.__qualname__)


def _save(path: Path, key: str, model: nn.Module, history: History) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    told = json.dumps({"epochs": history.epochs, "steps": history.steps})
    metadata = {"key": key, "history": told, "sha256": fingerprint(state)}
    try:
        write_atomically(path, safetensors.torch.save(state, metadata))
    except OSError as error:
        print(f"The model could not be kept in {path.parent} ({error.strerror}); next time it is trained again.")


def _load(path: Path, key: str, model: nn.Module) -> History | None:
    """Fill `model` from `path`; None, with a sentence if there is a file, when it cannot be trusted."""
    try:
        data = path.read_bytes()
        state = safetensors.torch.load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if metadata["key"] != key:
            raise ValueError("it was made with other data or settings")
        if metadata["sha256"] != fingerprint(state):
            raise ValueError("its weights are damaged")
        model.load_state_dict(state)
        return History(**json.loads(metadata["history"]))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        print(f"The cached model {path.name} cannot be used ({error}); training anew.")
        return None
