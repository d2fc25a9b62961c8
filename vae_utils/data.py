"""Where do the digits (and the letters) come from?

`load` gives one of four data sets of 28×28 images, white on black. MNIST and its two siblings are read from disk, or
downloaded by torchvision, and are used only after a check; scikit-learn's 1,797 digits are the offline stand-in.
`letters` draws what is not a digit. Both are brought into MNIST's frame by the rule that made MNIST: scaled into a
20×20 box, then placed with the centre of mass in the middle.
"""

import contextlib
import hashlib
import io
import math
import os
import queue
import socket
import string
import tempfile
import threading
import time
import urllib.request
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from skimage.transform import resize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate, pad

from vae_utils import settings

SIDE, BOX, MIDDLE = 28, 20, 14  # MNIST's frame in pixels; its centres of mass lie within half a pixel of index 14
VALIDATION = 5_000  # the last of the training images of the MNIST family
EMNIST_TEST = 116_323  # images in the test half of its split "by class"

PROBE_SECONDS = 5  # how long a mirror may take to answer before we are offline
SOCKET_SECONDS = 10  # how long a download may stand still

# Per family, the weight whose strokes come closest to MNIST's, which are about 3 pixels wide.
FONT_FILES = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Serif": "DejaVuSerif-Bold.ttf",
    "DejaVu Sans Mono": "DejaVuSansMono.ttf",
    "STIX": "STIXGeneralBol.ttf",
    "Computer Modern Roman": "cmb10.ttf",
    "Computer Modern Sans": "cmss10.ttf",
    "Computer Modern Typewriter": "cmtt10.ttf",
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
    train_images: torch.Tensor
    val_images: torch.Tensor
    test_images: torch.Tensor
    train_labels: torch.Tensor
    val_labels: torch.Tensor
    test_labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class Letters:
    """Letters in MNIST's frame: images are float32 (N, 1, 28, 28) in [0, 1]; each has a character and a font."""

    images: torch.Tensor
    characters: tuple[str, ...]
    fonts: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One of the MNIST family; nobody publishes digests of the siblings' files, so only MNIST's contents are known."""

    folder: str  # below the root, and torchvision's class
    title: str
    class_names: tuple[str, ...]
    sha256: dict[str, str] = field(default_factory=dict)


_SOURCES = {
    "mnist": _Source(
        "MNIST",
        "MNIST",
        tuple(string.digits),
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion": _Source(
        "FashionMNIST",
        "Fashion-MNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": _Source("KMNIST", "Kuzushiji-MNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
}
_SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


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
        return _mnist_family("mnist" if name == "auto" else name, _root(root))
    except DataError as error:
        if name != "auto":
            raise
        print(f"Using the 1,797 real handwritten digits that scikit-learn ships, because {error}")
        return _offline_digits()


def sound_files(name: str = "mnist", root: Path | None = None) -> list[Path]:
    """Where the four files of `mnist`, `fashion` or `kmnist` lie below `root` (default `VAE_DATA_DIR`), checked as `load` does.

    Never downloads. Raises DataError, worded as a clause, for a file that is missing or damaged.
    """
    source = _SOURCES[name]
    raw = _root(root) / source.folder / "raw"
    _read_all(source, raw)
    return [raw / file for file in _SHAPES]


def _root(root: Path | None) -> Path:
    return settings.data_dir() if root is None else Path(root)


def _mnist_family(name: str, root: Path) -> ImageData:
    source = _SOURCES[name]
    raw = root / source.folder / "raw"
    try:
        arrays = _read_all(source, raw)
    except DataError as on_disk:
        try:
            arrays = _download(source, raw)
        except DataError as error:
            raise DataError(
                f"{source.title} could not be had ({on_disk}; {error}); to get it, set VAE_DATA_DIR to a folder that "
                f"holds {source.folder}/raw/ with its four files, or go online and run again."
            ) from error
        print(f"{source.title} was downloaded to {raw}, because {on_disk}.")
    images, labels, test_images, test_labels = (torch.tensor(arrays[file]) for file in _SHAPES)
    images, test_images = _as_images(images), _as_images(test_images)
    return ImageData(
        name,
        source.title,
        source.class_names,
        images[:-VALIDATION],
        images[-VALIDATION:],
        test_images,
        labels[:-VALIDATION].long(),
        labels[-VALIDATION:].long(),
        test_labels.long(),
    )


def _as_images(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes (N, 28, 28) as float32 (N, 1, 28, 28) in [0, 1]."""
    return pixels.unsqueeze(1).float().div_(255)


def _read_all(source: _Source, raw: Path) -> dict[str, np.ndarray]:
    return {file: _read_idx(raw / file, shape, source.sha256.get(file)) for file, shape in _SHAPES.items()}


