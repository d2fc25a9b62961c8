"""Scores, thresholds and detection rates against scikit-learn, simulation and hand-made numbers."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import nn

from vae_utils import anomaly
from vae_utils.metrics import auroc
from vae_utils.model import VAE


@pytest.fixture
def tables():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    return torch.randn(40, 6, generator=generator) @ mix + 2, torch.randn(300, 6, generator=generator) @ mix


def test_neighbour_distance_is_the_mean_of_scikit_learns(tables):
    queries, reference = tables
    expected, _ = NearestNeighbors(n_neighbors=4).fit(reference.numpy()).kneighbors(queries.numpy())
    np.testing.assert_allclose(anomaly.neighbour_distance(queries, reference, k=4), expected.mean(1), rtol=1e-4)


def test_mahalanobis_does_not_change_when_columns_are_mixed(tables):
    queries, reference = tables
    inverse = np.linalg.inv(np.cov(reference.numpy().T))
    centred = queries.numpy() - reference.numpy().mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    np.testing.assert_allclose(anomaly.mahalanobis(queries, reference, ridge=0), expected, rtol=1e-3)
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(anomaly.mahalanobis(queries @ mix, reference @ mix, ridge=0), expected, rtol=1e-2)
    # a column that never moves does not make everything infinitely strange
    still = torch.zeros(300, 1)
    assert anomaly.mahalanobis(torch.full((1, 7), 0.1), torch.cat([reference, still], 1)).isfinite().all()


def test_pca_error_is_scikit_learns(tables):
    queries, reference = tables
    pca = PCA(2).fit(reference.numpy())
    expected = ((queries.numpy() - pca.inverse_transform(pca.transform(queries.numpy()))) ** 2).sum(1)
    np.testing.assert_allclose(anomaly.pca_error(queries, reference, components=2), expected, rtol=1e-3)
    assert anomaly.pca_error(queries, reference, components=6).max() < 1e-4
    with pytest.raises(ValueError, match="components is 7"):
        anomaly.pca_error(queries, reference, components=7)


def test_tables_with_different_columns_are_refused(tables):
    queries, reference = tables
    for score in (anomaly.mahalanobis, anomaly.pca_error):
        with pytest.raises(ValueError, match="same columns"):
            score(queries[:, :5], reference)


def test_layer_features_are_those_of_the_encoder():
    torch.manual_seed(0)
    model, images = VAE(latent_dim=3).eval(), torch.rand(5, 1, 28, 28)
    features = anomaly.layer_features(model, images, batch_size=2)
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "stroke": (5, 32),
        "parts": (5, 128),
        "shape": (5, 400),
    }
    torch.testing.assert_close(features["shape"].norm(dim=1), torch.ones(5))
    with torch.no_grad():
        maps = model.conv1(images).relu()
        torch.testing.assert_close(features["stroke"], maps.mean((2, 3)))
        hidden = model.fc1(model.conv2(maps).relu().flatten(1)).relu()
    torch.testing.assert_close(features["shape"] * hidden.norm(dim=1, keepdim=True), hidden, rtol=1e-4, atol=1e-6)
    own = VAE(2, encoder=nn.Linear(4, 4), decoder=nn.Linear(2, 4))
    with pytest.raises(ValueError, match="its own encoder"):
        anomaly.layer_features(own, images)
    with pytest.raises(ValueError, match="expected"):
        anomaly.layer_features(model, images * 2)


def test_surprise_is_the_logarithm_of_a_p_value():
    normal = torch.tensor([1.0, 2.0, 2.0, 4.0])
    expected = [math.log(5 / p) for p in (5, 4, 2, 2, 1)]
    got = anomaly.surprise(torch.tensor([0.0, 2.0, 3.0, 4.0, 9.0]), normal=normal)
    assert got.tolist() == pytest.approx(expected)
    # normal images: P(surprise >= log(1/p)) = p
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(20_000, generator=generator)
    share = (anomaly.surprise(draws, normal=torch.randn(999, generator=generator)) >= math.log(10)).float().mean()
    assert share.item() == pytest.approx(0.1, abs=0.03)


def test_total_surprise_adds_up_whatever_the_units():
    normal = {"a": torch.arange(10.0), "b": torch.arange(10.0) * 100}
    scores = {"a": torch.tensor([5.5]), "b": torch.tensor([9e9])}
    assert anomaly.total_surprise(scores, normal=normal).item() == pytest.approx(math.log(11 / 5) + math.log(11))
    squared = {"a": scores["a"], "b": scores["b"] ** 2}
    same = anomaly.total_surprise(squared, normal={"a": normal["a"], "b": normal["b"] ** 2})
    assert same.item() == pytest.approx(anomaly.total_surprise(scores, normal=normal).item())
    with pytest.raises(ValueError, match="same names"):
        anomaly.total_surprise(scores, normal={"a": normal["a"]})
    with pytest.raises(ValueError, match="same names"):
        anomaly.total_surprise({}, normal={})


def test_a_threshold_keeps_its_promise_on_average():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2000, 99, generator=generator)
    rates = [0.5 * math.erfc(anomaly.threshold(row, rate=0.05) / math.sqrt(2)) for row in normal]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.002)  # 5 of 100: the fifth largest of 99
    assert anomaly.threshold(torch.arange(99.0), rate=0.05) == 94
    with pytest.raises(ValueError, match=r"at least 0\.01"):
        anomaly.threshold(torch.arange(99.0), rate=0.001)
    for rate in (0, 1, 5):
        with pytest.raises(ValueError, match="below 1"):
            anomaly.threshold(torch.arange(99.0), rate=rate)


def test_promised_alarms_hold_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    low, high = anomaly.promised_alarms(validation=200, test=400, rate=0.05, level=0.9)
    inside = 0
    for _ in range(1000):
        draws = torch.randn(600, generator=generator)
        share = (draws[200:] > anomaly.threshold(draws[:200], rate=0.05)).float().mean().item()
        inside += low - 1e-6 <= share <= high + 1e-6
    assert 0.87 < inside / 1000 < 0.95
    # more images to set it on: narrower; swapping the two numbers must show
    narrow = anomaly.promised_alarms(validation=5000, test=400, rate=0.05, level=0.9)
    assert narrow[1] - narrow[0] < high - low
    assert anomaly.promised_alarms(validation=400, test=200, rate=0.05, level=0.9) != (low, high)
    with pytest.raises(ValueError, match="test is 0"):
        anomaly.promised_alarms(validation=200, test=0, rate=0.05)


def test_the_mean_placement_is_the_auroc():
    generator = torch.Generator().manual_seed(0)
    normal, strange = (torch.randint(0, 20, (n,), generator=generator) + shift for n, shift in ((200, 0), (90, 4)))
    mean = anomaly.placements(normal=normal, strange=strange).mean().item()
    assert mean == pytest.approx(auroc(normal=normal, strange=strange))


def test_bad_scores_are_refused():
    for bad in (torch.tensor([]), torch.tensor([math.nan]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="one number an image"):
            anomaly.placements(normal=torch.zeros(2), strange=bad)
        with pytest.raises(ValueError, match="normal has shape"):
            anomaly.surprise(torch.zeros(2), normal=bad)
        with pytest.raises(ValueError, match="normal has shape"):
            anomaly.threshold(bad, rate=0.05)


def test_group_means_keep_the_order_of_first_appearance():
    means = anomaly.group_means(torch.tensor([1.0, 2.0, 3.0, 5.0]), ("b", "a", "b", "a"))
    assert means.tolist() == [2.0, 3.5]
    with pytest.raises(ValueError, match="4 values but 1 groups"):
        anomaly.group_means(torch.zeros(4), ("a",))
