"""The digits (and letters): four data sets of 28×28 images, white on black, checked before they are used.

MNIST and its two siblings are read from disk, or downloaded by torchvision; scikit-learn's 1,797 digits are the offline
stand-in. Letters and offline digits are brought into MNIST's frame by the rule that made MNIST: scaled into a 20×20 box,
then placed with the centre of mass in the middle.
"""

import contextlib
import hashlib
import math
import os
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from skimage.transform import resize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate, pad

from vae_utils import settings

SIDE, BOX, MIDDLE = 28, 20, 14  # MNIST's frame in pixels; its centres of mass lie within half a pixel of index 14
PATIENCE = 5  # seconds that a mirror has to answer before we are offline
VALIDATION = 5_000  # the last of the training images of the MNIST family

# name: torchvision's class and folder, title, classes
FAMILY = {
    "mnist": ("MNIST", "MNIST", "0 1 2 3 4 5 6 7 8 9"),
    "fashion": ("FashionMNIST", "Fashion-MNIST", "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot"),
    "kmnist": ("KMNIST", "Kuzushiji-MNIST", "o ki su tsu na ha ma ya re wo"),
}
# file: shape, and the SHA-256 of MNIST's
FILES = {
    "train-images-idx3-ubyte": ((60_000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": ((60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": ((10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
# Of the families that matplotlib ships, the weights whose strokes come closest to MNIST's, which are about 3 pixels wide.
FONT_FILES = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Serif": "DejaVuSerif-Bold.ttf",
    "DejaVu Sans Mono": "DejaVuSansMono.ttf",
    "DejaVu Sans Oblique": "DejaVuSans-Oblique.ttf",
    "DejaVu Serif Italic": "DejaVuSerif-BoldItalic.ttf",
    "DejaVu Sans Mono Oblique": "DejaVuSansMono-Oblique.ttf",
    "STIX": "STIXGeneralBol.ttf",
    "STIX Italic": "STIXGeneralBolIta.ttf",
    "Computer Modern Roman": "cmb10.ttf",
    "Computer Modern Sans": "cmss10.ttf",
    "Computer Modern Typewriter": "cmtt10.ttf",
    "Computer Modern Italic": "cmmi10.ttf",
    "Computer Modern Calligraphic": "cmsy10.ttf",
}
DRAWN_SIZE = 120  # font size in pixels, large against BOX so that the antialiasing has something to average


class DataError(RuntimeError):
    """Data that cannot be had or must not be used: names the file or folder, what was expected, and the way out."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: images are float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,) that index `class_names`."""

    name: str
    title: str
    class_names: tuple[str, ...]
    train_images: Tensor
    val_images: Tensor
    test_images: Tensor
    train_labels: Tensor
    val_labels: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class Letters:
    """Letters in MNIST's frame: images are float32 (N, 1, 28, 28) in [0, 1]; each has a character and a font."""

    images: Tensor
    characters: tuple[str, ...]
    fonts: tuple[str, ...]


def load(name: str | None = None, root: Path | None = None) -> ImageData:
    """The data set called `name` (default `VAE_DATASET`), from below the folder `root` (default `VAE_DATA_DIR`).

    `mnist`, `fashion` and `kmnist` are 55,000 training, 5,000 validation and 10,000 test images, found sound on disk or
    else downloaded; `digits` needs neither disk nor network and splits 1,300 / 147 / 350, the same way for every seed.
    `auto` is `mnist` where that can be had and otherwise, with a sentence that says so, `digits`.

    Raises ValueError for an unknown name, and DataError when a data set asked for by its own name cannot be had.
    """
    name = settings.dataset() if name is None else name
    if name not in settings.DATASETS:
        raise ValueError(f"There is no data set {name!r}; choose one of {', '.join(settings.DATASETS)}.")
    if name == "digits":
        return _offline_digits()
    try:
        return _mnist_family("mnist" if name == "auto" else name, root)
    except DataError as error:
        if name != "auto":
            raise
        print(f"Using the 1,797 real handwritten digits that scikit-learn ships, because {error}")
        return _offline_digits()


def sound_files(name: str = "mnist", root: Path | None = None) -> list[Path]:
    """Where the four files of a data set lie below `root`, checked as `load` does. Never downloads. Raises DataError."""
    raw = Path(root or settings.data_dir()) / FAMILY[name][0] / "raw"
    _read_all(name, raw)
    return [raw / file for file in FILES]


def _mnist_family(name: str, root: Path | None) -> ImageData:
    folder, title, class_names = FAMILY[name]
    raw = Path(root or settings.data_dir()) / folder / "raw"
    try:
        arrays = _read_all(name, raw)
    except DataError as on_disk:
        try:
            arrays = _download(name, raw)
        except DataError as error:
            way_out = f"set VAE_DATA_DIR to a folder that holds {folder}/raw/ with its four files, or go online again"
            raise DataError(f"{title} could not be had ({on_disk}; {error}); to get it, {way_out}.") from error
        print(f"{title} was downloaded to {raw}, because {on_disk}.")
    images, labels, test_images, test_labels = (torch.tensor(array) for array in arrays)
    images, test_images = (pixels.unsqueeze(1).float().div_(255) for pixels in (images, test_images))
    parts = [*images.tensor_split([-VALIDATION]), test_images]
    parts += [*labels.long().tensor_split([-VALIDATION]), test_labels.long()]
    return ImageData(name, title, tuple(class_names.split()), *parts)


def _read_all(name: str, raw: Path) -> list[np.ndarray]:
    mnist = name == "mnist"
    arrays = [_read_idx(raw / file, shape, sha256 if mnist else "") for file, (shape, sha256) in FILES.items()]
    for file, labels in zip(FILES, arrays, strict=True):
        # nobody publishes digests of the siblings' files, but their classes are all of one size
        if not mnist and labels.ndim == 1 and (np.bincount(labels, minlength=10) != len(labels) // 10).any():
            raise DataError(f"{raw / file} is damaged: not {len(labels) // 10:,} labels of each class from 0 to 9")
    return arrays


def _read_idx(path: Path, shape: tuple[int, ...], sha256: str) -> np.ndarray:
    """The bytes of an IDX file as a uint8 array of `shape`; DataError, worded as a clause, unless it is sound."""
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()  # 08: unsigned bytes
    expected = len(header) + math.prod(shape)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        packed = f"; unpack {path.name}.gz beside it" if Path(f"{path}.gz").exists() else ""
        raise DataError(f"{path} is missing{packed}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) != expected:
        raise DataError(f"{path} is damaged: {len(content):,} bytes where {expected:,} belong")
    if not content.startswith(header):
        raise DataError(f"{path} is damaged: it does not begin as an IDX file of shape {shape} does")
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is damaged: its SHA-256 is not {sha256}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _download(name: str, raw: Path) -> list[np.ndarray]:
    """Fetch the four files with torchvision and put them into `raw`, each whole and checked or not at all; DataError."""
    from torchvision import datasets  # slow, and needed here alone

    dataset, patience = getattr(datasets, FAMILY[name][0]), socket.getdefaulttimeout()
    _check_online(dataset.mirrors)
    try:
        raw.mkdir(parents=True, exist_ok=True)
        # within `raw`, so that a folder that cannot be written to is noticed before the download and not after it
        with tempfile.TemporaryDirectory(prefix=".download-", dir=raw, ignore_cleanup_errors=True) as temporary:
            socket.setdefaulttimeout(10)
            dataset(temporary, download=True)
            arrived = Path(temporary, FAMILY[name][0], "raw")
            arrays = _read_all(name, arrived)
            for file in FILES:
                os.replace(arrived / file, raw / file)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(f"the download failed: {' '.join(str(error).split())}") from error
    finally:
        socket.setdefaulttimeout(patience)
    return arrays


def _check_online(mirrors: Sequence[str]) -> None:
    """DataError unless a mirror answers in time; asked by another process: looking up a name heeds no time-out."""
    ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + 't10k-labels-idx1-ubyte.gz')"
    for mirror in mirrors:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run([sys.executable, "-c", ask, mirror], capture_output=True, timeout=PATIENCE, check=True)
            return
    raise DataError("no mirror could be reached")


def _offline_digits() -> ImageData:
    """scikit-learn's digits: 8×8 counts of the ink in 4×4 blocks of a bitmap, enlarged and steepened to bring its edges back."""
    pixels, labels = load_digits(return_X_y=True)
    blank_edged = pad(torch.tensor(pixels).view(-1, 1, 8, 8) / 16, (1, 1, 1, 1))
    enlarged = interpolate(blank_edged, size=(40, 40), mode="bicubic")
    bitmaps = (2.5 * (enlarged - 0.5) + 0.5).clamp(0, 1).squeeze(1)
    images = torch.from_numpy(np.stack([into_mnist_frame(ink) for ink in bitmaps.numpy()])).unsqueeze(1)
    rest, test = train_test_split(np.arange(len(labels)), test_size=350, stratify=labels, random_state=0)
    train, val = train_test_split(rest, test_size=147, stratify=labels[rest], random_state=0)
    labels = torch.tensor(labels, dtype=torch.int64)
    parts = [values[torch.from_numpy(part)] for values in (images, labels) for part in (train, val, test)]
    return ImageData("digits", "scikit-learn digits", tuple(string.digits), *parts)


def into_mnist_frame(ink: np.ndarray) -> np.ndarray:
    """Scale what is drawn in `ink` to fit 20×20, keeping its proportions, and centre its mass in 28×28, as MNIST does.

    ink: (H, W), values in [0, 1]. Returns float32 (28, 28) in [0, 1], its centre of mass as near to index 14 as all of the
    ink allows. Raises ValueError for values outside [0, 1], and for a blank image.
    """
    ink = np.asarray(ink, dtype=np.float64)
    inked = ink >= 0.5 / 255
    if not np.all((ink >= 0) & (ink <= 1)) or not inked.any():
        raise ValueError(f"ink runs from {ink.min():g} to {ink.max():g}; expected values in [0, 1] and some ink.")
    rows, columns = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = tuple(max(1, round(BOX * length / max(box.shape))) for length in box.shape)
    box = resize(box, shape, order=1, mode="edge", anti_aliasing=True)
    centres = (np.average(np.arange(length), weights=box.sum(1 - axis)) for axis, length in enumerate(shape))
    starts = [min(max(round(MIDDLE - c), 0), SIDE - length) for c, length in zip(centres, shape, strict=True)]
    frame = np.zeros((SIDE, SIDE), np.float32)
    frame[starts[0] : starts[0] + shape[0], starts[1] : starts[1] + shape[1]] = box
    return frame


def letters(characters: str = string.ascii_uppercase, fonts: Sequence[str] = tuple(FONT_FILES)) -> Letters:
    """Each of `characters` drawn in each of `fonts` (names out of FONT_FILES, or paths of files of your own), font by font.

    Raises OSError for a font that is not there, ValueError for a character that a font cannot show.
    """
    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf")
    frames, pairs = [], [(character, str(font)) for font in fonts for character in characters]
    for character, font in pairs:
        file = str(shipped / FONT_FILES[font] if font in FONT_FILES else font)
        drawing = Image.new("L", (3 * DRAWN_SIZE, 3 * DRAWN_SIZE))
        corner, face = (DRAWN_SIZE, DRAWN_SIZE), ImageFont.truetype(file, DRAWN_SIZE)
        ImageDraw.Draw(drawing).text(corner, character, fill=255, font=face)
        if ord(character) not in FT2Font(file).get_charmap() or drawing.getbbox() is None:
            raise ValueError(f"The font {font!r} has nothing to show for the character {character!r}.")
        frames.append(into_mnist_frame(np.asarray(drawing) / 255))
    return Letters(torch.from_numpy(np.stack(frames)).unsqueeze(1), *zip(*pairs, strict=True))


def first_of_each_class(labels: Tensor) -> Tensor:
    """For each class in `labels` (N,), ascending, the index of its first example, int64: a rule for picking pictures."""
    return torch.from_numpy(np.unique(labels.cpu().numpy(), return_index=True)[1]).long()
