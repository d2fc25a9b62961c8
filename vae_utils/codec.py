"""Files of latent codes, written with asymmetric numeral systems (ANS; Duda 2013, arXiv:1311.2540) by `constriction`.

* `compress` rounds the latent means to whole numbers of steps and stores those: small, and as lossy as the model.
* `compress_lossless` stores black-and-white images exactly, by bits back (Townsend, Bird & Barber 2019, "Practical
  Lossless Compression with Latent Variables using Bits Back Coding", arXiv:1901.04866).

`decompress` reads both, and only with the model that wrote them. A file holds, little-endian: magic (4 bytes), version (1),
kind (1), key of the model (8), number of images (4), length of the body (4), the body, CRC-32 of all before it (4).

Networks compute here in float64 on the CPU: a sum taken in another order moves the 16th digit, not a stored number.
"""

import copy
import hashlib
import struct
import zlib
from collections.abc import Iterator

import constriction
import numpy as np
import torch
from torch import Tensor

from vae_utils.inference import decode, encode
from vae_utils.model import VAE, Autoencoder

AnsCoder = constriction.stream.stack.AnsCoder
QuantizedGaussian = constriction.stream.model.QuantizedGaussian

MAGIC, VERSION = b"VAE1", 1
ROUNDED, BITS_BACK = 0, 1
_HEADER = struct.Struct("<4sBB8sII")
_CHECKSUM = struct.Struct("<I")

STEPS = 2.0**-8, 2.0 ** (127 / 16)  # the steps that a byte can hold
LARGEST = 4095  # the whole numbers stored for a latent dimension stay below it, either sign
BATCH = 100  # images that go through the network at a time

GRID = 1 / 32  # bits back rounds z to this: below half of the smallest σ that a trained encoder gives
REACH = round(8 / GRID)  # the prior beyond ±8 is less than one bucket's share
_FINENESS = 2**16  # parameters of distributions are rounded to 1/65536, so that a last digit cannot matter

_ROUNDED = QuantizedGaussian(-LARGEST, LARGEST)
_ON_GRID = QuantizedGaussian(-REACH, REACH)
_PRIOR = QuantizedGaussian(-REACH, REACH, 0.0, 1 / GRID)
_PIXEL = constriction.stream.model.Bernoulli(perfect=False)


