"""How is a trained model kept in a file, and when can the file be trusted?"""

import hashlib
import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vae_utils.files import write_atomically


def digest(*parts: bytes) -> str:
    """The SHA-256 of `parts` joined, in hexadecimal."""
    joined = hashlib.sha256()
    for part in parts:
        joined.update(part)
    return joined.hexdigest()


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """A digest of names, types, shapes and contents."""
    parts = []
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        parts += [f"{name}{array.dtype}{array.shape}".encode(), memoryview(array.reshape(-1)).cast("B")]
    return digest(*parts)


def save(path: Path, key: str, model: nn.Module, epochs: list[dict[str, float]]) -> None:
    """Write the weights of `model` to `path`, with `key` and the history of its training.

    A folder that cannot be written to is told in a sentence.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"key": key, "history": json.dumps(epochs), "sha256": fingerprint(state)}
    try:
        write_atomically(path, safetensors.torch.save(state, metadata))
    except OSError as error:
        print(
            f"The trained model could not be kept in {path.parent} ({error.strerror}); it will be trained again next time."
        )


def load(path: Path, key: str, model: nn.Module) -> list[dict[str, float]] | None:
    """Fill `model` from `path` and return its history; None, with a sentence if there is a file, when it cannot be trusted."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"The cached model {path.name} cannot be read ({error.strerror}); training anew.")
        return None
    try:
        state = safetensors.torch.load(data)
        header_length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + header_length])["__metadata__"]
        if metadata["key"] != key:
            raise ValueError("it was made by other code, data or settings")
        if metadata["sha256"] != fingerprint(state):
            raise ValueError("its weights are damaged")
        epochs = json.loads(metadata["history"])
        model.load_state_dict(state)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        print(f"The cached model {path.name} is not what its name promises ({error}); training anew.")
        return None
    return epochs
