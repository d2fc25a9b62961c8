"""Metrics: scores of one image each, how sure we are of their mean, nearest neighbours, and the AUROC.

Arguments are named wherever swapping them would give another number, so a call says which image is the truth.
"""

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor


def mse(*, clean: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared error of each image, `(N,)`, for images `(N, 1, H, W)`. Raises ValueError for shapes that differ."""
    if clean.shape != estimate.shape:  # broadcasting would hide it
        raise ValueError(f"clean has shape {tuple(clean.shape)}, estimate {tuple(estimate.shape)}; give equal shapes.")
    return (clean - estimate).square().flatten(1).mean(1)


def psnr(*, clean: Tensor, estimate: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, `(N,)`, for a peak of 1: −10·log10(MSE); infinite for equal images."""
    return -10 * torch.log10(mse(clean=clean, estimate=estimate))


def missing_mse(*, clean: Tensor, estimate: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error of each image over its missing pixels alone, `(N,)`; NaN where nothing is missing.

    `observed` is bool `(N, 1, H, W)`. The usual RMSE over missing pixels is the root of the mean when all images miss as many.
    """
    missing = ~observed.expand_as(clean)
    errors = ((clean - estimate).square() * missing).flatten(1).sum(1)
    return errors / missing.flatten(1).sum(1)


def bootstrap_interval(
    values: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` `(N,)` over images (scipy's).

    For a difference between two methods, give the differences image by image: both met the same images.
    Raises ValueError for fewer than 2 values or any that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError(f"values have shape {array.shape}; expected at least 2 finite numbers in one row.")
    settings = {"n_resamples": resamples, "batch": 50, "confidence_level": level, "method": "percentile"}
    result = stats.bootstrap((array,), np.mean, random_state=np.random.default_rng(seed), **settings)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def nearest(queries: Tensor, reference: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Euclidean distances from each row of `queries` `(N, D)` to the `k` nearest rows of `reference` `(M, D)`, ascending, and
    the numbers of these rows: both `(N, k)`. Raises RuntimeError for `k` above M or different columns."""
    squares = torch.linalg.vector_norm(reference, dim=1).square()  # without a second table of squares
    distances, which = [], []
    for batch in queries.split(200):
        # |a - b|² less |a|², which is the same for all b: one matrix product, and no difference is stored
        found = torch.addmm(squares[None], batch, reference.T, alpha=-2).topk(k, largest=False).indices
        # the product rounds; the few that count are measured again
        exact = (batch[:, None] - reference[found]).norm(dim=2)
        distance, order = exact.sort(dim=1, stable=True)
        distances.append(distance)
        which.append(found.gather(1, order))
    return torch.cat(distances), torch.cat(which)


def auroc(*, normal: Tensor, strange: Tensor) -> float:
    """The probability that a strange image scores above a normal one, for scores `(N,)` and `(M,)`, ties counting half:
    1 tells them apart, 0.5 is guessing (scikit-learn's). Raises ValueError for NaN."""
    return float(roc_auc_score([0] * len(normal) + [1] * len(strange), torch.cat([normal, strange])))
