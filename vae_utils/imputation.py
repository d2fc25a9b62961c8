"""The conditional Gaussian of many images at once; notebook 06 shows the same for one image in eight lines."""

from typing import NamedTuple

import torch
from torch import Tensor


class Filled(NamedTuple):
    """Completed images; what was observed comes back bit for bit."""

    images: Tensor  # (N, 1, H, W): the conditional mean, not clipped
    std: Tensor | None  # (N, 1, H, W): standard deviation of missing pixels, 0 where observed; None unless asked for
    samples: Tensor | None  # (S, N, 1, H, W): draws from the conditional Gaussian; None unless asked for
    evidence: Tensor  # (N,): log density of the observed pixels in nats, without the constant -½ log 2π of each


@torch.no_grad()
def condition(
    images: Tensor,
    observed: Tensor,
    *,
    mean: Tensor | float,
    covariance: Tensor,
    std: bool = False,
    samples: int = 0,
    generator: torch.Generator | None = None,
) -> Filled:
    """Fill gaps with the conditional mean of a Gaussian given the observed pixels (Bishop 2006, equations 2.81 and 2.82).

    Args:
        images: `(N, 1, H, W)`; the values of missing pixels are not looked at.
        observed: bool, the shape of `images`, True where a pixel was seen.
        mean: broadcasts to `images`; covariance: `(H * W, H * W)`, positive definite.
        std: also give the standard deviation of each missing pixel.
        samples: also give so many draws, from `generator`.

    Images with the same mask share their linear system. Raises torch.linalg.LinAlgError for a covariance that is none.
    """
    mean = torch.as_tensor(mean, dtype=images.dtype).expand_as(images).flatten(1)
    surprise = images.flatten(1) - mean
    filled, deviation = images.flatten(1).clone(), torch.zeros_like(mean)
    draws, evidence = filled.expand(samples, -1, -1).clone(), torch.zeros(len(images))
    masks, which = observed.flatten(1).unique(dim=0, return_inverse=True)
    for number, mask in enumerate(masks):
        rows = (which == number).nonzero()  # (n, 1), so that it broadcasts against columns
        seen, gap = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        factor = torch.linalg.cholesky(covariance[seen[:, None], seen])
        cross = covariance[seen[:, None], gap]
        white = torch.linalg.solve_triangular(factor, surprise[rows, seen].T, upper=False)
        weights = torch.linalg.solve_triangular(factor.T, white, upper=True)
        filled[rows, gap] = mean[rows, gap] + weights.T @ cross
        evidence[rows[:, 0]] = -0.5 * white.square().sum(0) - factor.diagonal().log().sum()
        if std or samples:  # what of the missing pixels' covariance the seen ones explain, as `across.T @ across`
            across = torch.linalg.solve_triangular(factor, cross, upper=False)
        if std:
            left = covariance.diagonal()[gap] - across.square().sum(0)
            deviation[rows, gap] = left.clamp_min(0).sqrt().expand(len(rows), -1)
        if samples:
            left = torch.linalg.cholesky(covariance[gap[:, None], gap] - across.T @ across)
            noise = torch.randn(samples, len(rows), len(gap), generator=generator)
            draws[:, rows, gap] = filled[rows, gap] + noise @ left.T
    return Filled(
        filled.view_as(images),
        deviation.view_as(images) if std else None,
        draws.view(samples, *images.shape) if samples else None,
        evidence,
    )
