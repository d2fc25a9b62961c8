import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_utils import corruption
from vae_utils.corruption import (
    SIDES,
    AnyOf,
    Corrupted,
    Corruption,
    DropPixels,
    EraseBlock,
    EraseHalf,
    EraseStripes,
    GaussianNoise,
    ReplacePixels,
    SaltAndPepper,
    with_mask_channel,
)

ERASING = [
    DropPixels(0.3),
    DropPixels((0.1, 0.9)),
    EraseBlock(10),
    EraseBlock((4, 20)),
    *(EraseHalf(side) for side in (*SIDES, "random")),
    EraseStripes(2, 7),
    EraseStripes(3, 5, "vertical"),
    AnyOf(DropPixels(0.5), EraseBlock(12), EraseHalf("random")),
]
REPLACING = [ReplacePixels(0.3), ReplacePixels((0.0, 0.5)), SaltAndPepper(0.2), GaussianNoise(0.3)]
ALL = [*ERASING, *REPLACING, AnyOf(ReplacePixels(0.2), AnyOf(GaussianNoise(0.1), EraseHalf("left")))]
RANDOM = [c for c in ALL if not (isinstance(c, EraseHalf) and c.side != "random")]
every_kind = pytest.mark.parametrize("corrupt", ALL, ids=repr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=6, channels=1, height=28, width=28, dtype=torch.float32):
    """Values in [0.25, 0.75]: no pixel is 0 or 1 before it is spoilt."""
    return torch.rand(n, channels, height, width, generator=seeded(99)).mul(0.5).add(0.25).to(dtype)


def touched_per_image(result):
    return (~result.observed).flatten(1).sum(1)


# --- what holds for all kinds -----------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_types_and_range(corrupt, n, channels):
    images = pictures(n, channels)
    result = corrupt(images, seeded())
    assert isinstance(result, Corrupted)
    assert result.images.shape == images.shape and result.images.dtype == images.dtype
    assert result.observed.shape == (n, 1, 28, 28) and result.observed.dtype == torch.bool
    assert ((result.images >= 0) & (result.images <= 1)).all()
    assert n == 0 or not result.observed.all(), "nothing was spoilt"


@every_kind
def test_observed_pixels_are_unchanged_in_all_channels(corrupt):
    images = pictures(channels=3)
    result = corrupt(images, seeded())
    seen = result.observed.expand_as(images)
    assert torch.equal(result.images[seen], images[seen])


@pytest.mark.parametrize("corrupt", ERASING, ids=repr)
def test_missing_pixels_are_zero_in_all_channels(corrupt):
    images = pictures(channels=3)
    result = corrupt(images, seeded())
    # no clean pixel is 0, so this holds in both directions: missing is 0, and 0 is missing
    assert torch.equal(result.images == 0, ~result.observed.expand_as(images))


@pytest.mark.parametrize("corrupt", REPLACING, ids=repr)
def test_touched_pixels_are_changed(corrupt):
    images = pictures()
    result = corrupt(images, seeded())
    changed = (result.images != images).float()[~result.observed]
    assert changed.mean() > 0.999  # a drawn value may hit the old one


@every_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_input_is_untouched_and_shares_no_memory(corrupt, channels):
    images = pictures(channels=channels)
    before = images.clone()
    result = corrupt(images, seeded())
    assert torch.equal(images, before)
    storages = {t.untyped_storage().data_ptr() for t in (images, *result)}
    assert len(storages) == 3
    assert result.observed.is_contiguous(), "an expanded mask would share memory between images"
    result.images.fill_(0.5)
    result.observed.fill_(True)
    assert torch.equal(images, before)


@pytest.mark.parametrize("corrupt", [DropPixels(0), ReplacePixels(0), GaussianNoise(0), SaltAndPepper(0)], ids=repr)
def test_doing_nothing_still_copies(corrupt):
    images = pictures()
    result = corrupt(images, seeded())
    assert torch.equal(result.images, images)
    assert result.images.data_ptr() != images.data_ptr()


@every_kind
def test_views_of_one_image_are_spoilt_like_copies(corrupt):
    expanded = pictures(1).expand(5, 1, 28, 28)
    result, expected = corrupt(expanded, seeded()), corrupt(expanded.clone(), seeded())
    assert torch.equal(result.images, expected.images) and torch.equal(result.observed, expected.observed)
    result.images.zero_()
    assert (expanded > 0).all()


