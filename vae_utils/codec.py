"""How do latents become bytes on disk, and back?

Two kinds of file, both written with asymmetric numeral systems (ANS; Duda 2013, arXiv:1311.2540) by `constriction`:

* `compress` rounds the latent means to whole numbers of steps and stores those: small, and as lossy as the model.
* `compress_lossless` stores black-and-white images exactly, by bits back (Townsend, Bird & Barber 2019, "Practical
  Lossless Compression with Latent Variables using Bits Back Coding", arXiv:1901.04866).

`decompress` reads both, and only with the model that wrote them. Layout of a file, in this order, little-endian: magic (4
bytes), version (1), kind (1), key of the model (8), number of images (4), length of the body (4), the body, and a CRC-32 of
everything before it (4).

Networks compute here in float64 on the CPU: a sum taken in another order moves the 16th digit, not a stored number.
"""

import copy
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator

import constriction
import numpy as np
import torch
from torch import Tensor

from vae_utils.inference import in_batches
from vae_utils.model import VAE, Autoencoder

AnsCoder = constriction.stream.stack.AnsCoder
Bernoulli = constriction.stream.model.Bernoulli
QuantizedGaussian = constriction.stream.model.QuantizedGaussian

MAGIC, VERSION = b"VAE1", 1
ROUNDED, BITS_BACK = 0, 1
_HEADER = struct.Struct("<4sBB8sII")
_CHECKSUM = struct.Struct("<I")

LARGEST = 4095  # of the whole numbers stored for a latent, either sign
BATCH = 100  # images that go through the network at a time

GRID = 1 / 32  # bits back rounds z to this: below half of the smallest σ that a trained encoder gives
REACH = round(8 / GRID)  # the prior beyond ±8 is less than one bucket's share
_FINENESS = 2**16  # parameters of distributions are rounded to 1/65536, so that a last digit cannot matter


class CodecError(ValueError):
    """Something that cannot be compressed or decompressed: names what is wrong, what was expected, and the way out."""


def compress(model: Autoencoder, images: Tensor, step: float = 0.5) -> bytes:
    """A file with the rounded latent means of `images` `(N, 1, 28, 28)`; `decompress` gives their reconstructions.

    Args:
        step: how coarsely the latents are rounded; a larger one costs fewer bytes and more quality. It is itself rounded to
            the nearest of 16 per octave.

    The numbers stored for an image do not depend on the images beside it. Raises CodecError for an empty batch, for images
    that the model does not take, for a step that is no positive number, or so small that the numbers get large.
    """
    numbers = latent_means(model, images)
    return _sealed(ROUNDED, model, len(images), pack(numbers, step))


def compress_lossless(model: VAE, images: Tensor) -> bytes:
    """A file from which `decompress` gives back `images` `(N, 1, 28, 28)` of zeros and ones, bit for bit.

    Bits back: about −ELBO / ln 2 bits an image on average. Raises CodecError for an empty batch, for pixels other than 0
    and 1, and for a model without a distribution over codes and pixels.
    """
    _check_bits_back(model)
    _check_images(model, images)
    if not bool(((images == 0) | (images == 1)).all()):
        raise CodecError("images holds grey pixels; bits back stores zeros and ones. Draw or threshold them first.")
    network = in_float64(model)
    stack = AnsCoder()
    for first, last in _batches(len(images)):
        x = images[first:last].double()
        q = _posterior(network, x)
        # nothing lies on the stack to be got back for the first image, which takes its likeliest code instead
        z = stack.decode(_ON_GRID, *q) if first else np.clip(np.rint(q[0]), -REACH, REACH).astype(np.int32)
        stack.encode_reverse(x.numpy().ravel().astype(np.int32), _PIXEL, _ink(network, z).numpy().ravel())
        stack.encode_reverse(z, _PRIOR)
    return _sealed(BITS_BACK, model, len(images), stack.get_compressed().astype("<u4").tobytes())


def decompress(model: Autoencoder, data: bytes) -> Tensor:
    """The images `(N, 1, 28, 28)` in a file: as they were (bits back), or as the model reconstructs them, in [0, 1].

    Raises CodecError, saying which, for bytes that are no such file, another version, a truncated or damaged file, and a
    model that is not the one the file was written with.
    """
    kind, count, body = _opened(model, data)
    if kind == ROUNDED:
        numbers = unpack(body, count, model.latent_dim)
        network = in_float64(model)
        return in_batches(network, lambda z: network.decode(z).float(), numbers, BATCH)
    if kind != BITS_BACK:
        raise CodecError(f"The file is of kind {kind}; this code reads {ROUNDED} and {BITS_BACK}.")
    _check_bits_back(model)
    network = in_float64(model)
    stack = AnsCoder(_words(body))
    parts = []
    for first, last in reversed(list(_batches(count))):
        z = stack.decode(_PRIOR, (last - first) * model.latent_dim)
        ink = _ink(network, z)
        x = torch.from_numpy(stack.decode(_PIXEL, ink.numpy().ravel())).view(ink.shape).double()
        if first:
            stack.encode_reverse(z, _ON_GRID, *_posterior(network, x))
        parts.append(x.float())
    if not stack.is_empty():
        raise CodecError(
            "Decoding left bits over; the network computes otherwise here than where the file was written."
        )
    return torch.cat(parts[::-1])