class CodecError(ValueError):
    """Something that cannot be compressed or decompressed: names what is wrong, what was expected, and the way out."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CodecError(message)


def compress(model: Autoencoder, images: Tensor, step: float = 0.5) -> bytes:
    """A file with the rounded latent means of `images` `(N, 1, 28, 28)`; `decompress` gives their reconstructions.

    `step`: how coarsely the latents are rounded; a larger one costs fewer bytes and more quality. It is itself rounded to
    the nearest of 16 per octave. The numbers stored for an image do not depend on the images beside it.

    Raises CodecError for a step outside `STEPS`, ValueError for images that the model does not take.
    """
    return _sealed(ROUNDED, model, len(images), pack(latent_means(model, images), step))


def compress_lossless(model: VAE, images: Tensor) -> bytes:
    """A file from which `decompress` gives back `images` `(N, 1, 28, 28)` of zeros and ones, bit for bit.

    Bits back: about −ELBO / ln 2 bits per image. Raises CodecError for pixels other than 0 and 1, and for a model without
    a distribution over codes and pixels.
    """
    _require(
        isinstance(model, VAE) and model.likelihood == "bernoulli", "Bits back needs a VAE with likelihood bernoulli."
    )
    binary = bool(((images == 0) | (images == 1)).all())
    _require(binary, "images holds grey pixels; bits back stores zeros and ones. Draw or threshold them first.")
    network = in_float64(model)
    stack = AnsCoder()
    for first, last in _batches(len(images)):
        x = images[first:last].double()
        q = _posterior(network, x)
        # nothing lies on the stack to be got back for the first image, which takes its likeliest code instead
        z = stack.decode(_ON_GRID, *q) if first else np.clip(np.rint(q[0]), -REACH, REACH).astype(np.int32)
        stack.encode_reverse(x.numpy().ravel().astype(np.int32), _PIXEL, _ink(network, z).numpy().ravel())
        stack.encode_reverse(z, _PRIOR)
        # so that `decompress` can tell a number of images that cannot be true; digits cost a hundred times as much
        _require(last <= stack.num_bits(), "Bits back stores images that cost at least one bit each.")
    return _sealed(BITS_BACK, model, len(images), stack.get_compressed().astype("<u4").tobytes())


def decompress(model: Autoencoder, data: bytes) -> Tensor:
    """The images `(N, 1, 28, 28)` in a file: as they were (bits back), or as the model reconstructs them, in [0, 1].

    Raises CodecError, saying which, for bytes that are no such file, another version, a truncated or damaged file, a wrong
    number of images, and a model that is not the one the file was written with.
    """
    kind, count, body = _opened(model, data)
    network = in_float64(model)
    if kind == ROUNDED:
        return decode(network, unpack(body, count, model.latent_dim), BATCH).float()
    _require(kind == BITS_BACK, f"The file is of kind {kind}; this code reads {ROUNDED} and {BITS_BACK}.")
    _require(count <= 8 * len(body), f"The file claims {count} images, but {len(body)} bytes hold fewer.")
    stack, parts = _stack(body), []
    for first, last in reversed(list(_batches(count))):
        _require(last <= stack.num_bits(), f"The file claims {count} images, but holds fewer.")
        z = stack.decode(_PRIOR, (last - first) * model.latent_dim)
        ink = _ink(network, z)
        x = torch.from_numpy(stack.decode(_PIXEL, ink.numpy().ravel())).view(ink.shape).double()
        if first:
            stack.encode_reverse(z, _ON_GRID, *_posterior(network, x))
        parts.append(x.float())
    _require(
        stack.is_empty(), "Decoding left bits over: the network computes otherwise here than where it was written."
    )
    return torch.cat(parts[::-1])


def latent_means(model: Autoencoder, images: Tensor) -> Tensor:
    """`mu` of each image (or the code, of a plain autoencoder), float64 `(N, latent_dim)`."""
    codes = encode(in_float64(model), images.double(), BATCH)
    return codes[0] if isinstance(codes, tuple) else codes


def pack(numbers: Tensor, step: float) -> bytes:
    """Real `numbers` `(N, D)` as bytes: rounded to multiples of `step`, coded by a Gaussian for each column.

    Layout: step and D column widths, one byte each, then the ANS stack. Raises CodecError as `compress` does, and for
    numbers that are not finite or as large as `LARGEST` steps.
    """
    _require(STEPS[0] <= step <= STEPS[1], f"step is {step!r}; give {STEPS[0]:.4f} to {STEPS[1]:.0f}, such as 0.5.")
    step_byte = int(_to_byte(np.array(step)))
    whole = np.rint(np.asarray(numbers, dtype=np.float64) / _from_byte(step_byte))
    storable = np.abs(whole).max() < LARGEST
    _require(storable, f"At step {step:g} the numbers are not finite or reach ±{LARGEST}; give a larger step.")
    widths = _to_byte(np.sqrt(np.square(whole).mean(0)))
    stack = AnsCoder()
    stack.encode_reverse(whole.astype(np.int32).ravel(), _ROUNDED, *_columns(widths, len(numbers)))
    return bytes([step_byte, *widths]) + stack.get_compressed().astype("<u4").tobytes()


def unpack(data: bytes, count: int, columns: int) -> Tensor:
    """The rounded numbers, float64 `(count, columns)`, that `pack` wrote. Raises CodecError where they are not so many."""
    _require(len(data) >= 1 + columns, f"{len(data)} bytes are too few for {columns} columns.")
    widths = np.frombuffer(data, np.uint8, count=columns, offset=1)
    stack, parts = _stack(data[1 + columns :]), []
    for first in range(0, count, 1000):  # in parts, so that a count that cannot be true is soon found out
        parts.append(stack.decode(_ROUNDED, *_columns(widths, min(1000, count - first))))
        # an empty stack gives the smallest number, which `pack` never writes
        _require(parts[-1].min() > -LARGEST, f"The file claims {count} images, but holds fewer.")
    _require(stack.is_empty(), f"The file claims {count} images, but holds more.")
    whole = np.concatenate(parts)
    return torch.from_numpy(whole.reshape(count, columns) * _from_byte(data[0]))


def model_key(model: Autoencoder) -> bytes:
    """8 bytes that tell models apart: a SHA-256 of layers and weights, cut."""
    digest = hashlib.sha256(repr(model).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()[:8]


def in_float64(model: Autoencoder) -> Autoencoder:
    """A copy of `model` on the CPU that computes with 16 digits."""
    return copy.deepcopy(model).cpu().double().eval()


def _to_byte(value: np.ndarray) -> np.ndarray:
    """Positive numbers on a logarithmic scale: 16 steps an octave, 0 stands for 2^-8 and less, 255 for 2^7.94 and more."""
    with np.errstate(divide="ignore"):
        return np.clip(np.rint(16 * np.log2(value)) + 128, 0, 255).astype(np.uint8)


def _from_byte(byte: np.ndarray | int) -> np.ndarray:
    return 2.0 ** ((np.asarray(byte, dtype=np.float64) - 128) / 16)


def _columns(widths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the numbers of `count` images, one after the other."""
    deviations = np.tile(_from_byte(widths), count)
    return np.zeros_like(deviations), deviations