@every_kind
def test_same_seed_same_result(corrupt):
    images = pictures()
    first, again = corrupt(images, seeded(3)), corrupt(images, seeded(3))
    assert torch.equal(first.images, again.images) and torch.equal(first.observed, again.observed)


@every_kind
def test_without_generator_the_global_seed_decides_and_with_one_it_is_left_alone(corrupt):
    images = pictures()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = corrupt(images)
        torch.manual_seed(5)
        again = corrupt(images)
        state = torch.random.get_rng_state()
        corrupt(images, seeded())
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.images, again.images) and torch.equal(first.observed, again.observed)


@pytest.mark.parametrize("corrupt", RANDOM, ids=repr)
def test_seeds_and_images_differ(corrupt):
    same = pictures(1).repeat(40, 1, 1, 1)
    first, other = corrupt(same, seeded(1)), corrupt(same, seeded(2))
    assert not torch.equal(first.images, other.images)
    assert len(first.images.flatten(1).unique(dim=0)) > 1


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_types_are_kept(corrupt, dtype):
    images = pictures(dtype=dtype)
    result = corrupt(images, seeded())
    assert result.images.dtype == dtype
    assert ((result.images >= 0) & (result.images <= 1)).all()


@every_kind
def test_gradients_reach_only_what_was_observed(corrupt):
    images = pictures().requires_grad_()
    result = corrupt(images, seeded())
    result.images.sum().backward()
    assert (images.grad[result.observed] == 1).all()
    if corrupt in ERASING:
        assert (images.grad[~result.observed] == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@every_kind
def test_on_cuda(corrupt):
    images = pictures().cuda()
    first, again = (corrupt(images, torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert first.images.device == first.observed.device == images.device
    assert torch.equal(first.images, again.images) and torch.equal(first.observed, again.observed)


# --- the repr is part of a cache key ----------------------------------------------------------------------------------


@every_kind
def test_repr_round_trip(corrupt):
    again = eval(repr(corrupt), vars(corruption))
    assert again == corrupt and repr(again) == repr(corrupt) and hash(again) == hash(corrupt)


@every_kind
def test_pickle_round_trip(corrupt):
    assert pickle.loads(pickle.dumps(corrupt)) == corrupt


def test_all_kinds_have_different_reprs():
    assert len({repr(corrupt) for corrupt in ALL}) == len(ALL) == len(set(ALL))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DropPixels(1), DropPixels(1.0)),
        (DropPixels(np.float64(0.25)), DropPixels(0.25)),
        (DropPixels([0, 1]), DropPixels((0.0, 1.0))),
        (GaussianNoise(1), GaussianNoise(np.float32(1))),
        (EraseBlock(7), EraseBlock([7, np.int64(7)])),
        (EraseStripes(np.int64(1), 2), EraseStripes(1, 2, "horizontal")),
    ],
    ids=repr,
)
def test_numbers_are_brought_to_one_form(one, other):
    assert one == other and repr(one) == repr(other)


@every_kind
def test_frozen(corrupt):
    name = dataclasses.fields(corrupt)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(corrupt, name, 1)


# --- single pixels ----------------------------------------------------------------------------------------------------

sizes = st.integers(1, 12)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from([ReplacePixels, DropPixels, SaltAndPepper]),
    fraction=st.one_of(st.sampled_from([0, 1, 0.5]), st.floats(0, 1)),
    n=st.integers(0, 4),
    channels=st.integers(1, 3),
    height=sizes,
    width=sizes,
    seed=st.integers(0, 2**32),
)
def test_exact_count_per_image(kind, fraction, n, channels, height, width, seed):
    result = kind(fraction)(pictures(n, channels, height, width), seeded(seed))
    assert touched_per_image(result).tolist() == [round(fraction * height * width)] * n


@settings(deadline=None, max_examples=60)
@given(
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple),
    n=st.integers(0, 6),
    height=sizes,
    width=sizes,
    seed=st.integers(0, 2**32),
)
def test_count_of_a_pair_stays_between_its_ends(bounds, n, height, width, seed):
    count = touched_per_image(DropPixels(bounds)(pictures(n, 1, height, width), seeded(seed)))
    low, high = (bound * height * width for bound in bounds)
    rounding = 0.5 + 1e-4  # to whole pixels, in single precision
    assert ((count >= low - rounding) & (count <= high + rounding)).all()


