"""Rivals of the VAE that somebody else wrote: the image formats JPEG, PNG and WebP."""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_utils.model import check_values


@dataclass(frozen=True, eq=False)
class Coded:
    """What an image format makes of N images: bytes in all files together, and float32 images `(N, 1, H, W)` in [0, 1]."""

    size: int
    images: Tensor

    @property
    def bytes_each(self) -> float:
        """Bytes per image, headers included."""
        return self.size / len(self.images)


def one_file_each(images: Tensor, format: str, *, one_bit: bool = False, **options) -> Coded:
    """Every image `(N, 1, H, W)` in [0, 1] as a file of its own.

    Args:
        format: "jpeg", "png" or "webp".
        one_bit: store 1 bit per pixel where the format can (PNG): for images of zeros and ones.
        options: what Pillow's writer takes, such as `quality=5` or `lossless=True`.

    Raises ValueError for images outside [0, 1].
    """
    files = [_write(image, format, one_bit, options) for image in _bytes(images)]
    return Coded(sum(map(len, files)), torch.stack([_read(file) for file in files]))


def one_sheet(images: Tensor, format: str, *, one_bit: bool = False, **options) -> Coded:
    """All images side by side in one large picture, so that one header serves them all. Arguments as for `one_file_each`."""
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
