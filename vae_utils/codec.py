"""Files of latent codes, written with asymmetric numeral systems (ANS; Duda 2013, arXiv:1311.2540) by `constriction`.

`compress` stores rounded latent means, `compress_lossless` black-and-white images exactly, by bits back (Townsend, Bird &
Barber 2019, arXiv:1901.04866); notebook 02 shows both. `decompress` reads them, with the model that wrote them alone. A file
holds, little-endian: magic (4 bytes), version (1), kind (1), key of the model (8), number of images (4), length of the body
(4), the body, CRC-32 of all before it (4). Networks compute here in float64 on the CPU: a sum taken in another order moves
the 16th digit, not a stored number.
"""

import copy
import hashlib
import struct
import zlib
from collections.abc import Iterator

import constriction
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from vae_utils.cache import fingerprint
from vae_utils.inference import decode, encode
from vae_utils.model import VAE, Autoencoder

AnsCoder = constriction.stream.stack.AnsCoder
QuantizedGaussian = constriction.stream.model.QuantizedGaussian

MAGIC, VERSION, ROUNDED, BITS_BACK = b"VAE1", 2, 0, 1  # the last two are kinds of file
_HEADER, _CHECKSUM = struct.Struct("<4sBB8sII"), struct.Struct("<I")

STEPS = 2.0**-10, 2.0**10  # the smallest and the largest step
LARGEST = 4095  # the whole numbers stored for a latent dimension stay below it, either sign
GRID = 1 / 32  # bits back rounds z to this: below half of the smallest σ that a trained encoder gives
REACH = round(8 / GRID)  # the prior beyond ±8 is less than one bucket's share
BATCH = 250  # images that bits back takes through the network at a time, at most
_FINENESS = 2**16  # parameters of distributions are rounded to 1/65536, so that a last digit cannot matter
_ROUNDED, _ON_GRID = QuantizedGaussian(-LARGEST, LARGEST), QuantizedGaussian(-REACH, REACH)
_PRIOR = QuantizedGaussian(-REACH, REACH, 0.0, 1 / GRID)
_PIXEL = constriction.stream.model.Bernoulli(perfect=False)