def test_fractions_of_a_pair_are_uniform_over_images():
    n = 4000
    share = touched_per_image(DropPixels((0.2, 0.6))(pictures(n), seeded())) / 784
    assert abs(share.mean() - 0.4) < 4 * (0.4 / math.sqrt(12)) / math.sqrt(n)
    assert abs(share.std() / (0.4 / math.sqrt(12)) - 1) < 0.05
    assert share.min() < 0.21 and share.max() > 0.59


def test_every_pixel_is_chosen_equally_often():
    n, fraction = 4000, 0.3
    often = (~DropPixels(fraction)(pictures(n, 1, 8, 8), seeded()).observed).float().mean(0)
    fraction = round(fraction * 64) / 64
    # 64 pixels are looked at together: 4.5 standard errors instead of 4
    assert (often - fraction).abs().max() < 4.5 * math.sqrt(fraction * (1 - fraction) / n)


def test_chosen_pixels_are_independent_of_their_neighbours():
    touched = ~DropPixels(0.5)(pictures(2000, 1, 8, 8), seeded()).observed
    both = (touched[..., 1:] & touched[..., :-1]).float().mean(dim=(0, 1))
    expected = 32 * 31 / (64 * 63)  # without replacement: a little below a quarter
    # neighbouring pairs share a pixel, so the pairs of one image count as one observation, images as independent
    spread = (touched[..., 1:] & touched[..., :-1]).float().mean(dim=(1, 2, 3)).std()
    assert abs(both.mean() - expected) < 4 * spread / math.sqrt(2000)