def latent_means(model: Autoencoder, images: Tensor) -> Tensor:
    """`mu` of each image (or the code, of a plain autoencoder), float64 `(N, latent_dim)`. Raises CodecError as `compress`."""
    _check_images(model, images)
    network = in_float64(model)

    def mean(x: Tensor) -> Tensor:
        codes = network.encode(x.double())
        return codes[0] if isinstance(codes, tuple) else codes

    return in_batches(network, mean, images, BATCH)


def pack(numbers: Tensor, step: float) -> bytes:
    """Real `numbers` `(N, D)` as bytes: rounded to multiples of `step`, coded by a Gaussian for each column.

    Layout: step and D column widths, one byte each, then the ANS stack. Raises CodecError as `compress` does.
    """
    if len(numbers) == 0:
        raise CodecError("There is nothing to compress: the batch is empty.")
    if not (isinstance(step, int | float) and 0 < step < math.inf):
        raise CodecError(f"step is {step!r}; give a positive number, such as 0.5.")
    step_byte = int(_to_byte(np.array(step)))
    whole = np.rint(np.asarray(numbers, dtype=np.float64) / _from_byte(step_byte))
    if not np.abs(whole).max() <= LARGEST:  # also where the numbers are not finite
        raise CodecError(f"At step {step:g} the numbers go beyond ±{LARGEST}; give a larger step.")
    widths = _to_byte(np.sqrt(np.square(whole).mean(0)))
    stack = AnsCoder()
    stack.encode_reverse(whole.astype(np.int32).ravel(), _ROUNDED, *_columns(widths, len(numbers)))
    return bytes([step_byte, *widths]) + stack.get_compressed().astype("<u4").tobytes()


def unpack(data: bytes, count: int, columns: int) -> Tensor:
    """The rounded numbers, float64 `(count, columns)`, that `pack` wrote. Raises CodecError when the length cannot be right."""
    if len(data) < 1 + columns:
        raise CodecError(f"{len(data)} bytes are too few for {columns} columns.")
    widths = np.frombuffer(data, np.uint8, count=columns, offset=1)
    stack = AnsCoder(_words(data[1 + columns :]))
    whole = stack.decode(_ROUNDED, *_columns(widths, count))
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


# ---- distributions ----

_ROUNDED = QuantizedGaussian(-LARGEST, LARGEST)
_ON_GRID = QuantizedGaussian(-REACH, REACH)
_PRIOR = QuantizedGaussian(-REACH, REACH, 0.0, 1 / GRID)
_PIXEL = Bernoulli(perfect=False)


def _to_byte(value: np.ndarray) -> np.ndarray:
    """Positive numbers on a logarithmic scale: 16 steps an octave, 0 stands for 2^-8 and less, 255 for 2^7.94 and more."""
    with np.errstate(divide="ignore"):
        return np.clip(np.rint(16 * np.log2(value)) + 128, 0, 255).astype(np.uint8)


def _from_byte(byte: np.ndarray | int) -> np.ndarray:
    return 2.0 ** ((np.asarray(byte, dtype=np.float64) - 128) / 16)


def _columns(widths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
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

    So a batch finds enough bits to pop as long as z takes less than eight times what an image costs in the end. (A stack that
    runs dry still decodes exactly, but the z it gives are bad ones.)
    """
    first = 0
    while first < count:
        last = min(count, first + min(BATCH, max(1, first // 8)))
        yield first, last
        first = last


# ---- the file around them ----


def _sealed(kind: int, model: Autoencoder, count: int, body: bytes) -> bytes:
    data = _HEADER.pack(MAGIC, VERSION, kind, model_key(model), count, len(body)) + body
    return data + _CHECKSUM.pack(zlib.crc32(data))


def _opened(model: Autoencoder, data: bytes) -> tuple[int, int, bytes]:
    """Kind, number of images and body of a file that is whole and was written with `model`."""
    if data[: len(MAGIC)] != MAGIC:
        raise CodecError(f"This is no file of this codec: it begins with {bytes(data[:4])!r} instead of {MAGIC!r}.")
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise CodecError(f"The file is truncated: {len(data)} bytes do not even hold its header. Copy it again.")
    _, version, kind, key, count, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"The file is of version {version}; this code reads version {VERSION}.")
    expected = _HEADER.size + length + _CHECKSUM.size
    if len(data) != expected:
        fault = "truncated" if len(data) < expected else "too long"
        raise CodecError(f"The file is {fault}: {len(data)} bytes where {expected} belong. Copy it again.")
    content, (checksum,) = data[: -_CHECKSUM.size], _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    if zlib.crc32(content) != checksum:
        raise CodecError("The file is damaged: its checksum is wrong. Copy it again.")
    if key != model_key(model):
        raise CodecError(
            f"The file was written with the model {key.hex()}, but this is {model_key(model).hex()}; load that model."
        )
    return kind, count, content[_HEADER.size :]


def _words(body: bytes) -> np.ndarray:
    """The ANS stack as constriction takes it."""
    if len(body) % 4:
        raise CodecError(f"The stack has {len(body)} bytes; expected a multiple of 4.")
    return np.frombuffer(body, "<u4").astype(np.uint32)


def _check_images(model: Autoencoder, images: Tensor) -> None:
    if len(images) == 0:
        raise CodecError("There is nothing to compress: the batch is empty.")
    try:
        model.check_input(images)
    except ValueError as error:
        raise CodecError(f"The model does not take these images: {error}") from error


def _check_bits_back(model: Autoencoder) -> None:
    if not isinstance(model, VAE) or model.likelihood != "bernoulli":
        raise CodecError(
            f"Bits back needs a VAE with likelihood 'bernoulli'; got {type(model).__name__} with {model.likelihood!r}."
        )
