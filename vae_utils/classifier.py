"""What digit is this? A small convolutional network, seconds to train, that judges completed and generated digits.

It is a measuring instrument, not a subject of the series: its features also serve to compare sets of images.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import cache, settings
from vae_utils.inference import in_batches
from vae_utils.model import check_images
from vae_utils.training import Adam, History, found_or_trained, recipe_of, seeded


class Classifier(nn.Module):
    """Images `(N, 1, 28, 28)` in [0, 1] to logits `(N, classes)`: three convolutions, then one hidden layer of 64 features.

    Raises ValueError for fewer than 2 classes.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes is {classes!r}; give at least 2, such as 10 for digits.")
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2, bias=False),  # -> 24x14x14
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False),  # -> 48x7x7
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),  # -> 64x3x3
            nn.Flatten(),
            nn.Linear(64 * 9, 64),
            nn.ReLU(),
        )
        self.last = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer looks at: `(N, 64)`, never negative."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def _number_of_classes(images: Tensor, labels: Tensor) -> int:
    """How many classes `labels` speak of, at least 2. Raises what `fit_classifier` promises."""
    check_images(images)
    if labels.shape != (len(images),) or labels.is_floating_point() or len(images) < 2:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} and dtype {labels.dtype}; expected ({len(images)},) whole numbers, "
            "one an image, of 2 images or more."
        )
    if labels.min() < 0:
        raise ValueError(f"labels go down to {int(labels.min())}; expected whole numbers from 0 up.")
    return max(2, int(labels.max()) + 1)


def fit_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 2,
    batch_size: int = 128,
    peak_lr: float = 5e-3,
    seed: int | None = None,
    progress: bool = True,
) -> Classifier:
    """A classifier trained on `images` `(N, 1, 28, 28)` in [0, 1] and `labels` `(N,)`, whole numbers from 0 up.

    Adam, one-cycle learning rate. `seed` (default `settings.seed()`) fixes weights and order. Raises ValueError for images
    of another shape or range, for labels that do not go with them, and for fewer than 2 images.
    """
    classes = _number_of_classes(images, labels)
    device = settings.device()
    images, labels = images.to(device), labels.to(device)
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    with seeded(settings.seed() if seed is None else seed):
        model = Classifier(classes).to(device).train()
        optimizer = Adam(model.parameters(), lr=peak_lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=epochs * steps)
        with tqdm(total=epochs * steps, desc="classifier", disable=not progress, leave=False, unit="batch") as bar:
            for _ in range(epochs):
                for batch in torch.randperm(len(images), device=device)[: steps * batch_size].split(batch_size):
                    loss = F.cross_entropy(model(images[batch]), labels[batch])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    bar.update()
    return model.eval()


# what shapes a trained classifier besides the code of the other modules
_OWN_CODE = cache.digest(Path(__file__).read_bytes())


def fit_or_load_classifier(
    images: Tensor, labels: Tensor, *, name: str, seed: int | None = None, **options
) -> Classifier:
    """The classifier of `fit_classifier`: from the cache if exactly this was trained before, else trained now and kept.

    As `training.fit_or_load`; `name` begins the file's name, `options` are the keyword arguments of `fit_classifier`.
    """
    seed = settings.seed() if seed is None else seed
    with seeded(seed):
        model = Classifier(_number_of_classes(images, labels))
    recipe = recipe_of("classifier", options, seed, {"images": images, "labels": labels}, _OWN_CODE)

    def train(path: Path) -> History:
        model.load_state_dict(fit_classifier(images, labels, seed=seed, **options).state_dict())
        return History()

    found_or_trained(model, recipe, name, train)
    return model


def class_probabilities(model: Classifier, images: Tensor, batch_size: int = 250) -> Tensor:
    """What the classifier says of each image: probabilities `(N, classes)` that sum to 1, on the CPU.

    Raises ValueError for images of another shape or range than `(N, 1, 28, 28)` in [0, 1].
    """
    check_images(images)
    return in_batches(model, lambda x: model(x).softmax(1), images, batch_size)


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images whose most probable class is their label, in [0, 1]. Raises ValueError for a wrong number of labels."""
    if labels.shape != (len(images),):
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(images)},), one an image.")
    return float((class_probabilities(model, images).argmax(1) == labels.cpu()).float().mean())


def image_features(model: Classifier, images: Tensor, batch_size: int = 250) -> Tensor:
    """The classifier's features of each image, `(N, 64)`, on the CPU. Raises ValueError as `class_probabilities` does."""
    check_images(images)
    return in_batches(model, model.features, images, batch_size)
