"""What can be said about an answer by its properties: its shape, its sign, a known value, a limit?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


class Wrong(Exception):
    """What is wrong with an answer, as sentences for the one who gave it."""


@dataclass(frozen=True)
class Exercise:
    """One exercise. `judge` is given the learner's function, raises `Wrong`, or returns a sentence of insight."""

    hint: str
    judge: Callable[[Callable], str]


def expect(holds: object, otherwise: str) -> None:
    """Raises `Wrong` with the sentence `otherwise` unless `holds`."""
    if not holds:
        raise Wrong(otherwise)


def numbers(value: object, shape: tuple[int, ...], what: str, hint: str = "") -> np.ndarray:
    """`value` as a float64 array of `shape`, all finite. Raises `Wrong`, which calls the value `what`, for anything else."""
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"{what} is a {type(value).__name__}; expected numbers. {hint}") from None
    if array.shape != shape:
        raise Wrong(f"{what} has {_shape(array.shape)}; expected {_shape(shape)}. {hint}")
    if not np.isfinite(array).all():
        raise Wrong(f"{what} holds {'nan' if np.isnan(array).any() else 'an infinite value'}. {hint}")
    return array


def close(value: object, expected: object, within: float = 1e-4) -> bool:
    """Whether all of `value` is within `within` of `expected`, relative to 1 or to `expected` where that is larger."""
    return bool(np.allclose(value, expected, rtol=within, atol=within))


def short(value: object) -> str:
    """A number for a sentence: three digits, no -0."""
    return f"{float(value) + 0.0:.3g}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"shape {shape}" if shape else "the shape of a single number"