class CodecError(ValueError):
    """Something that cannot be compressed or decompressed: names what is wrong and what was expected."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CodecError(message)


def compress(model: Autoencoder, images: Tensor, step: float = 0.5) -> bytes:
    """A file with the latent means of `images` `(N, 1, 28, 28)`, rounded to multiples of `step`. Raises ValueError."""
    return _sealed(ROUNDED, model, len(images), pack(latent_means(model, images), step))


@threadpool_limits.wrap(limits=1)  # many small products: on a busy machine threads wait for one another
def compress_lossless(model: VAE, images: Tensor) -> bytes:
    """A file of about −ELBO / ln 2 bits per image from which `decompress` gives back `images` `(N, 1, 28, 28)` of zeros and
    ones, bit for bit. Raises CodecError for other pixels, and for another kind of model."""
    _require(isinstance(model, VAE) and model.likelihood == "bernoulli", "model is no VAE of likelihood bernoulli.")
    _require(bool(((images == 0) | (images == 1)).all()), "images holds grey pixels; bits back stores zeros and ones.")
    network, stack = in_float64(model), AnsCoder()
    for first, last in _batches(len(images)):
        x = images[first:last].double()
        q = _posterior(network, x)  # of the first image nothing is popped: it takes its likeliest code
        z = stack.decode(_ON_GRID, *q) if first else np.clip(np.rint(q[0]), -REACH, REACH).astype(np.int32)
        chances, pixels = list(_chances(network, z, x)), x.flatten(1).numpy().astype(np.int32)
        for part in reversed(np.split(pixels, np.cumsum([p.shape[1] for p in chances])[:-1], axis=1)):
            stack.encode_reverse(part.ravel(), _PIXEL, chances.pop().ravel())
        stack.encode_reverse(z, _PRIOR)
        # so that `decompress` can tell a number of images that cannot be true; digits cost a hundred times as much
        _require(last <= stack.num_bits(), "Bits back stores images that cost at least a bit each.")
    return _sealed(BITS_BACK, model, len(images), stack.get_compressed().astype("<u4").tobytes())


@threadpool_limits.wrap(limits=1)
def decompress(model: Autoencoder, data: bytes) -> Tensor:
    """The images `(N, 1, 28, 28)` in a file: as they were (bits back), or as the model reconstructs them, in [0, 1].

    Raises CodecError, saying which: no such file, another version, damage, a wrong number of images, another model.
    """
    (kind, count, body), network = _opened(model, data), in_float64(model)
    if kind == ROUNDED:
        return decode(network, unpack(body, count, model.latent_dim), 100).float()
    _require(kind == BITS_BACK, f"The file is of kind {kind}; this code reads {ROUNDED} and {BITS_BACK}.")
    _require(count <= 8 * len(body), too_many := f"The file claims {count} images, but holds fewer.")
    stack, images = _stack(body), []
    for first, last in reversed(list(_batches(count))):
        _require(last <= stack.num_bits(), too_many)
        z = stack.decode(_PRIOR, (last - first) * model.latent_dim)
        x, done = torch.zeros(last - first, 784, dtype=torch.float64), 0
        for p in _chances(network, z, x.view(-1, 1, 28, 28)):
            x[:, done : done + p.shape[1]] = torch.from_numpy(stack.decode(_PIXEL, p.ravel())).view(p.shape)
            done += p.shape[1]
        x = x.view(-1, 1, 28, 28)
        if first:
            stack.encode_reverse(z, _ON_GRID, *_posterior(network, x))
        images.append(x.float())
    _require(stack.is_empty(), "Bits are left over: the network computes otherwise here than where it was written.")
    return torch.cat(images[::-1])


def latent_means(model: Autoencoder, images: Tensor) -> Tensor:
    """`mu` of each image (or the code, of a plain autoencoder), float64 `(N, latent_dim)`."""
    _require(len(images) > 0, "images is empty; give at least one.")
    codes = encode(in_float64(model), images.double(), 100)
    return codes[0] if isinstance(codes, tuple) else codes


def pack(numbers: Tensor, step: float) -> bytes:
    """Real `numbers` `(N, D)` as bytes, rounded to multiples of `step`, coded by a Gaussian for each column: step and D
    widths, float32 each, then the ANS stack. Raises CodecError for a step that is not in `STEPS` or too small."""
    _require(STEPS[0] <= step <= STEPS[1], f"step is {step!r}; give {STEPS[0]:.4f} to {STEPS[1]:.0f}, such as 0.5.")
    whole = np.rint(np.asarray(numbers, dtype=np.float64) / (step := np.float32(step)))
    _require(np.abs(whole).max() < LARGEST, f"{step:g} is too small a step for such numbers; give a larger step.")
    widths, stack = np.sqrt(np.square(whole).mean(0)).clip(min=1 / 256).astype("<f4"), AnsCoder()
    stack.encode_reverse(whole.astype(np.int32).ravel(), _ROUNDED, *_columns(widths, len(numbers)))
    return struct.pack("<f", step) + widths.tobytes() + stack.get_compressed().astype("<u4").tobytes()


def unpack(data: bytes, count: int, columns: int) -> Tensor:
    """The rounded numbers, float64 `(count, columns)`, that `pack` wrote. Raises CodecError where they are not so many."""
    _require(len(data) >= 4 * (1 + columns), f"{len(data)} bytes are too few for {columns} columns.")
    step, *widths = np.frombuffer(data, "<f4", count=1 + columns)
    stack, parts = _stack(data[4 * (1 + columns) :]), []
    for first in range(0, count, 1000):  # in parts, so that a count that cannot be true is soon found out:
        parts.append(stack.decode(_ROUNDED, *_columns(widths, min(1000, count - first))))
        # an empty stack gives the smallest number, which `pack` never writes
        _require(parts[-1].min() > -LARGEST, f"The file claims {count} images, but holds fewer.")
    _require(stack.is_empty(), f"The file claims {count} images, but holds more.")
    return torch.from_numpy(np.concatenate(parts).reshape(count, columns) * np.float64(step))


def model_key(model: Autoencoder) -> bytes:  # 8 bytes of a SHA-256 of layers and weights
    return hashlib.sha256((repr(model) + fingerprint(model.state_dict())).encode()).digest()[:8]


def in_float64(model: Autoencoder) -> Autoencoder:  # a copy on the CPU that computes with 16 digits
    _require(all(p.isfinite().all() for p in model.parameters()), "model has NaN or infinite weights; train it anew.")
    return copy.deepcopy(model).cpu().double().eval()


def _columns(widths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:  # means and deviations, row by row
    return np.zeros(count * len(widths)), np.tile(np.asarray(widths, dtype=np.float64), count)


def _rounded(values: Tensor) -> np.ndarray:
    return ((values * _FINENESS).round() / _FINENESS).numpy()


@torch.no_grad()
def _posterior(model: VAE, x: Tensor) -> tuple[np.ndarray, np.ndarray]:  # mean and deviation, in units of the grid
    mu, logvar = model.encode(x)
    return _rounded(mu / GRID).ravel(), _rounded((0.5 * logvar).exp().clamp(min=GRID / 8) / GRID).ravel()


@torch.no_grad()
def _chances(model: VAE, z: np.ndarray, x: Tensor) -> Iterator[np.ndarray]:
    """The chances of white `(N, some)` of all pixels, row by row, never 0 or 1. A model's own `chances(z, x)` may look at
    the pixels of `x` before: the decoder fills in `x` as they arrive."""
    codes = torch.from_numpy(z.reshape(len(x), -1) * GRID)
    for part in model.chances(codes, x) if hasattr(model, "chances") else [model.decode(codes).flatten(1)]:
        yield _rounded(part.clamp(1 / _FINENESS, 1 - 1 / _FINENESS))


def _batches(count: int) -> Iterator[tuple[int, int]]:
    """First and last+1 of each batch: one image, then a quarter of as many as lie on the stack, so that there are bits to
    pop as long as z takes less than four times what an image costs in the end."""
    first = 0
    while first < count:
        last = min(count, first + min(BATCH, max(1, first // 4)))
        yield first, last
        first = last


def _sealed(kind: int, model: Autoencoder, count: int, body: bytes) -> bytes:
    _require(count > 0, "images is empty; give at least one.")
    data = _HEADER.pack(MAGIC, VERSION, kind, model_key(model), count, len(body)) + body
    return data + _CHECKSUM.pack(zlib.crc32(data))


def _opened(model: Autoencoder, data: bytes) -> tuple[int, int, bytes]:
    """Kind, number of images and body of a file that is whole and was written with `model`."""
    _require(isinstance(data, bytes | bytearray | memoryview), f"data is {data!r:.60}; give the bytes of a file.")
    _require(data[:4] == MAGIC, f"This is no file of this codec: it begins with {bytes(data[:4])!r}, not {MAGIC!r}.")
    _require(len(data) >= 26, f"The file is truncated: {len(data)} bytes, fewer than a header. Copy it again.")
    _, version, kind, key, count, length = _HEADER.unpack_from(data)
    _require(version == VERSION, f"The file is of version {version}; this code reads version {VERSION}.")
    _require(len(data) == 26 + length and count, f"The file has {len(data)} bytes, not {26 + length}. Copy it again.")
    intact = data[-4:] == _CHECKSUM.pack(zlib.crc32(data[:-4]))
    _require(intact, "The file is damaged: its checksum is wrong. Copy it again.")
    own = model_key(model)
    _require(key == own, f"The file was written with the model {key.hex()}, but this is {own.hex()}; load that model.")
    return kind, count, data[_HEADER.size : -4]


def _stack(body: bytes) -> AnsCoder:
    _require(len(body) % 4 == 0, f"The stack has {len(body)} bytes; expected a multiple of 4.")
    return AnsCoder(np.frombuffer(body, "<u4").astype(np.uint32))
