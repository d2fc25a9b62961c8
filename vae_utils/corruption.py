"""Corruptions of images: replaced pixels, noise, missing pixels, missing blocks.

A corruption is a small frozen object that is called with a batch, and its repr can stand in a cache key:

    corrupted, observed = EraseBlock(12)(images, torch.Generator().manual_seed(0))
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_utils.model import check_values

SIDES = ("left", "right", "top", "bottom")


class Corrupted(NamedTuple):
    """A corrupted batch and its mask. Neither tensor shares memory with the clean images."""

    images: Tensor  # (N, C, H, W) in [0, 1], dtype and device of the clean images; 0 where a pixel is missing
    observed: Tensor  # (N, 1, H, W) bool, True where the pixel was left alone; one mask for all channels


class Corruption:
    """Base class: `corruption(images, generator=None) -> Corrupted`, for float images `(N, C, H, W)` in [0, 1].

    `generator` lives on the device of the images; None is PyTorch's global one. The same seed gives the same result.
    Raises ValueError for images of another shape, type or range.
    """

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Corrupted:
        if images.ndim != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}; give (N, C, H, W).")
        check_values(images)
        values = self._values(images, generator)
        touched = self._touched(images, generator)  # bool, broadcasts to (N, 1, H, W)
        return Corrupted(torch.where(touched, values, images), (~touched).expand_as(images[:, :1]).contiguous())

    def _values(self, images: Tensor, generator: Generator | None) -> Tensor | float:
        return 0.0


@dataclass(frozen=True)
class DropPixels(Corruption):
    """Random pixels are missing (0): exactly `round(fraction * H * W)` of each image, drawn without replacement.

    With a pair `(low, high)` each image draws its own fraction uniformly from that interval.
    Raises ValueError for a fraction outside [0, 1], NaN, or low > high.
    """

    fraction: float | tuple[float, float]

    def __post_init__(self):
        pair = isinstance(self.fraction, (tuple, list))
        low, high = map(float, self.fraction if pair else (self.fraction, self.fraction))
        if not 0 <= low <= high <= 1:
            raise ValueError(f"fraction is {self.fraction!r}; give 0 to 1, or (low, high) with low <= high.")
        object.__setattr__(self, "fraction", (low, high) if pair else low)

    def _touched(self, images, generator):
        n, _, height, width = images.shape
        if isinstance(self.fraction, tuple):
            low, high = self.fraction
            level = low + (high - low) * torch.rand(n, 1, generator=generator, device=images.device)
            count = (level * (height * width)).round()
        else:
            count = round(self.fraction * (height * width))
        # Sorting noise shuffles the numbers 0 … H·W - 1, and exactly `count` of those are below `count`.
        shuffled = torch.rand(n, height * width, generator=generator, device=images.device).argsort(dim=1)
        return (shuffled < count).view(n, 1, height, width)


class ReplacePixels(DropPixels):
    """Random pixels get a value uniform on [0, 1), and no mask says which. `fraction` as in `DropPixels`."""

    def _values(self, images, generator):
        return torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device)


class SaltAndPepper(DropPixels):
    """Random pixels turn 0 or 1, with equal chances. `fraction` as in `DropPixels`."""

    def _values(self, images, generator):
        return torch.randint(2, images[:, :1].shape, generator=generator, device=images.device)


@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """Normal noise of standard deviation `std` (1 is the step from black to white), clipped to [0, 1]; observes nothing."""

    std: float

    def _values(self, images, generator):
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
        return (images + self.std * noise).clamp(0, 1)

    def _touched(self, images, generator):
        return torch.ones_like(images[:, :1], dtype=torch.bool)


@dataclass(frozen=True)
class EraseBlock(Corruption):
    """A block of `size` × `size` pixels, or `(height, width)`, is missing (0), anywhere wholly inside the image."""

    size: int | tuple[int, int]

    def __post_init__(self):
        pair = isinstance(self.size, (tuple, list))
        object.__setattr__(self, "size", tuple(self.size) if pair else (self.size, self.size))

    def _touched(self, images, generator):
        inside = []
        for length, side in zip(images.shape[2:], self.size, strict=True):  # along each axis: in the block?
            start = torch.randint(length - side + 1, (len(images), 1), generator=generator, device=images.device)
            offset = torch.arange(length, device=images.device) - start
            inside.append((offset >= 0) & (offset < side))
        return inside[0][:, None, :, None] & inside[1][:, None, None, :]


@dataclass(frozen=True)
class EraseHalf(Corruption):
    """One half is missing (0): one of `SIDES`, or "random" for a draw per image. The middle of an odd number is kept."""

    side: str

    def __post_init__(self):
        if self.side not in (*SIDES, "random"):
            raise ValueError(f"side is {self.side!r}; choose one of {', '.join(SIDES)}, random.")

    def _touched(self, images, generator):
        n, _, height, width = images.shape
        left = (torch.arange(width, device=images.device) < width // 2).expand(height, width)
        top = (torch.arange(height, device=images.device) < height // 2)[:, None].expand(height, width)
        halves = torch.stack([left, left.flip(1), top, top.flip(0)])[:, None]  # in the order of SIDES
        if self.side != "random":
            return halves[SIDES.index(self.side)]
        return halves[torch.randint(len(SIDES), (n,), generator=generator, device=images.device)]


@dataclass(frozen=True)
class EraseStripes(Corruption):
    """Of every `period` lines `width` are missing (0), from a random one on: "horizontal" stripes or "vertical" ones."""

    width: int
    period: int
    direction: str = "horizontal"

    def __post_init__(self):
        if not 1 <= self.width <= self.period or self.direction not in ("horizontal", "vertical"):
            raise ValueError(f"{self!r}: give 1 <= width <= period, and horizontal or vertical.")

    def _touched(self, images, generator):
        rows = self.direction == "horizontal"
        phase = torch.randint(self.period, (len(images), 1), generator=generator, device=images.device)
        line = torch.arange(images.shape[2 if rows else 3], device=images.device)
        missing = (line + phase) % self.period < self.width
        return missing[:, None, :, None] if rows else missing[:, None, None, :]


class AnyOf(Corruption):
    """Each image gets one of `kinds`, all equally likely: `AnyOf(DropPixels(0.5), EraseBlock(12))`."""

    def __init__(self, *kinds: Corruption):
        self.kinds = kinds

    def __repr__(self):
        return f"AnyOf({', '.join(map(repr, self.kinds))})"

    def __call__(self, images, generator=None):
        mixed = Corrupted(images.clone(), torch.ones_like(images[:, :1], dtype=torch.bool))
        choice = torch.randint(len(self.kinds), (len(images),), generator=generator, device=images.device)
        for number, kind in enumerate(self.kinds):  # one call per kind, with all the images that drew it
            chosen = choice == number
            mixed.images[chosen], mixed.observed[chosen] = kind(images[chosen], generator)
        return mixed


def with_mask_channel(corrupted: Corrupted) -> Tensor:
    """Pixels and mask (1 = observed) as floats on the channel axis: `(N, C + 1, H, W)`, for digits `(N, 2, H, W)`."""
    return torch.cat([corrupted.images, corrupted.observed.to(corrupted.images.dtype)], dim=1)
