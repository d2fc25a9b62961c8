"""Files of latents: what is written comes back, small, and everything else is refused by name."""

import math
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vae_utils import codec
from vae_utils.codec import CodecError, compress, compress_lossless, decompress, pack, unpack
from vae_utils.data import load
from vae_utils.inference import reconstruct
from vae_utils.model import VAE, Autoencoder
from vae_utils.training import evaluate, fit, seeded


@pytest.fixture(scope="module")
def bits():
    """Digits drawn black or white by their grey values: 1,300 to train on, 350 to test."""
    data = load("digits")
    with seeded(0):
        return torch.bernoulli(data.train_images), torch.bernoulli(data.test_images)


@pytest.fixture(scope="module")
def vae(bits):
    with seeded(0):
        model = VAE(30)  # most of them silent, so that z takes more bits than an image costs
    fit(model, bits[0], epochs=12, batch_size=64, peak_lr=2e-3, seed=0, progress=False)
    return model.cpu()


@pytest.fixture(scope="module")
def files(vae, bits):
    return {"rounded": compress(vae, bits[1][:20]), "bits back": compress_lossless(vae, bits[1][:20])}


# ---- rounded latents ----


def test_what_comes_back_are_the_reconstructions_of_the_rounded_means(vae, bits):
    step = 0.5
    rounded = (codec.latent_means(vae, bits[1]) / step).round() * step
    with torch.no_grad():
        expected = codec.in_float64(vae).decode(rounded).float()
    torch.testing.assert_close(decompress(vae, compress(vae, bits[1], step=step)), expected)


def test_larger_steps_cost_fewer_bytes_and_stray_further(vae, bits):
    exact = reconstruct(vae, bits[1])
    files = [compress(vae, bits[1], step=step) for step in (0.125, 0.5, 2.0)]
    errors = [(decompress(vae, file) - exact).square().mean() for file in files]
    assert errors == sorted(errors) and len(files[0]) > len(files[1]) > len(files[2])


def test_the_size_is_the_entropy_of_the_numbers(vae, bits):
    whole = (codec.latent_means(vae, bits[1]) / 0.5).round().numpy()
    entropy = 0.0
    for column in whole.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        entropy -= len(column) * (share * np.log2(share)).sum()
    spent = 8 * len(compress(vae, bits[1], step=0.5))
    assert entropy < spent < 1.15 * entropy + 8 * (4 * 30 + 40)  # a Gaussian is not the histogram; widths, header


def test_the_stored_numbers_do_not_depend_on_the_images_beside_them(vae, bits):
    together = codec.latent_means(vae, bits[1])
    for part in (1, 7, 100, 333):
        apart = torch.cat([codec.latent_means(vae, x) for x in bits[1].split(part)])
        for step in (0.01, 0.5):
            assert torch.equal((apart / step).round(), (together / step).round())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=40),
    step=st.floats(0.02, 10),
)
def test_any_numbers_come_back_within_half_a_step(rows, step):
    numbers = torch.tensor(rows, dtype=torch.float64)
    back = unpack(pack(numbers, step), len(numbers), 3)
    assert (back - numbers).abs().max() <= step / 2 * (1 + 1e-6)


# ---- bits back ----


@pytest.mark.parametrize("count", [1, 2, 3, 350])
def test_bits_back_is_exact(vae, bits, count):
    assert torch.equal(decompress(vae, compress_lossless(vae, bits[1][:count])), bits[1][:count])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), ink=st.floats(0, 1))
def test_bits_back_is_exact_for_images_the_model_never_saw(vae, seed, count, ink):
    noise = (torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed)) < ink).float()
    assert torch.equal(decompress(vae, compress_lossless(vae, noise)), noise)


def test_bits_back_is_exact_for_an_untrained_network_of_other_layers(bits):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 2 * 3))
    decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, (1, 28, 28)))
    model = VAE(3, encoder=encoder, decoder=decoder)
    assert torch.equal(decompress(model, compress_lossless(model, bits[1][:30])), bits[1][:30])


class Chain(VAE):
    """A VAE whose pixels depend on the pixel to the left, too."""

    def chances(self, z, x):
        logits, left = self.decode_logits(z).flatten(1), torch.zeros(len(z), dtype=z.dtype)
        for place in range(784):
            yield (logits[:, place] + left).sigmoid()[:, None]
            left = 3 * x.flatten(1)[:, place] - 1


