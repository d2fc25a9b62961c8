"""The classifier reads real digits, the same one for the same seed, from the cache the second time."""

import pytest
import torch

from vae_utils import classifier, settings
from vae_utils.classifier import Classifier, accuracy, class_probabilities, digit_classifier, fit_classifier
from vae_utils.data import load


@pytest.fixture(scope="module")
def data():
    return load("digits")


def test_the_series_classifier_reads_digits_and_is_kept(data):
    model = digit_classifier(data)
    assert accuracy(model, data.test_images, data.test_labels) > 0.95
    probabilities = class_probabilities(model, data.test_images[:20])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(20))
    features = classifier.image_features(model, data.test_images[:20])
    assert features.shape == (20, 64) and features.min() >= 0
    (file,) = settings.cache_dir().iterdir()
    before = file.stat().st_mtime_ns
    again = digit_classifier(data)
    assert file.stat().st_mtime_ns == before
    assert torch.equal(class_probabilities(again, data.test_images[:20]), probabilities)


def test_the_same_seed_gives_the_same_weights(data):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = Classifier()
        history = fit_classifier(
            model, data.train_images[:256], labels=data.train_labels[:256], epochs=1, seed=seed, progress=False
        )
        states.append(model.last.weight.detach().clone())
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert len(history.steps) == 2 and history.epochs[0]["loss"] == pytest.approx(sum(history.steps) / 2)


def test_images_and_labels_that_do_not_fit_are_refused(data):
    with pytest.raises(ValueError, match="255"):
        fit_classifier(Classifier(), 255 * data.train_images[:9], labels=data.train_labels[:9])
    with pytest.raises(ValueError, match=r"\(8,\)"):
        fit_classifier(Classifier(), data.train_images[:9], labels=data.train_labels[:8])
