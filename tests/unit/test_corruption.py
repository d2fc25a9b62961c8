"""What a corruption touches is what its mask says, as often as it promises, and the same for the same seed."""

import pytest
import torch

from vae_utils.corruption import (
    AnyOf,
    DropPixels,
    EraseBlock,
    EraseHalf,
    EraseStripes,
    GaussianNoise,
    ReplacePixels,
    SaltAndPepper,
    with_mask_channel,
)

KINDS = [
    ReplacePixels(0.25),
    ReplacePixels((0.0, 0.6)),
    DropPixels(0.5),
    SaltAndPepper(0.3),
    GaussianNoise(0.2),
    EraseBlock(12),
    EraseBlock((3, 20)),
    EraseHalf("left"),
    EraseHalf("random"),
    EraseStripes(2, 4, "vertical"),
    AnyOf(DropPixels((0.0, 0.9)), EraseBlock(14)),
]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return 0.25 + 0.5 * torch.rand(40, 1, 28, 28, generator=rng(1))  # neither 0 nor 1: every change shows


@pytest.mark.parametrize("corrupt", KINDS, ids=repr)
def test_observed_pixels_are_untouched_and_the_seed_decides(corrupt, images):
    before = images.clone()
    corrupted, observed = corrupt(images, rng())
    assert torch.equal(images, before) and corrupted.shape == images.shape and observed.dtype == torch.bool
    assert torch.equal(corrupted[observed], images[observed])
    assert corrupted.min() >= 0 and corrupted.max() <= 1
    again, other = corrupt(images, rng()), corrupt(images, rng(5))
    assert torch.equal(again.images, corrupted) and torch.equal(again.observed, observed)
    assert torch.equal(other.images, corrupted) == (repr(corrupt) == "EraseHalf(side='left')")
    assert corrupt(images[:0], rng()).images.shape == (0, 1, 28, 28)
    assert eval(repr(corrupt)) == corrupt or isinstance(corrupt, AnyOf)  # what stands in a cache key


@pytest.mark.parametrize("kind", [ReplacePixels, DropPixels, SaltAndPepper])
def test_exactly_the_fraction_is_touched(kind, images):
    _, observed = kind(0.3)(images, rng())
    assert set((~observed).flatten(1).sum(1).tolist()) == {round(0.3 * 784)}
    _, observed = kind((0.1, 0.5))(images, rng())
    shares = (~observed).flatten(1).float().mean(1)
    assert shares.min() >= 0.09 and shares.max() <= 0.51 and shares.std() > 0.05


def test_what_stands_at_touched_pixels(images):
    replaced, observed = ReplacePixels(0.5)(images, rng())
    assert replaced[~observed].mean().item() == pytest.approx(0.5, abs=0.02)
    assert replaced[~observed].var().item() == pytest.approx(1 / 12, abs=0.005)
    extremes, observed = SaltAndPepper(0.5)(images, rng())
    assert set(extremes[~observed].unique().tolist()) == {0.0, 1.0}
    for kind in (DropPixels(0.5), EraseBlock(9), EraseHalf("top"), EraseStripes(1, 3)):
        dropped, observed = kind(images, rng())
        assert (dropped[~observed] == 0).all() and 0 < (~observed).float().mean() < 1
    noisy, observed = GaussianNoise(0.1)(images, rng())
    assert (noisy - images).std().item() == pytest.approx(0.1, abs=0.01) and not observed.any()


def test_shapes_of_erased_regions(images):
    missing = ~EraseBlock((3, 20))(images, rng()).observed
    rows, columns = missing.any(3).sum(2), missing.any(2).sum(2)
    assert set(rows.flatten().tolist()) == {3} and set(columns.flatten().tolist()) == {20}
    assert missing.flatten(1).sum(1).tolist() == [60] * 40
    for side, kept in (("left", (..., slice(14, 28))), ("bottom", (slice(0, 14), ...))):
        observed = EraseHalf(side)(images, rng()).observed[0, 0]
        assert observed[kept].all() and observed.sum() == 392
    stripes = ~EraseStripes(2, 4)(images, rng()).observed
    assert stripes.flatten(1).sum(1).tolist() == [14 * 28] * 40
    halves = {tuple(mask.flatten().tolist()) for mask in EraseHalf("random")(images, rng()).observed}
    assert len(halves) == 4


def test_any_of_uses_all_its_kinds_and_the_mask_travels_as_a_channel(images):
    corrupted = AnyOf(DropPixels(0.5), EraseHalf("left"))(images, rng())
    left = (~corrupted.observed[..., :14]).flatten(1).all(1) & corrupted.observed[..., 14:].flatten(1).all(1)
    assert 8 < left.sum() < 32
    both = with_mask_channel(corrupted)
    assert both.shape == (40, 2, 28, 28) and torch.equal(both[:, 1:], corrupted.observed.float())


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan"), (0.5, 0.2), (0.1, 0.2, 0.3)])
def test_a_fraction_that_is_none_is_refused(bad):
    with pytest.raises(ValueError):
        DropPixels(bad)


def test_other_nonsense_is_refused(images):
    with pytest.raises(ValueError, match="middle"):
        EraseHalf("middle")
    with pytest.raises(ValueError, match="diagonal"):
        EraseStripes(1, 2, "diagonal")
    for bad, named in ((images[:, 0], r"\(40, 28, 28\)"), (255 * images, "255"), ((255 * images).byte(), "uint8")):
        with pytest.raises(ValueError, match=named):
            DropPixels(0.5)(bad)