def test_bits_back_is_exact_where_pixels_depend_on_those_before(vae, bits):
    chain = Chain(30)
    chain.load_state_dict(vae.state_dict())
    file = compress_lossless(chain, bits[1][:20])
    assert torch.equal(decompress(chain, file), bits[1][:20])
    assert len(file) != len(compress_lossless(vae, bits[1][:20]))


def test_bits_back_costs_the_negative_elbo(vae, bits):
    expected = evaluate(vae, bits[1], samples=20).loss / math.log(2)
    spent = 8 * len(compress_lossless(vae, bits[1])) / len(bits[1])
    assert spent == pytest.approx(expected, rel=0.03)


# ---- what is refused ----


def sealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("kind", ["rounded", "bits back"])
def test_a_changed_file_is_refused(vae, files, kind):
    file = files[kind]
    for position in range(len(file)):
        damaged = bytearray(file)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CodecError):
            decompress(vae, bytes(damaged))


def test_a_truncated_file_and_others_are_refused(vae, files):
    parts = [file[:length] for file in files.values() for length in (4, 10, 25, 60, len(file) - 1)]
    longer = [file + b"!" for file in files.values()]
    for data in [*parts, *longer, b"", b"VAE", b"\x89PNG\r\n\x1a\n" + bytes(100)]:
        with pytest.raises(CodecError):
            decompress(vae, data)


@pytest.mark.parametrize(("place", "value", "named"), [(4, 9, "version 9"), (5, 9, "kind 9")])
def test_another_version_or_kind_is_named(vae, files, place, value, named):
    other = bytearray(files["rounded"][:-4])
    other[place] = value
    with pytest.raises(CodecError, match=named):
        decompress(vae, sealed(bytes(other)))


@pytest.mark.parametrize("kind", ["rounded", "bits back"])
@pytest.mark.parametrize("count", [0, 19, 21, 1000, 1_000_000, 2**32 - 1])
def test_a_false_number_of_images_is_refused_at_once(vae, files, kind, count):
    forged = bytearray(files[kind][:-4])
    forged[14:18] = struct.pack("<I", count)
    started = time.monotonic()
    with pytest.raises(CodecError):
        decompress(vae, sealed(bytes(forged)))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", ["rounded", "bits back"])
def test_another_model_is_refused(vae, files, kind):
    retouched = codec.in_float64(vae).float()
    with torch.no_grad():
        retouched.fc3.bias[0] += 1e-6
    with pytest.raises(CodecError):
        decompress(retouched, files[kind])


@pytest.mark.parametrize("way", [compress, compress_lossless])
def test_unsuitable_images_are_refused(vae, way):
    for images in (torch.zeros(2, 28, 28), torch.full((2, 1, 28, 28), torch.nan), torch.full((2, 1, 28, 28), 2.0)):
        with pytest.raises(ValueError):
            way(vae, images)


def test_grey_images_and_models_without_a_distribution_are_no_matter_for_bits_back(vae, bits):
    with pytest.raises(CodecError, match="grey"):
        compress_lossless(vae, torch.full((1, 1, 28, 28), 0.5))
    with pytest.raises(CodecError):
        compress_lossless(Autoencoder(3), bits[1][:2])


def test_models_that_are_no_numbers_images_that_are_none_and_a_path_for_a_file_are_refused(vae, bits, files):
    broken = codec.in_float64(vae).float()
    with torch.no_grad():
        broken.fc3.weight[0, 0] = torch.nan
    for way in (compress, compress_lossless):
        with pytest.raises(CodecError, match="NaN"):
            way(broken, bits[1][:2])
        with pytest.raises(CodecError, match="empty"):
            way(vae, bits[1][:0])
    for data in ("digits.vae", None):
        with pytest.raises(CodecError, match="give the bytes"):
            decompress(vae, data)


def test_steps_and_numbers_that_cannot_be_stored_are_refused(vae, bits):
    for step in (0, -1, 1e-9, 1e9, math.nan, math.inf):
        with pytest.raises(CodecError, match="step"):
            compress(vae, bits[1][:2], step=step)
    for value in (1e5, torch.nan):
        with pytest.raises(CodecError, match="larger step"):
            pack(torch.full((3, 2), value), 0.5)
