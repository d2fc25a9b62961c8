"""Rivals of the VAE: the image formats JPEG, PNG and WebP, classical filters against noise, and a small U-Net."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import median_filter
from torch import Tensor, nn

from vae_utils.model import check_values


@dataclass(frozen=True, eq=False)
class Coded:
    """What an image format makes of N images: bytes of the file, and float32 images `(N, 1, H, W)` in [0, 1]."""

    size: int
    images: Tensor

    @property
    def bytes_each(self) -> float:
        """Bytes per image, headers included."""
        return self.size / len(self.images)


def one_sheet(images: Tensor, format: str, *, one_bit: bool = False, **options) -> Coded:
    """All images `(N, 1, H, W)` in [0, 1] side by side in one large picture, so that one header serves them all.

    Args:
        format: "jpeg", "png", "webp" or another that Pillow writes.
        one_bit: store 1 bit per pixel where the format can (PNG): for images of zeros and ones.
        options: what Pillow's writer takes, such as `quality=5` or `lossless=True`.

    Raises ValueError for images outside [0, 1].
    """
    height, width = images.shape[-2:]
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cells = np.zeros((rows * columns, height, width), np.uint8)  # the empty places at the end are black
    cells[: len(images)] = _bytes(images)
    sheet = cells.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    file = _write(sheet, format, one_bit, options)
    cells = _read(file).view(rows, height, columns, width).swapaxes(1, 2).reshape(-1, 1, height, width)
    return Coded(len(file), cells[: len(images)])


def _bytes(images: Tensor) -> np.ndarray:
    check_values(images)
    return (images[:, 0] * 255).round().byte().cpu().numpy()


def _write(pixels: np.ndarray, format: str, one_bit: bool, options: dict) -> bytes:
    picture = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (picture.convert("1") if one_bit else picture).save(buffer, format, **options)
    return buffer.getvalue()


def _read(file: bytes) -> Tensor:
    with Image.open(io.BytesIO(file)) as picture:
        return torch.from_numpy(np.array(picture.convert("L"))).float().div_(255).unsqueeze(0)


def road_median(noisy: Tensor, threshold: float, mode: str = "constant") -> Tensor:
    """The 3×3 median where a pixel's ROAD exceeds `threshold`, the pixel itself elsewhere, for images `(N, 1, H, W)`.

    ROAD (Garnett et al. 2005) sums the four smallest differences to the neighbours. Beyond the edge: black, or `mode` "reflect".
    """
    median = torch.from_numpy(median_filter(noisy.numpy(), size=(1, 1, 3, 3), mode=mode))
    neighbours = F.unfold(F.pad(noisy, (1, 1, 1, 1), mode=mode), 3).view(len(noisy), 9, *noisy.shape[2:])
    differences = (neighbours - noisy).abs().sort(dim=1).values  # the smallest is the pixel's to itself, 0
    return torch.where(differences[:, 1:5].sum(1, keepdim=True) > threshold, median, noisy)


def total_variation_l1(noisy: Tensor, weight: float, steps: int = 100) -> Tensor:
    """TV-L1: the u that minimises TV(u) + weight · |u − noisy|₁, for images `(N, 1, H, W)` (Chambolle & Pock 2011, algorithm 1).

    The smaller `weight`, the smoother; the edge is free. The L1 distance, unlike squared error, lets pixels be replaced whole.
    """
    u = leading = noisy
    rows = columns = torch.zeros_like(noisy)  # the dual variable: one vector of length at most 1 for each pixel
    step = 1 / 8**0.5
    for _ in range(steps):
        rows = rows + step * F.pad(leading.diff(dim=2), (0, 0, 0, 1))
        columns = columns + step * F.pad(leading.diff(dim=3), (0, 1))
        length = (rows.square() + columns.square()).sqrt().clamp(min=1)
        rows, columns = rows / length, columns / length
        divergence = rows.diff(dim=2, prepend=torch.zeros_like(rows[:, :, :1]))
        divergence = divergence + columns.diff(dim=3, prepend=torch.zeros_like(columns[..., :1]))
        away = u + step * divergence - noisy
        before, u = u, noisy + F.softshrink(away, step * weight)
        leading = 2 * u - before
    return u.clamp(0, 1)


def lmmse(clean: Tensor, channel: Tensor) -> Callable[[Tensor], Tensor]:
    """The linear filter with the least mean squared error (LMMSE, or Wiener filter) for noise that hits each pixel by itself.

    `clean` are training images `(N, 1, H, W)` in [0, 1]; `channel` `(256, 256)` is the noise model: the probability of each
    grey level that is shown (columns), for each true one (rows). With m(x) = E[shown | true] the moments are exact:
    Cov(x, y) = Cov(x, m(x)), and Cov(y) = Cov(m(x)) but for its diagonal.
    """
    grey = torch.linspace(0, 1, 256)
    level = (clean.flatten(1) * 255).round().long()
    x, shown = grey[level], (channel @ grey)[level]
    mean, shown_mean = x.mean(0), shown.mean(0)
    variance = (channel @ grey.square())[level].mean(0) - shown_mean.square()
    x, shown = x - mean, shown - shown_mean
    covariance = (shown.T @ shown / len(x)).double()
    covariance.diagonal().copy_(variance + 1e-6)
    matrix = torch.linalg.solve(covariance, (shown.T @ x / len(x)).double()).float()
    return lambda noisy: ((noisy.flatten(1) - shown_mean) @ matrix + mean).clamp(0, 1).view_as(noisy)


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015): images `(N, in_channels, H, W)` to estimates `(N, 1, H, W)` in [0, 1].

    H and W are multiples of 4. It works on 2×2 blocks of pixels, as FFDNet does (Zhang et al. 2018), which suits CPUs, and
    is told which pixels are exactly 0 or 1, which a convolution can hardly tell from the grey level next to it.
    `fit` trains it on corrupted images with cross-entropy, as it does the autoencoder. A model of 2 channels is fed the mask.

    Args:
        outputs: maps of logits that `logits` gives; the first is the estimate, others are for subclasses to use.
    """

    def __init__(self, in_channels: int = 1, *, outputs: int = 1, width: int = 32, depth: int = 48):
        super().__init__()
        self.in_channels = in_channels
        features = 4 * (in_channels + 2)
        self.enter = _convolutions(features, width, width)
        self.low = nn.Sequential(nn.Conv2d(width, depth, 3, 2, 1), nn.ReLU(), *_convolutions(depth, depth, depth))
        self.up = nn.ConvTranspose2d(depth, width, 2, stride=2)
        self.leave = _convolutions(width, width, width)
        self.last = nn.Conv2d(width + features, 4 * outputs, 1)
        self.to(memory_format=torch.channels_last)

    def logits(self, x: Tensor) -> Tensor:
        """What comes out before the sigmoid, `(N, outputs, H, W)`."""
        pixels = x[:, :1]
        blocks = F.pixel_unshuffle(torch.cat([x, (pixels == 0).to(x.dtype), (pixels == 1).to(x.dtype)], dim=1), 2)
        top = self.enter(blocks)
        top = self.leave(top + self.up(self.low(top)))
        return F.pixel_shuffle(self.last(torch.cat([top, blocks], dim=1)), 2).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)[:, :1].sigmoid()

    def loss_terms(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each estimate `(N,)` in nats, and zeros in the place of a VAE's KL; weights of 0 leave pixels out."""
        loss = F.binary_cross_entropy_with_logits(self.logits(inputs)[:, :1], targets, weights, reduction="none")
        return loss.flatten(1).sum(1), loss.new_zeros(len(loss))

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError for a shape it cannot take, NaN or values outside [0, 1]."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (N, {self.in_channels}, H, W), H and W multiples of 4."
            )
        check_values(x)


def _convolutions(*channels: int) -> nn.Sequential:
    pairs = pairwise(channels)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())))