@pytest.mark.parametrize("channels", [1, 3])
def test_replaced_values_are_uniform(channels):
    images = torch.zeros(200, channels, 28, 28)
    result = ReplacePixels(0.5)(images, seeded())
    values = result.images[~result.observed.expand_as(images)]
    n = values.numel()
    assert n == 200 * channels * 392
    assert abs(values.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs((values**2).mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
    assert values.min() < 0.001 and values.max() > 0.999


def test_replaced_channels_get_values_of_their_own():
    result = ReplacePixels(1)(torch.zeros(1, 2, 28, 28), seeded())
    assert not torch.equal(result.images[:, 0], result.images[:, 1])


def test_salt_and_pepper_are_equally_likely():
    images = pictures(200, 3)
    result = SaltAndPepper(0.5)(images, seeded())
    assert torch.equal(result.images[:, :1] == 1, result.images[:, 1:2] == 1), "all channels of a pixel turn together"
    values = result.images[~result.observed.expand_as(images)]
    assert set(values.unique().tolist()) == {0.0, 1.0}
    assert abs(values.mean() - 1 / 2) < 4 * 0.5 / math.sqrt(200 * 392)  # draws: one per pixel, not per channel


def test_gaussian_noise_has_the_asked_spread_and_is_clipped():
    grey = torch.full((100, 1, 28, 28), 0.5)
    noise = GaussianNoise(0.05)(grey, seeded()).images - 0.5  # ten standard deviations from the clipping
    n = noise.numel()
    assert abs(noise.mean()) < 4 * 0.05 / math.sqrt(n)
    assert abs(noise.std() / 0.05 - 1) < 4 / math.sqrt(2 * n)
    loud = GaussianNoise(10)(grey, seeded()).images
    assert loud.min() == 0 and loud.max() == 1
    assert not GaussianNoise(0)(grey).observed.any()


# --- connected pixels -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(0, 5), height=sizes, width=sizes, seed=st.integers(0, 2**32))
def test_block_is_one_whole_rectangle(data, n, height, width, seed):
    block = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    missing = ~EraseBlock(block)(pictures(n, 2, height, width), seeded(seed)).observed[:, 0]
    for picture in missing:
        rows, columns = picture.any(1).nonzero().flatten(), picture.any(0).nonzero().flatten()
        assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == block
        assert picture.sum() == block[0] * block[1]


def test_block_visits_every_place_equally_often():
    n, places = 5000, 5 * 4
    missing = ~EraseBlock((2, 3))(pictures(n, 1, 6, 6), seeded()).observed[:, 0]
    top, left = missing.any(2).float().argmax(1), missing.any(1).float().argmax(1)
    share = torch.bincount(top * 4 + left, minlength=places) / n
    assert len(share) == places
    assert (share - 1 / places).abs().max() < 4 * math.sqrt(1 / places * (1 - 1 / places) / n)


def test_a_number_is_a_square():
    assert EraseBlock(3) == EraseBlock((3, 3))


@settings(deadline=None, max_examples=60)
@given(side=st.sampled_from(SIDES), n=st.integers(0, 3), height=sizes, width=sizes)
def test_half(side, n, height, width):
    missing = ~EraseHalf(side)(pictures(n, 1, height, width)).observed
    expected = torch.zeros(n, 1, height, width, dtype=torch.bool)
    h, w = height // 2, width // 2
    part = {
        "left": expected[..., :w],
        "right": expected[..., width - w :],
        "top": expected[..., :h, :],
        "bottom": expected[..., height - h :, :],
    }
    part[side].fill_(True)
    assert torch.equal(missing, expected)


def test_random_half_takes_all_four_sides_equally_often():
    n = 2000
    images = pictures(n, 1, 4, 4)
    observed = EraseHalf("random")(images, seeded()).observed
    one_each = [EraseHalf(side)(images[:1]).observed for side in SIDES]
    share = torch.stack([(observed == one).flatten(1).all(1).float().mean() for one in one_each])
    assert share.sum() == 1
    assert (share - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / n)


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    direction=st.sampled_from(["horizontal", "vertical"]),
    n=st.integers(0, 4),
    height=sizes,
    width=sizes,
    seed=st.integers(0, 2**32),
)
def test_stripes_repeat_and_cover_their_share(data, direction, n, height, width, seed):
    period = data.draw(st.integers(1, 15))
    stripe = data.draw(st.integers(1, period))
    missing = ~EraseStripes(stripe, period, direction)(pictures(n, 1, height, width), seeded(seed)).observed[:, 0]
    if direction == "vertical":
        missing = missing.transpose(1, 2)
    line = missing[:, :, 0]
    assert torch.equal(missing, line[:, :, None].expand_as(missing)), "a stripe runs across the whole image"
    for start in range(line.shape[1] - period + 1):
        window = line[:, start : start + period].int()
        assert (window.sum(1) == stripe).all()
        # one stripe, seen around the end of the period: it begins at most once
        assert (((window - window.roll(1, dims=1)) == 1).sum(1) == (stripe < period)).all()


def test_stripes_start_everywhere_equally_often():
    n, period = 2000, 5
    missing = ~EraseStripes(1, period)(pictures(n, 1, period, 2), seeded()).observed[:, 0, :, 0]
    share = missing.float().mean(0)
    assert (share - 1 / period).abs().max() < 4 * math.sqrt(1 / period * (1 - 1 / period) / n)


# --- mixtures, and the mask channel -----------------------------------------------------------------------------------


def test_any_of_gives_each_image_exactly_one_kind_equally_often():
    n = 3000
    images = pictures(n, 1, 8, 8)
    mixed = AnyOf(EraseHalf("left"), EraseHalf("top"), GaussianNoise(0.5))(images, seeded())
    lefts, tops = (EraseHalf(side)(images).observed for side in ("left", "top"))
    drawn = torch.stack(
        [
            (mixed.observed == lefts).flatten(1).all(1),
            (mixed.observed == tops).flatten(1).all(1),
            (~mixed.observed).flatten(1).all(1),
        ]
    )
    assert (drawn.sum(0) == 1).all()
    assert (drawn.float().mean(1) - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / n)


def test_any_of_keeps_the_order_of_the_images():
    grey = torch.linspace(0.1, 0.9, 50).view(-1, 1, 1, 1).expand(50, 1, 8, 8)
    mixed = AnyOf(EraseHalf("left"), EraseHalf("bottom"))(grey, seeded())
    assert torch.equal(mixed.images.amax(dim=(1, 2, 3)), grey[:, 0, 0, 0])


def test_any_of_one_kind_is_that_kind():
    images = pictures()
    assert torch.equal(AnyOf(EraseHalf("top"))(images).images, EraseHalf("top")(images).images)


def test_any_of_names_a_block_that_does_not_fit_even_when_no_image_drew_it():
    with pytest.raises(ValueError, match=r"size is \(12, 12\)"):
        AnyOf(DropPixels(0.5), EraseBlock(12))(pictures(0, 1, 8, 8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_mask_channel(channels, dtype):
    corrupted = DropPixels(0.4)(pictures(3, channels, dtype=dtype), seeded())
    stacked = with_mask_channel(corrupted)
    assert stacked.shape == (3, channels + 1, 28, 28) and stacked.dtype == dtype
    assert torch.equal(stacked[:, :-1], corrupted.images)
    assert torch.equal(stacked[:, -1:] == 1, corrupted.observed) and torch.equal(
        stacked[:, -1:] == 0, ~corrupted.observed
    )
    stacked.fill_(0.5)
    assert (corrupted.images != 0.5).any()


def test_the_mask_tells_black_from_missing():
    black = torch.zeros(1, 1, 4, 4)
    half = EraseHalf("left")(black)
    assert torch.equal(half.images, black)
    assert with_mask_channel(half)[0, 1].tolist() == [[0, 0, 1, 1]] * 4


# --- errors name the value and the way out ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ReplacePixels, DropPixels, SaltAndPepper])
@pytest.mark.parametrize(
    "fraction",
    [
        -0.1,
        1.1,
        math.nan,
        math.inf,
        "0.3",
        None,
        (0.5, 0.2),
        (0, math.nan),
        (-0.1, 1),
        (0, 1.5),
        (0.1,),
        (0, 0.5, 1),
        (),
    ],
)
def test_bad_fraction(kind, fraction):
    with pytest.raises(ValueError) as error:
        kind(fraction)
    assert repr(fraction) in str(error.value) and "give 0 to 1" in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-1), r"std is -1; give"),
        (lambda: GaussianNoise(math.nan), r"std is nan; give"),
        (lambda: GaussianNoise(math.inf), r"std is inf; give"),
        (lambda: GaussianNoise("loud"), r"std is 'loud'; give"),
        (lambda: EraseBlock(0), r"size is 0; give"),
        (lambda: EraseBlock(2.5), r"size is 2.5; give"),
        (lambda: EraseBlock((3, -1)), r"size is \(3, -1\); give"),
        (lambda: EraseBlock((3, 3, 3)), r"size is \(3, 3, 3\); give"),
        (lambda: EraseHalf("middle"), r"side is 'middle'; choose one of left, right, top, bottom, random"),
        (lambda: EraseHalf(None), r"side is None; choose"),
        (lambda: EraseStripes(5, 4), r"width is 5; give 4"),
        (lambda: EraseStripes(0, 4), r"width is 0; give"),
        (lambda: EraseStripes(1, 0), r"period is 0; give"),
        (lambda: EraseStripes(1, 2.5), r"period is 2.5; give"),
        (lambda: EraseStripes(1, 4, "diagonal"), r"direction is 'diagonal'; choose one of horizontal, vertical"),
        (lambda: AnyOf(), r"kinds are \(\); give"),
        (lambda: AnyOf(DropPixels(0.5), "noise"), r"kinds are .*'noise'.*; give"),
        (lambda: AnyOf([DropPixels(0.5)]), r"kinds are .*; give"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"shape \(28, 28\); give \(N, C, H, W\)"),
        (torch.zeros(5, 784), r"shape \(5, 784\); give"),
        (torch.zeros(1, 5, 1, 28, 28), r"shape \(1, 5, 1, 28, 28\); give"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), r"torch\.uint8; give .* / 255"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.complex64), r"torch\.complex64; give"),
        (np.zeros((1, 1, 28, 28)), r"images are ndarray; give"),
        (None, r"images are NoneType; give"),
        (torch.full((1, 1, 28, 28), 255.0), r"from 255 to 255; give \[0, 1\]"),
        (torch.tensor([[[[-1.0, 0.5]]]]), r"from -1 to 0.5; give"),
        (torch.tensor([[[[0.5, math.nan]]]]), r"from nan to nan; give .*NaN"),
        (torch.tensor([[[[0.5, math.inf]]]]), r"from 0.5 to inf; give"),
    ],
)
@pytest.mark.parametrize("corrupt", [DropPixels(0.5), GaussianNoise(0.1), AnyOf(EraseHalf("left"))], ids=repr)
def test_bad_images(corrupt, images, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images)


@pytest.mark.parametrize("size", [(9, 1), (1, 6), 9])
def test_block_larger_than_the_image(size):
    with pytest.raises(ValueError, match=r"size is \(.*images are only \(8, 5\); give a block that fits"):
        EraseBlock(size)(pictures(1, 1, 8, 5))


def test_generator_of_another_device():
    with pytest.raises(ValueError, match=r"generator is on cpu, images on meta; give torch\.Generator\('meta'\)"):
        DropPixels(0.5)(pictures().to("meta"), seeded())


def test_the_common_class_spoils_nothing():
    with pytest.raises(NotImplementedError, match="Corruption does not say how"):
        Corruption()(pictures())
