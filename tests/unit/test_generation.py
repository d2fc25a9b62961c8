"""Codes come from where they should, and the measures that compare sets have the values they must."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.mixture import GaussianMixture

from vae_utils import generation
from vae_utils.generation import ClassMixtures, CodeMixture, frechet_distance, precision_recall


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardised(n, d, seed=0):
    """A table with mean exactly 0 and covariance exactly I."""
    table = draws(n, d, seed)
    table = table - table.mean(0)
    return table @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(table.T))).T


# ---- Fréchet distance ----


def test_the_frechet_distance_of_a_set_to_itself_is_zero():
    table = draws(200, 5)
    assert frechet_distance(table, table) < 1e-9
    assert frechet_distance(table, table.flip(0)) < 1e-9


def test_the_frechet_distance_of_known_gaussians_is_the_formula():
    # diagonal covariances commute, so the trace is the sum of (σ₁ − σ₂)²
    sigma = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    mean = torch.tensor([1.0, 0.0, -2.0]).double()
    first, second = standardised(400, 3) * sigma[0], standardised(300, 3, seed=1) * sigma[1] + mean
    assert frechet_distance(first, second) == pytest.approx(5 + 4 + 0 + 0.25, abs=1e-8)


def test_the_frechet_distance_is_that_of_the_matrix_square_root():
    first, second = draws(60, 4) @ draws(4, 4, 1), draws(90, 4, 2) @ draws(4, 4, 3) + 1
    c1, c2 = np.cov(first.numpy().T), np.cov(second.numpy().T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), columns=st.integers(1, 6), scale=st.floats(0.1, 10))
def test_the_frechet_distance_is_symmetric_grows_with_scale_and_ignores_rotation(seed, columns, scale):
    first, second = draws(30, columns, seed), draws(40, columns, seed + 1) + 0.5
    distance = frechet_distance(first, second)
    assert distance == pytest.approx(frechet_distance(second, first), rel=1e-6, abs=1e-9)
    assert frechet_distance(scale * first, scale * second) == pytest.approx(scale**2 * distance, rel=1e-5, abs=1e-8)
    turn = torch.linalg.qr(draws(columns, columns, seed + 2)).Q
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(distance, rel=1e-5, abs=1e-8)


def test_the_frechet_distance_copes_with_features_that_never_move():
    still = torch.cat([draws(50, 2), torch.zeros(50, 3).double()], 1)
    assert frechet_distance(still, still) < 1e-9
    assert math.isfinite(frechet_distance(still, torch.zeros(10, 5).double()))


# ---- precision and recall ----


def test_equal_sets_have_precision_and_recall_one():
    table = draws(100, 3)
    assert precision_recall(real=table, generated=table.clone()) == (1.0, 1.0)


def test_sets_that_are_far_apart_have_neither():
    assert precision_recall(real=draws(50, 3), generated=draws(50, 3, 1) + 100) == (0.0, 0.0)


def test_a_generator_that_knows_one_mode_is_precise_but_recalls_half():
    left, right = draws(200, 2) * 0.1, draws(200, 2, 1) * 0.1 + 10
    result = precision_recall(real=torch.cat([left, right]), generated=draws(400, 2, 2) * 0.1)
    assert result.precision > 0.9 and 0.4 < result.recall <= 0.5


def test_swapping_real_and_generated_swaps_precision_and_recall():
    real, generated = draws(80, 3), 0.3 * draws(120, 3, 1)
    there, back = precision_recall(real=real, generated=generated), precision_recall(real=generated, generated=real)
    assert there == (back.recall, back.precision)
    assert there.precision > there.recall


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0], [1.0], [10.0]])  # distances to the nearest other one: 1, 1, 9
    generated = torch.tensor([[2.0], [18.9], [30.0]])  # 16.9, 11.1, 11.1
    result = precision_recall(real=real, generated=generated, k=1)
    assert result.precision == pytest.approx(2 / 3)  # 2 and 18.9 lie among the real ones, 30 does not
    assert result.recall == 1.0  # 0, 1 and 10 are all within 16.9 of 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(draws(5, 2), draws(5, 3)), r"first \(5, 2\), second \(5, 3\)"),
        (lambda: frechet_distance(draws(1, 2), draws(5, 2)), r"first has shape \(1, 2\)"),
        (lambda: frechet_distance(torch.rand(5, 1, 4, 4), draws(5, 2)), "Flatten images"),
        (lambda: precision_recall(real=draws(3, 2), generated=draws(9, 2), k=3), "real has shape"),
        (lambda: precision_recall(real=draws(9, 2) / 0, generated=draws(9, 2)), "finite"),
        (lambda: CodeMixture.fit(draws(5, 2), 6), "components is 6"),
        (lambda: ClassMixtures.fit(draws(5, 2), torch.zeros(4, dtype=torch.long), 1), r"labels has shape \(4,\)"),
        (lambda: ClassMixtures.fit(draws(4, 2), torch.tensor([0, 0, 2, 2]), 1), "Class 1 has 0"),
        (lambda: generation.prior_codes(3, 2, temperature=-1.0), "temperature is -1.0"),
        (lambda: generation.slerp(torch.zeros(2), torch.ones(2), 3), "length 0"),
        (lambda: generation.slerp(torch.ones(2), -torch.ones(2), 3), "opposite"),
        (lambda: generation.entropy([0.5, 0.6]), "sum to 1"),
        (lambda: generation.GreyCurve.fit(decoded=torch.zeros(0), real=torch.zeros(3)), "0 decoded and 3 real"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- mixtures ----


@pytest.fixture(scope="module")
def two_clumps():
    return torch.cat([0.2 * draws(600, 2) + 3, 0.5 * draws(300, 2, 1) - 3]).float()


def test_a_mixture_finds_clumps_and_draws_from_them(two_clumps):
    mixture = CodeMixture.fit(two_clumps, 2, seed=0)
    order = mixture.weights.argsort()
    torch.testing.assert_close(mixture.weights[order], torch.tensor([1 / 3, 2 / 3]).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(mixture.means[order[1]], torch.full((2,), 3.0).double(), atol=0.05, rtol=0)
    sample = mixture.sample(30_000, seed=1)
    assert sample.dtype == torch.float32 and sample.shape == (30_000, 2)
    torch.testing.assert_close(sample.mean(0), two_clumps.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(sample.T), torch.cov(two_clumps.T), atol=0.2, rtol=0)
    assert torch.equal(sample, mixture.sample(30_000, seed=1)) and not torch.equal(
        sample, mixture.sample(30_000, seed=2)
    )


def test_its_log_density_is_scikit_learns(two_clumps):
    mixture = CodeMixture.fit(two_clumps, 3, seed=0, steps=200)
    reference = GaussianMixture(3, tol=1e-2, reg_covar=1e-3, random_state=0, max_iter=200).fit(
        two_clumps.double().numpy()
    )
    np.testing.assert_allclose(
        mixture.log_density(two_clumps[:50]), reference.score_samples(two_clumps[:50].double().numpy()), rtol=1e-6
    )


def test_the_density_integrates_to_one(two_clumps):
    mixture = CodeMixture.fit(two_clumps, 2)
    axis = torch.linspace(-7, 7, 281)
    grid = torch.cartesian_prod(axis, axis)
    assert mixture.log_density(grid).exp().sum().item() * 0.05**2 == pytest.approx(1, abs=1e-3)


def test_a_class_is_drawn_from_its_own_mixture(two_clumps):
    labels = (torch.arange(900) >= 600).long()
    mixtures = ClassMixtures.fit(two_clumps, labels, 3)
    wanted = torch.tensor([0, 1, 1, 0] * 100)
    codes = mixtures.sample(wanted, seed=3)
    assert torch.equal((codes.sum(1) < 0).long(), wanted)
    with pytest.raises(ValueError, match="mixtures for 0 to 1"):
        mixtures.sample(torch.tensor([2]))


def test_a_class_of_few_codes_gets_few_components():
    codes = draws(105, 10).float()
    mixtures = ClassMixtures.fit(codes, (torch.arange(105) >= 100).long(), 4).mixtures
    assert [len(mixture.weights) for mixture in mixtures] == [4, 1]


# ---- paths and draws ----


def test_paths_begin_and_end_where_they_should():
    start, end = draws(2, 6).float()
    for path in (generation.lerp(start, end, 7), generation.slerp(start, end, 7)):
        assert path.shape == (7, 6)
        torch.testing.assert_close(path[0], start)
        torch.testing.assert_close(path[-1], end)


def test_the_arc_keeps_its_length_and_turns_evenly():
    path = generation.slerp(torch.tensor([2.0, 0, 0]), torch.tensor([0, 0, 2.0]), 5)
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0))
    angles = torch.atan2(path[:, 2], path[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 5))
    lengths = generation.slerp(torch.tensor([1.0, 0]), torch.tensor([0, 3.0]), 3).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 2.0, 3.0]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), nearness=st.floats(0, 0.01))
def test_the_arc_between_near_codes_is_the_straight_line(seed, nearness):
    start, step = draws(2, 4, seed).float()
    end = start + nearness * step
    # they differ by terms of second order: in the angle, and in angle times change of length, both at most apart / shortest
    apart, shortest = (end - start).norm().item(), min(start.norm(), end.norm()).item()
    torch.testing.assert_close(
        generation.slerp(start, end, 5), generation.lerp(start, end, 5), atol=apart**2 / shortest + 1e-5, rtol=0
    )


def test_temperature_scales_the_same_draws():
    plain = generation.prior_codes(1000, 3, seed=4)
    torch.testing.assert_close(generation.prior_codes(1000, 3, temperature=0.5, seed=4), 0.5 * plain)
    assert plain.std().item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(plain, generation.prior_codes(1000, 3, seed=5))


# ---- grey values ----


def test_the_grey_curve_gives_decoded_images_the_greys_of_real_ones():
    generator = torch.Generator().manual_seed(0)
    real = (torch.rand(50, 1, 28, 28, generator=generator) > 0.7).float() * torch.rand(
        50, 1, 28, 28, generator=generator
    )
    decoded = 0.1 + 0.5 * torch.rand(50, 1, 28, 28, generator=generator)
    mapped = generation.GreyCurve.fit(decoded=decoded, real=real)(decoded)
    assert mapped.shape == decoded.shape and mapped.min() >= 0 and mapped.max() <= 1
    torch.testing.assert_close(mapped.flatten().sort().values, real.flatten().sort().values, atol=0.01, rtol=0)
    order = decoded.flatten().argsort()
    assert (mapped.flatten()[order].diff() >= -1e-6).all()


def test_the_grey_curve_of_a_set_and_itself_changes_nothing_and_swapping_turns_it_round():
    x = torch.rand(20, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(generation.GreyCurve.fit(decoded=x, real=x)(x), x, atol=1e-3, rtol=0)
    there, back = generation.GreyCurve.fit(decoded=x, real=x**2), generation.GreyCurve.fit(decoded=x**2, real=x)
    torch.testing.assert_close(there(x), x**2, atol=2e-3, rtol=0)
    torch.testing.assert_close(back(there(x)), x, atol=0.02, rtol=0)
    assert (there(x) - back(x)).abs().max() > 0.1


# ---- copies and shares ----


def test_the_nearest_image_is_found_and_its_distance_is_per_pixel():
    gallery = torch.stack([torch.full((1, 4, 4), value) for value in (0.0, 0.5, 1.0)])
    distances, which = generation.nearest_images(torch.full((1, 1, 4, 4), 0.6), gallery)
    assert which.tolist() == [1] and distances.item() == pytest.approx(0.1)


def test_entropy_of_shares():
    assert generation.entropy([0.25] * 4) == pytest.approx(2)
    assert generation.entropy([1, 0]) == pytest.approx(0)
