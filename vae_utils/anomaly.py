"""How strange is this image? Scores, thresholds at a stated false-alarm rate, detection rates.

A score is one number an image, larger for stranger. Nothing here sees a label or a strange image before it is judged:
scores are made from training images, brought to a common scale and cut by normal validation images.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import betabinom
from torch import Tensor

from vae_utils.inference import in_batches
from vae_utils.metrics import nearest
from vae_utils.model import VAE


def _row(values: Tensor, name: str) -> Tensor:
    row = torch.as_tensor(values)
    if row.ndim != 1 or len(row) == 0 or bool(row.isnan().any()):
        raise ValueError(f"{name} has shape {tuple(row.shape)}; expected one number an image, (N,), without NaN.")
    return row.double()


def _same_columns(queries: Tensor, reference: Tensor) -> None:
    if queries.ndim != 2 or reference.ndim != 2 or queries.shape[1] != reference.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and reference {tuple(reference.shape)} must be two tables with the same "
            "columns; flatten images with images.flatten(1)."
        )


def neighbour_distance(queries: Tensor, reference: Tensor, k: int = 5) -> Tensor:
    """Mean Euclidean distance of each row of `queries` `(N, D)` to its `k` nearest rows of `reference` `(M, D)`: `(N,)`."""
    return nearest(queries, reference, k)[0].mean(1)


def mahalanobis(queries: Tensor, reference: Tensor, ridge: float = 1e-3) -> Tensor:
    """Distance `(N,)` of each row of `queries` `(N, D)` from the mean of `reference` `(M, D)`, in standard deviations of
    `reference` along each principal direction. `ridge` times the mean variance is added to each, so that a direction in
    which `reference` hardly moves does not decide alone. Raises ValueError for tables with different columns."""
    _same_columns(queries, reference)
    mean = reference.double().mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((reference.double() - mean).T).reshape(len(mean), len(mean)))
    scale = variances.clamp(min=0) + ridge * variances.mean()
    return (((queries.double() - mean) @ directions).square() / scale).sum(1).sqrt()


def pca_error(queries: Tensor, reference: Tensor, components: int = 40) -> Tensor:
    """Squared error `(N,)` of each row of `queries` `(N, D)` after projection on the first principal components of
    `reference` `(M, D)`. Raises ValueError for tables with different columns or a number of components outside 1...D."""
    _same_columns(queries, reference)
    if not 1 <= components <= reference.shape[1]:
        raise ValueError(f"components is {components!r}; give a whole number from 1 to {reference.shape[1]}.")
    mean = reference.mean(0)
    centred = reference - mean
    # double: in single precision the many pixels that never change leave too many equal eigenvalues
    directions = torch.linalg.eigh((centred.T @ centred).double())[1][:, -components:].to(queries.dtype)
    centred = queries - mean
    return (centred - centred @ directions @ directions.T).square().sum(1)


def layer_features(model: VAE, images: Tensor, batch_size: int = 250) -> dict[str, Tensor]:
    """What the convolutional encoder sees in each image at three depths, nothing trained on top.

    "stroke" `(N, 32)`: each map of `conv1`, averaged over the image: how strokes run, not where.
    "parts" `(N, 128)`: mean and standard deviation of each map of `conv2`: which parts occur, and how concentrated.
    "shape" `(N, 400)`: the output of `fc1` scaled to length 1: what the code is read from, whatever the amount of ink.

    Raises ValueError for a model with an encoder of its own, which has no such layers.
    """
    if model.encoder is not None:
        raise ValueError("The model has its own encoder; layer_features reads conv1, conv2 and fc1 of the series' VAE.")

    def of_batch(x: Tensor) -> Tensor:
        model.check_input(x)
        first = F.relu(model.conv1(x))
        second = F.relu(model.conv2(first))
        shape = F.normalize(F.relu(model.fc1(second.flatten(1))), dim=1)
        return torch.cat([first.mean((2, 3)), second.mean((2, 3)), second.std((2, 3)), shape], dim=1)

    stroke, parts, shape = in_batches(model, of_batch, images, batch_size).split([32, 128, 400], dim=1)
    return {"stroke": stroke, "parts": parts, "shape": shape}


def surprise(scores: Tensor, *, normal: Tensor) -> Tensor:
    """−log of the share of `normal` scores `(M,)` at least as large, in nats, `(N,)`: how rarely a normal image scores so.

    (1 + number of normal scores ≥ s) / (1 + M) is a valid p-value when s is normal too; it never reaches 0, so the
    surprise ends at log(1 + M). Raises ValueError for anything but one number an image.
    """
    rank = torch.searchsorted(_row(normal, "normal").sort().values, _row(scores, "scores"), right=False)
    return -torch.log((1 + len(normal) - rank).double() / (1 + len(normal)))


def total_surprise(scores: Mapping[str, Tensor], *, normal: Mapping[str, Tensor]) -> Tensor:
    """Fisher's way (1925) of combining tests: the sum of each score's `surprise`, `(N,)`, in nats.

    The sum is a score, not a p-value: that would need independent scores. Set its threshold on validation images.
    Raises ValueError unless both name the same scores.
    """
    if not scores or set(scores) != set(normal):
        raise ValueError(f"scores are {sorted(scores)}, normal {sorted(normal)}; give the same names in both.")
    return torch.stack([surprise(values, normal=normal[name]) for name, values in scores.items()]).sum(0)


def _rank_for(count: int, rate: float) -> int:
    rank = math.floor(rate * (count + 1) + 1e-9) if 0 < rate < 1 else 0
    if rank < 1:
        raise ValueError(
            f"A false-alarm rate of {rate!r} cannot be had from {count} validation images; it must be below 1 and at "
            f"least {1 / (count + 1):.2g}, which is one image more than there are."
        )
    return rank


def threshold(normal: Tensor, *, rate: float) -> float:
    """The score above which an image is flagged, so that normal images are flagged at most at `rate` on average.

    normal: scores `(M,)` of normal validation images. It is their m-th largest, m = rate·(M + 1) rounded down, which keeps
    the promise exactly for images like them. Raises ValueError for a rate too small for so few images.
    """
    row = _row(normal, "normal")
    return row.sort(descending=True).values[_rank_for(len(row), rate) - 1].item()


def promised_alarms(*, validation: int, test: int, rate: float, level: float = 0.95) -> tuple[float, float]:
    """Between which two rates the alarms on `test` normal images lie with probability `level`, the threshold having been
    set on `validation` images.

    Two things are random: where the threshold fell, Beta(m, validation − m + 1), and who of the test images exceeds it. Together:
    beta-binomial (Wilks 1941, on tolerance limits). Wider than the binomial interval, which takes the threshold for exact.
    """
    if test < 1:
        raise ValueError(f"test is {test!r}; give the number of test images, at least 1.")
    rank = _rank_for(validation, rate)
    low, high = betabinom(test, rank, validation - rank + 1).interval(level)
    return float(low) / test, float(high) / test


def placements(*, normal: Tensor, strange: Tensor) -> Tensor:
    """For each strange score `(N,)` the share of `normal` scores `(M,)` below it, ties counting half: `(N,)`, 0 to 1.

    Their mean is the AUROC (they are the placement values of DeLong et al. 1988), so an interval for the AUROC, or for the
    difference of two on the same images, is an interval of a mean: `metrics.bootstrap_interval`.
    """
    ordered, values = _row(normal, "normal").sort().values, _row(strange, "strange")
    below = torch.searchsorted(ordered, values, right=False)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above) / (2 * len(ordered))


def group_means(values: Tensor, groups: tuple[str, ...]) -> Tensor:
    """The mean of `values` `(N,)` within each group, in the order of first appearance: `(number of groups,)`.

    Seven drawings of one letter are not seven independent witnesses: intervals are taken over these means.
    """
    row = _row(values, "values")
    if len(groups) != len(row):
        raise ValueError(f"There are {len(row)} values but {len(groups)} groups; give each value its group.")
    members = np.array(groups)
    return torch.stack([row[torch.from_numpy(members == group)].mean() for group in dict.fromkeys(groups)])
