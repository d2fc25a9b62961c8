"""How good is it? Scores of one image each, and how sure we are of their mean.

Arguments are named wherever swapping them would give another number, so a call says which image is the truth.
"""

import numpy as np
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor


def _check_pair(clean: Tensor, estimate: Tensor) -> None:
    if clean.shape != estimate.shape or clean.ndim != 4:
        raise ValueError(
            f"clean has shape {tuple(clean.shape)}, estimate {tuple(estimate.shape)}; both must be the same (N, 1, H, W)."
        )


def mse(*, clean: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared error of each image, `(N,)`, for images `(N, 1, H, W)`. Raises ValueError for shapes that differ."""
    _check_pair(clean, estimate)
    return (clean - estimate).square().flatten(1).mean(1)


def psnr(*, clean: Tensor, estimate: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, `(N,)`, for a peak of 1: −10·log10(MSE); infinite for equal images."""
    return -10 * torch.log10(mse(clean=clean, estimate=estimate))


def ssim(*, clean: Tensor, estimate: Tensor) -> Tensor:
    """Structural similarity of each image, `(N,)`, at most 1 (Wang et al. 2004); scikit-image's, 7×7 windows, data range 1."""
    _check_pair(clean, estimate)
    pairs = zip(clean[:, 0].cpu().numpy(), estimate[:, 0].cpu().numpy(), strict=True)
    return torch.tensor([structural_similarity(truth, guess, data_range=1.0) for truth, guess in pairs])


def missing_mse(*, clean: Tensor, estimate: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error of each image over its missing pixels alone, `(N,)`; NaN where nothing is missing.

    `observed` is bool `(N, 1, H, W)`. The usual RMSE over missing pixels is the root of the mean when all images miss as many.
    """
    _check_pair(clean, estimate)
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
    result = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=resamples,
        batch=50,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
