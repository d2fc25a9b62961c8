"""A digit classifier: a measuring instrument that judges completed and generated digits, not a subject of the series."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_utils import settings
from vae_utils.cache import fit_or_load
from vae_utils.data import ImageData
from vae_utils.inference import in_batches
from vae_utils.model import check_values
from vae_utils.training import History, pace, seeded


class Classifier(nn.Module):
    """Images `(N, 1, 28, 28)` in [0, 1] to logits `(N, classes)`: three convolutions, then 64 features, then the logits."""

    def __init__(self, classes: int = 10):
        super().__init__()
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
        """What the last layer takes: `(N, 64)`, never negative."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def fit_classifier(
    model: Classifier,
    images: Tensor,
    *,
    labels: Tensor,
    epochs: int = 2,
    batch_size: int = 128,
    peak_lr: float = 5e-3,
    seed: int | None = None,
    progress: bool = True,
    label: str = "classifier",
) -> History:
    """Train `model` in place on `images` `(N, 1, 28, 28)` in [0, 1] and `labels` `(N,)`, class numbers from 0 up.

    Adam, one-cycle learning rate; `seed` (default `settings.seed()`) orders the images. `loss` in the history is the
    cross-entropy in nats per image. Raises ValueError for images outside [0, 1], or another number of labels.
    """
    check_values(images)
    if labels.shape != (len(images),):
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(images)},), one per image.")
    device, history = settings.device(), History()
    model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = torch.optim.Adam(model.parameters(), lr=peak_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=epochs * steps)
    with seeded(settings.seed() if seed is None else seed):
        for epoch in range(1, epochs + 1):
            losses = []
            batches = torch.randperm(len(images), device=device)[: steps * batch_size].split(batch_size)
            for batch in tqdm(batches, f"{label}, epoch {epoch}", disable=not progress, leave=False, unit="batch"):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())  # reading a number makes an accelerator wait
            history.steps += torch.stack(losses).tolist()
            history.epochs.append({"epoch": epoch, "loss": sum(history.steps[-steps:]) / steps})
    model.eval()
    return history


def digit_classifier(data: ImageData) -> Classifier:
    """The classifier of the series, trained on all training images of `data` or taken from the cache."""
    options = {"labels": data.train_labels, **pace(data.train_images, 2)}
    return fit_or_load(Classifier, data.train_images, name="classifier", train=fit_classifier, **options)[0]


def class_probabilities(model: Classifier, images: Tensor) -> Tensor:
    """Class probabilities `(N, classes)` of images `(N, 1, 28, 28)` in [0, 1], on the CPU."""
    return in_batches(model, lambda x: model(x).softmax(1), images, 250)


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images whose most probable class is their label, in [0, 1]."""
    return (class_probabilities(model, images).argmax(1) == labels.cpu()).float().mean().item()


def image_features(model: Classifier, images: Tensor) -> Tensor:
    """The classifier's features of each image, `(N, 64)`, on the CPU."""
    return in_batches(model, model.features, images, 250)
