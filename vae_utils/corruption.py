"""How is an image spoilt: replaced pixels, missing pixels, missing blocks?

A corruption is a small frozen object that is called with a batch:

    spoilt, observed = EraseBlock(12)(images, torch.Generator().manual_seed(0))

Its repr names everything that shapes it, so it can stand in the cache key of a model trained on it.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import torch

SIDES = ("left", "right", "top", "bottom")
DIRECTIONS = ("horizontal", "vertical")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Corrupted(NamedTuple):
    """A spoilt batch, and which of its pixels can be trusted. Neither tensor shares memory with the clean images."""

    images: torch.Tensor  # (N, C, H, W) in [0, 1], dtype and device of the clean images; 0 where a pixel is missing
    observed: torch.Tensor  # (N, 1, H, W) bool, True where the pixel was left alone; one mask for all channels


@dataclass(frozen=True)
class Corruption:
    """What all kinds below have in common: `corruption(images, generator=None) -> Corrupted`.

    `images` is a float tensor (N, C, H, W) in [0, 1]; N may be 0; it is never changed. `generator` lives on the device
    of the images; None means PyTorch's global one. The same seed on the same device gives the same result.
    Raises ValueError for images of another shape, type or range, and for a generator of another device.
    """

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> Corrupted:
        kind = images.dtype if torch.is_tensor(images) else type(images).__name__
        floating = torch.is_tensor(images) and images.is_floating_point()
        _require(floating, f"images are {kind}; give a float tensor in [0, 1], for bytes: images.float() / 255.")
        shape, device = tuple(images.shape), images.device
        _require(len(shape) == 4, f"images have shape {shape}; give (N, C, H, W), e.g. images.view(-1, 1, 28, 28).")
        if generator is not None and generator.device.type != device.type:
            raise ValueError(
                f"generator is on {generator.device}, images on {device}; give torch.Generator('{device}')."
            )
        if images.numel():  # an empty batch has no extremes
            low, high = torch.stack(images.aminmax()).tolist()
            in_range = low >= 0 and high <= 1  # False for NaN too
            _require(in_range, f"images run from {low:g} to {high:g}; give [0, 1]: divide bytes by 255, look for NaN.")
        return self._spoil(images, generator)

    def _spoil(self, images: torch.Tensor, generator: torch.Generator | None) -> Corrupted:
        raise NotImplementedError(f"{type(self).__name__} does not say how it spoils an image.")


def _put(images: torch.Tensor, touched: torch.Tensor, values: torch.Tensor | float) -> Corrupted:
    """`values` where `touched` (bool, broadcasts to (N, 1, H, W)), the images elsewhere."""
    return Corrupted(torch.where(touched, values, images), (~touched).expand_as(images[:, :1]).contiguous())


# --- single pixels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SomePixels(Corruption):
    fraction: float | tuple[float, float]

    def __post_init__(self):
        pair = isinstance(self.fraction, (tuple, list))
        bounds = tuple(self.fraction) if pair else (self.fraction, self.fraction)
        good = (
            len(bounds) == 2 and all(isinstance(bound, Real) for bound in bounds) and 0 <= bounds[0] <= bounds[1] <= 1
        )
        _require(good, f"fraction is {self.fraction!r}; give 0 to 1 (0.3 for 30 %), or (low, high) with low <= high.")
        object.__setattr__(self, "fraction", tuple(map(float, bounds)) if pair else float(self.fraction))

    def _choose(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """True for the chosen pixels of each image, (N, 1, H, W)."""
        n, _, height, width = images.shape
        pixels = height * width
        if isinstance(self.fraction, tuple):
            low, high = self.fraction
            level = low + (high - low) * torch.rand(n, 1, generator=generator, device=images.device)
            count = (level * pixels).round()
        else:
            count = round(self.fraction * pixels)
        # Sorting noise shuffles the numbers 0 … pixels - 1, and exactly `count` of those are below `count`.
        shuffled = torch.rand(n, pixels, generator=generator, device=images.device).argsort(dim=1)
        return (shuffled < count).view(n, 1, height, width)


@dataclass(frozen=True)
class ReplacePixels(_SomePixels):
    """Random pixels get a value uniform on [0, 1): noise that does not say where it is.

    Exactly `round(fraction * H * W)` pixels of each image, drawn without replacement. With a pair `(low, high)` each
    image draws its own fraction uniformly from that interval: one model for all levels of noise.
    Raises ValueError for a fraction outside [0, 1], NaN, or low > high.
    """

    def _spoil(self, images, generator):
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device)
        return _put(images, self._choose(images, generator), noise)


@dataclass(frozen=True)
class DropPixels(_SomePixels):
    """Random pixels are missing (0), whatever they showed. `fraction` and errors as in `ReplacePixels`."""

    def _spoil(self, images, generator):
        return _put(images, self._choose(images, generator), 0.0)


@dataclass(frozen=True)
class SaltAndPepper(_SomePixels):
    """Random pixels turn 0 or 1, with equal chances. `fraction` and errors as in `ReplacePixels`."""

    def _spoil(self, images, generator):
        coin = torch.randint(2, images[:, :1].shape, generator=generator, device=images.device)
        return _put(images, self._choose(images, generator), coin)


@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """Every pixel gets normal noise of standard deviation `std`, clipped to [0, 1]; so none counts as observed.

    Raises ValueError for a negative, infinite or NaN `std`.
    """

    std: float

    def __post_init__(self):
        good = isinstance(self.std, Real) and 0 <= self.std < math.inf
        _require(good, f"std is {self.std!r}; give a number from 0 up, where 1 is the step from black to white.")
        object.__setattr__(self, "std", float(self.std))

    def _spoil(self, images, generator):
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
        everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
        return _put(images, everywhere, (images + self.std * noise).clamp(0, 1))


# --- connected pixels, erased to 0 ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EraseBlock(Corruption):
    """A block of `size` × `size` pixels, or `(height, width)`, is missing (0), anywhere wholly inside the image.

    Raises ValueError for a size that is not whole and positive and, when called, for a block larger than the image.
    """

    size: int | tuple[int, int]

    def __post_init__(self):
        size = tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        good = len(size) == 2 and all(isinstance(side, Integral) and side >= 1 for side in size)
        _require(good, f"size is {self.size!r}; give a whole number of pixels from 1 up, or (height, width).")
        object.__setattr__(self, "size", tuple(map(int, size)))

    def _spoil(self, images, generator):
        frame = tuple(images.shape[2:])
        fits = self.size[0] <= frame[0] and self.size[1] <= frame[1]
        _require(fits, f"size is {self.size}, the images are only {frame}; give a block that fits inside.")

        def inside(length, side):  # (N, length): along one axis, is this pixel in the block?
            shape = (len(images), 1)
            start = torch.randint(length - side + 1, shape, generator=generator, device=images.device)
            offset = torch.arange(length, device=images.device) - start
            return (offset >= 0) & (offset < side)

        rows, columns = inside(frame[0], self.size[0]), inside(frame[1], self.size[1])
        return _put(images, rows[:, None, :, None] & columns[:, None, None, :], 0.0)


@dataclass(frozen=True)
class EraseHalf(Corruption):
    """One half of the image is missing (0): "left", "right", "top", "bottom", or "random" for a draw per image.

    The middle line of an odd number of lines is kept. Raises ValueError for any other side.
    """

    side: str

    def __post_init__(self):
        sides = (*SIDES, "random")
        _require(self.side in sides, f"side is {self.side!r}; choose one of {', '.join(sides)}.")

    def _spoil(self, images, generator):
        n, _, height, width = images.shape
        left = (torch.arange(width, device=images.device) < width // 2).expand(height, width)
        top = (torch.arange(height, device=images.device) < height // 2)[:, None].expand(height, width)
        halves = torch.stack([left, left.flip(1), top, top.flip(0)])[:, None]  # in the order of SIDES
        if self.side == "random":
            which = torch.randint(len(SIDES), (n,), generator=generator, device=images.device)
        else:
            which = SIDES.index(self.side)
        return _put(images, halves[which], 0.0)


@dataclass(frozen=True)
class EraseStripes(Corruption):
    """Of every `period` lines, `width` neighbours are missing (0); where the first stripe lies is drawn per image.

    `direction` is that of the stripes: "horizontal" ones erase rows, "vertical" ones columns.
    Raises ValueError unless both numbers are whole with 1 <= width <= period, and for any other direction.
    """

    width: int
    period: int
    direction: str = "horizontal"

    def __post_init__(self):
        for name in ("width", "period"):
            lines = getattr(self, name)
            good = isinstance(lines, Integral) and lines >= 1
            _require(good, f"{name} is {lines!r}; give a whole number of pixels from 1 up.")
            object.__setattr__(self, name, int(lines))
        _require(self.width <= self.period, f"width is {self.width}; give {self.period} (the period) or less.")
        choices = ", ".join(DIRECTIONS)
        _require(self.direction in DIRECTIONS, f"direction is {self.direction!r}; choose one of {choices}.")

    def _spoil(self, images, generator):
        n, _, height, width = images.shape
        rows = self.direction == "horizontal"
        phase = torch.randint(self.period, (n, 1), generator=generator, device=images.device)
        line = torch.arange(height if rows else width, device=images.device)
        missing = (line + phase) % self.period < self.width
        return _put(images, missing[:, None, :, None] if rows else missing[:, None, None, :], 0.0)


# --- mixtures, and what a network is fed ------------------------------------------------------------------------------


@dataclass(frozen=True, init=False, repr=False)
class AnyOf(Corruption):
    """Each image gets one of `kinds`, all equally likely, so that one model can be trained on all of them.

    `AnyOf(DropPixels(0.5), EraseBlock(12))`. Raises ValueError without kinds, and for a kind that is no corruption.
    """

    kinds: tuple[Corruption, ...]

    def __init__(self, *kinds: Corruption):
        good = len(kinds) > 0 and all(isinstance(kind, Corruption) for kind in kinds)
        _require(good, f"kinds are {kinds!r}; give corruptions: AnyOf(DropPixels(0.5), EraseBlock(12)).")
        object.__setattr__(self, "kinds", kinds)

    def __repr__(self):
        return f"AnyOf({', '.join(map(repr, self.kinds))})"

    def _spoil(self, images, generator):
        mixed = Corrupted(images.clone(), torch.ones_like(images[:, :1], dtype=torch.bool))
        choice = torch.randint(len(self.kinds), (len(images),), generator=generator, device=images.device)
        for number, kind in enumerate(self.kinds):  # one call per kind, with all the images that drew it
            chosen = choice == number
            mixed.images[chosen], mixed.observed[chosen] = kind._spoil(images[chosen], generator)
        return mixed


def with_mask_channel(corrupted: Corrupted) -> torch.Tensor:
    """Pixels and mask (1 = observed) as floats on the channel axis: (N, C + 1, H, W), for digits (N, 2, H, W).

    The input of an imputation model, which must tell a black pixel from a missing one: both are 0 in the images alone.
    """
    return torch.cat([corrupted.images, corrupted.observed.to(corrupted.images.dtype)], dim=1)