def _read_idx(path: Path, shape: tuple[int, ...], sha256: str | None = None) -> np.ndarray:
    """The bytes of an IDX file as a uint8 array of `shape`; DataError, worded as a clause, unless it is sound."""
    header = np.array([0x0800 + len(shape), *shape], dtype=">u4").tobytes()  # 08: unsigned bytes
    expected = len(header) + math.prod(shape)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(expected)  # read once: what is checked is what is used
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not size == len(content) == expected:
        raise DataError(f"{path} is damaged: {size:,} bytes where {expected:,} belong")
    if not content.startswith(header):
        raise DataError(f"{path} is damaged: it does not begin as an IDX file of shape {shape} does")
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is damaged: its SHA-256 is not {sha256}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _download(source: _Source, raw: Path) -> dict[str, np.ndarray]:
    """Fetch the four files with torchvision and put them into `raw`, each whole and checked or not at all.

    Raises DataError, worded as a clause, when no mirror answers, the download fails, or `raw` cannot be written to.
    """
    if blocked := [str(raw / file) for file in _SHAPES if os.path.isdir(raw / file)]:
        raise DataError(f"the download needs the place of the folder {blocked[0]}, which you would have to move away")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing torchvision may complain about image formats, which we do not use
        from torchvision import datasets  # slow, and needed here alone
    dataset = getattr(datasets, source.folder)
    quickest = _first_to_answer(dataset.mirrors)
    mirrors = sorted(dataset.mirrors, key=lambda mirror: mirror != quickest)
    dataset = type(source.folder, (dataset,), {"mirrors": mirrors})
    patience = socket.getdefaulttimeout()
    try:
        raw.mkdir(parents=True, exist_ok=True)
        # Within `raw`, so that a folder that cannot be written to is noticed before the download and not after it.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=raw, ignore_cleanup_errors=True) as temporary:
            socket.setdefaulttimeout(SOCKET_SECONDS)
            with contextlib.redirect_stdout(io.StringIO()):  # keeps the progress bar, which goes to stderr
                dataset(temporary, download=True)
            arrived = Path(temporary, source.folder, "raw")
            arrays = _read_all(source, arrived)
            for file in _SHAPES:
                os.replace(arrived / file, raw / file)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise DataError(f"the download failed: {' '.join(str(error).split())}") from error
    finally:
        socket.setdefaulttimeout(patience)
    return arrays


def _first_to_answer(mirrors: Sequence[str]) -> str:
    """The mirror that first delivers (the beginning of) a small file; DataError when none does in PROBE_SECONDS.

    Looking up a host name heeds no time-out, hence threads that may be left behind.
    """
    answers = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            urllib.request.urlopen(f"{mirror}t10k-labels-idx1-ubyte.gz", timeout=PROBE_SECONDS).close()
            answers.put((mirror, None))
        except (OSError, HTTPException) as error:
            answers.put((mirror, error))

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + PROBE_SECONDS
    reason = f"none answered within {PROBE_SECONDS} seconds"
    with contextlib.suppress(queue.Empty):
        for _ in mirrors:
            mirror, error = answers.get(timeout=max(0, deadline - time.monotonic()))
            if error is None:
                return mirror
            reason = getattr(error, "reason", error)
    raise DataError(f"no mirror could be reached: {reason}")


def _offline_digits() -> ImageData:
    """scikit-learn's digits. Each of their 8×8 values counts, from 0 to 16, the ink in a 4×4 block of a bitmap.

    Enlarging them smoothly to the size of that bitmap and steepening the grey levels around half ink brings most of its
    edges back: half of the inked pixels end up grey, as in MNIST. Lost detail stays lost, so shapes are rounder.
    """
    pixels, labels = load_digits(return_X_y=True)
    blank_edged = pad(torch.tensor(pixels).view(-1, 1, 8, 8) / 16, (1, 1, 1, 1))
    enlarged = interpolate(blank_edged, size=(40, 40), mode="bicubic")
    bitmaps = (2.5 * (enlarged - 0.5) + 0.5).clamp(0, 1).squeeze(1)
    images = torch.from_numpy(np.stack([into_mnist_frame(ink) for ink in bitmaps.numpy()])).unsqueeze(1)
    rest, test = train_test_split(np.arange(len(labels)), test_size=350, stratify=labels, random_state=0)
    train, val = train_test_split(rest, test_size=147, stratify=labels[rest], random_state=0)
    parts = [torch.from_numpy(part) for part in (train, val, test)]
    labels = torch.tensor(labels, dtype=torch.int64)
    return ImageData(
        "digits",
        "scikit-learn digits",
        tuple(string.digits),
        *(images[part] for part in parts),
        *(labels[part] for part in parts),
    )