def _rounded(values: Tensor) -> Tensor:
    return (values * _FINENESS).round() / _FINENESS


@torch.no_grad()
def _posterior(model: VAE, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of q(z|x), in units of the grid."""
    mu, logvar = model.encode(x)
    deviation = (0.5 * logvar).exp().clamp(min=GRID / 8)
    return _rounded(mu / GRID).numpy().ravel(), _rounded(deviation / GRID).numpy().ravel()


@torch.no_grad()
def _ink(model: VAE, z: np.ndarray) -> Tensor:
    """The probability of ink in each pixel, from codes on the grid; never 0 or 1, so that every pixel can be stored."""
    codes = torch.from_numpy(z.reshape(-1, model.latent_dim) * GRID)
    return _rounded(model.decode(codes).clamp(1 / _FINENESS, 1 - 1 / _FINENESS))


def _batches(count: int) -> Iterator[tuple[int, int]]:
    """First and last+1 of each batch: one image, then an eighth of as many as lie on the stack already.

    So a batch finds enough bits to pop as long as z takes less than eight times what an image costs in the end.
    """
    first = 0
    while first < count:
        last = min(count, first + min(BATCH, max(1, first // 8)))
        yield first, last
        first = last


def _sealed(kind: int, model: Autoencoder, count: int, body: bytes) -> bytes:
    data = _HEADER.pack(MAGIC, VERSION, kind, model_key(model), count, len(body)) + body
    return data + _CHECKSUM.pack(zlib.crc32(data))


def _opened(model: Autoencoder, data: bytes) -> tuple[int, int, bytes]:
    """Kind, number of images and body of a file that is whole and was written with `model`."""
    foreign = f"This is no file of this codec: it begins with {bytes(data[:4])!r} instead of {MAGIC!r}."
    _require(data[: len(MAGIC)] == MAGIC, foreign)
    whole = len(data) >= _HEADER.size + _CHECKSUM.size
    _require(whole, f"The file is truncated: {len(data)} bytes do not even hold its header. Copy it again.")
    _, version, kind, key, count, length = _HEADER.unpack_from(data)
    _require(version == VERSION, f"The file is of version {version}; this code reads version {VERSION}.")
    expected = _HEADER.size + length + _CHECKSUM.size
    fault = "truncated" if len(data) < expected else "too long"
    _require(len(data) == expected, f"The file is {fault}: {len(data)} bytes where {expected} belong. Copy it again.")
    content, (checksum,) = data[: -_CHECKSUM.size], _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    _require(zlib.crc32(content) == checksum, "The file is damaged: its checksum is wrong. Copy it again.")
    own = model_key(model)
    _require(key == own, f"The file was written with the model {key.hex()}, but this is {own.hex()}; load that model.")
    _require(count > 0, "The file claims 0 images.")
    return kind, count, content[_HEADER.size :]


def _stack(body: bytes) -> AnsCoder:
    _require(len(body) % 4 == 0, f"The stack has {len(body)} bytes; expected a multiple of 4.")
    return AnsCoder(np.frombuffer(body, "<u4").astype(np.uint32))
