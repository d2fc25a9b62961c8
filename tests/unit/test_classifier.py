"""The classifier learns what can be learnt, judges what it is given, and refuses what it cannot judge."""

import pytest
import torch

from vae_utils import classifier, settings
from vae_utils.classifier import (
    Classifier,
    accuracy,
    class_probabilities,
    fit_classifier,
    fit_or_load_classifier,
    image_features,
)


def bars(n, seed=0):
    """Faint noise with a bright bar that stands (class 0) or lies (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.rand(n, 1, 28, 28, generator=generator)
    labels = torch.randint(2, (n,), generator=generator)
    place = torch.randint(4, 24, (n,), generator=generator).tolist()
    for image, label, at in zip(images, labels.tolist(), place, strict=True):
        line = image[0, :, at : at + 2] if label == 0 else image[0, at : at + 2]
        line += 0.8
    return images, labels


@pytest.fixture(scope="module")
def trained():
    return fit_classifier(*bars(1000), epochs=3, seed=0, progress=False)


def test_it_learns_to_tell_bars_that_stand_from_bars_that_lie(trained):
    assert accuracy(trained, *bars(300, seed=1)) > 0.97


def test_accuracy_counts_the_likeliest_class(trained):
    images, _ = bars(50, seed=2)
    said = class_probabilities(trained, images).argmax(1)
    assert accuracy(trained, images, said) == 1
    assert accuracy(trained, images, 1 - said) == 0
    mixed = torch.where(torch.arange(50) < 10, 1 - said, said)
    assert accuracy(trained, images, mixed) == pytest.approx(0.8)


def test_probabilities_and_features_have_the_promised_shape_and_range(trained):
    images, _ = bars(7, seed=3)
    chances = class_probabilities(trained, images, batch_size=3)
    assert chances.shape == (7, 2)
    torch.testing.assert_close(chances.sum(1), torch.ones(7))
    features = image_features(trained, images, batch_size=3)
    assert features.shape == (7, 64) and (features >= 0).all()
    torch.testing.assert_close(trained.last(features).softmax(1), chances)


def test_the_same_seed_gives_the_same_classifier_and_leaves_other_random_numbers_alone():
    images, labels = bars(64)

    def weights(seed):
        torch.manual_seed(3)
        model = fit_classifier(images, labels, epochs=1, batch_size=32, seed=seed, progress=False)
        return model.last.weight.detach(), torch.rand(1)

    (first, after), (second, again), (other, _) = weights(0), weights(0), weights(1)
    assert torch.equal(first, second) and torch.equal(after, again)
    assert not torch.equal(first, other)


def test_a_classifier_is_trained_once_for_each_recipe_and_is_the_one_that_fit_classifier_gives(monkeypatch):
    trained = []

    def counted(*arguments, **options):
        trained.append(options)
        return fit_classifier(*arguments, **options)

    monkeypatch.setattr(classifier, "fit_classifier", counted)
    images, labels = bars(64)
    options = {"epochs": 1, "batch_size": 32, "seed": 0, "progress": False}
    torch.manual_seed(3)
    first, after = fit_or_load_classifier(images, labels, name="c", **options), torch.rand(1)
    torch.manual_seed(3)
    again, later = fit_or_load_classifier(images, labels, name="c", **options), torch.rand(1)
    direct = fit_classifier(images, labels, **options)
    assert len(trained) == 1 and torch.equal(after, later)
    for model in (first, again):
        assert not model.training
        assert torch.equal(class_probabilities(model, images), class_probabilities(direct, images))
    for other in ({"seed": 1}, {"epochs": 2}):
        fit_or_load_classifier(images, labels, name="c", **(options | other))
    fit_or_load_classifier(images, 1 - labels, name="c", **options)
    assert len(trained) == 4 and len(list(settings.cache_dir().glob("c-*.safetensors"))) == 4


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 28, 28), torch.zeros(4, dtype=torch.long), "unsqueeze"),
        (torch.full((4, 1, 28, 28), 255.0), torch.zeros(4, dtype=torch.long), "Divide bytes by 255"),
        (torch.zeros(4, 1, 28, 28), torch.zeros(3, dtype=torch.long), r"labels has shape \(3,\)"),
        (torch.zeros(4, 1, 28, 28), torch.zeros(4), "whole numbers"),
        (torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, -1, 2]), "labels go down to -1"),
        (torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.long), "2 images or more"),
    ],
)
def test_bad_training_data_are_refused_in_words(images, labels, words):
    with pytest.raises(ValueError, match=words):
        fit_classifier(images, labels, progress=False)
    with pytest.raises(ValueError, match=words):
        fit_or_load_classifier(images, labels, name="bad")


def test_a_wrong_number_of_labels_or_classes_is_refused(trained):
    images, labels = bars(5)
    with pytest.raises(ValueError, match=r"labels has shape \(4,\); expected \(5,\)"):
        accuracy(trained, images, labels[:4])
    with pytest.raises(ValueError, match="at least 2"):
        Classifier(1)