def into_mnist_frame(ink: np.ndarray) -> np.ndarray:
    """Scale what is drawn in `ink` to fit 20×20, keeping its proportions, and centre its mass in 28×28, as MNIST does.

    ink: (H, W), values in [0, 1], 1 is full ink. Returns float32 (28, 28) in [0, 1]. The centre of mass comes within
    half a pixel of index 14, as in MNIST; where that would cut ink off, as near to it as all of the ink allows.
    Raises ValueError for another shape or range, and for a blank image: no pixel of half a grey level (of 255) or more.
    """
    ink = np.asarray(ink, dtype=np.float64)
    if ink.ndim != 2 or not np.all((ink >= 0) & (ink <= 1)):
        raise ValueError(f"Expected a 2-D image with values in [0, 1], got shape {ink.shape} or values outside.")
    inked = ink >= 0.5 / 255
    if not inked.any():
        raise ValueError("The image is blank: there is no ink to bring into the frame.")
    rows, columns = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = tuple(max(1, round(BOX * length / max(box.shape))) for length in box.shape)
    box = resize(box, shape, order=1, mode="edge", anti_aliasing=True)
    window = []
    for axis, length in enumerate(shape):
        centre = np.average(np.arange(length), weights=box.sum(1 - axis))
        start = min(max(round(MIDDLE - centre), 0), SIDE - length)
        window.append(slice(start, start + length))
    frame = np.zeros((SIDE, SIDE), np.float32)
    frame[tuple(window)] = box
    return frame


def letters(characters: Sequence[str] = string.ascii_uppercase, fonts: Sequence[str] = tuple(FONT_FILES)) -> Letters:
    """Draw each of `characters` in each of `fonts` (names out of FONT_FILES, which matplotlib ships), font by font.

    Raises ValueError for no characters or no fonts, for an unknown font, and for a character that a font cannot show.
    """
    pairs = [(font, character) for font in fonts for character in characters]
    if not pairs:
        raise ValueError("There is nothing to draw: give at least one character and one font.")
    if unknown := [font for font in fonts if font not in FONT_FILES]:
        raise ValueError(f"There is no font {unknown[0]!r}; choose among {', '.join(FONT_FILES)}.")
    files = {font: Path(matplotlib.get_data_path(), "fonts", "ttf", FONT_FILES[font]) for font in fonts}
    glyphs = {font: {chr(code) for code in FT2Font(str(file)).get_charmap()} for font, file in files.items()}
    faces = {font: ImageFont.truetype(str(file), DRAWN_SIZE) for font, file in files.items()}
    frames = []
    for font, character in pairs:
        drawing = Image.new("L", (3 * DRAWN_SIZE, 3 * DRAWN_SIZE))
        if character in glyphs[font]:
            ImageDraw.Draw(drawing).text((DRAWN_SIZE, DRAWN_SIZE), character, fill=255, font=faces[font])
        if drawing.getbbox() is None:
            raise ValueError(f"The font {font!r} has nothing to show for the character {character!r}.")
        frames.append(into_mnist_frame(np.asarray(drawing) / 255))
    images = torch.from_numpy(np.stack(frames)).unsqueeze(1)
    return Letters(images, tuple(character for _, character in pairs), tuple(font for font, _ in pairs))


def emnist_letters(root: Path | None = None) -> Letters | None:
    """The handwritten capitals of EMNIST where torchvision has put it below `root` (default `VAE_DATA_DIR`), else None.

    They come from the test half of the split "by class", the only one that keeps capitals and small letters apart for
    the whole alphabet. Never downloads. Raises DataError when the files are there but damaged.
    """
    stem = _root(root) / "EMNIST" / "raw" / "emnist-byclass-test"
    if not os.path.exists(f"{stem}-images-idx3-ubyte"):
        return None
    try:
        labels = _read_idx(Path(f"{stem}-labels-idx1-ubyte"), (EMNIST_TEST,))
        pixels = _read_idx(Path(f"{stem}-images-idx3-ubyte"), (EMNIST_TEST, SIDE, SIDE))
    except DataError as error:
        raise DataError(f"{error}; extract EMNIST again, or move it away to do without it.") from error
    capital = (labels >= 10) & (labels < 36)  # after the ten digits, before the small letters
    pixels = pixels[capital].transpose(0, 2, 1)  # EMNIST stores its images column by column
    characters = tuple(string.ascii_uppercase[label - 10] for label in labels[capital])
    return Letters(_as_images(torch.tensor(pixels)), characters, ("EMNIST handwriting",) * len(characters))


def first_of_each_class(labels: torch.Tensor) -> torch.Tensor:
    """For each class in `labels` (N,), in ascending order, the index of its first example: int64 (classes,).

    A rule for picking pictures, so that nobody has to wonder how they were picked.
    """
    return torch.from_numpy(np.unique(labels.cpu().numpy(), return_index=True)[1]).long()
