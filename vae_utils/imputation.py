"""Missing pixels: the conditional Gaussian, and a model's guess corrected by its residuals at the observed pixels.

A model that is fed pixels and mask guesses every pixel, seen or missing. Where a pixel was seen, the residual (truth minus
guess) is known, and residuals are alike across an image: a stroke drawn one pixel too far left is so along its whole length.
`Imputer` describes the residuals by a Gaussian and conditions it on the seen ones, which statisticians do with maps under the
name of regression kriging; `condition` is that step alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vae_utils.corruption import Corrupted, with_mask_channel
from vae_utils.inference import decode, encode
from vae_utils.model import VAE, check_values
from vae_utils.training import seeded


class Filled(NamedTuple):
    """Completed images: pixels that were observed are those that came in, bit for bit."""

    images: Tensor  # (N, 1, H, W) in [0, 1]: the best guess, a conditional mean
    std: Tensor | None  # (N, 1, H, W): standard deviation of what is missing, 0 where observed; None unless asked for
    samples: Tensor | None  # (S, N, 1, H, W) in [0, 1]: S ways to fill the same gaps; None unless asked for


def from_nan(images: Tensor) -> Corrupted:
    """Images `(N, 1, H, W)` whose missing pixels are marked by NaN, as images with 0 there and the mask of what is observed."""
    observed = ~images.isnan()
    corrupted = Corrupted(images.nan_to_num(0.0), observed)
    _check(*corrupted)
    return corrupted


def _check(images: Tensor, observed: Tensor) -> None:
    if observed.dtype != torch.bool or observed.shape != images.shape:
        given, expected = f"{observed.dtype} {tuple(observed.shape)}", f"bool {tuple(images.shape)}"
        raise ValueError(f"observed is {given}; expected {expected}, True where a pixel was seen: mask > 0.5.")
    check_values(images)


def condition(
    images: Tensor,
    observed: Tensor,
    *,
    mean: Tensor,
    covariance: Tensor,
    scale: Tensor | None = None,
    spread: Tensor | None = None,
    noise: float = 0.01,
    std: bool = False,
    samples: int = 0,
    seed: int = 0,
    batch_size: int = 4,
) -> Filled:
    """Fill gaps with the conditional mean of a Gaussian given the observed pixels (Bishop 2006, eq. 2.96), clipped to [0, 1].

    With D = H·W, the Gaussian of image n has `mean[n]` and the covariance
    `diag(scale[n]) @ covariance @ diag(scale[n]) + spread[n].T @ spread[n] + noise² I`.

    Args:
        images: `(N, 1, H, W)` in [0, 1]; the values of missing pixels are not looked at.
        observed: bool, the shape of `images`, True where a pixel was seen.
        mean: `(D,)`, or `(N, D)` for one per image.
        covariance: `(D, D)`, symmetric and without negative eigenvalues (but for what `noise` outweighs).
        scale: `(N, D)`, default 1; spread: `(N, K, D)`, default none: what this image alone is unsure of.
        noise: in grey values, above 0; keeps the linear systems solvable.
        std: also give the standard deviation of each missing pixel (before clipping).
        samples: also give so many draws from the conditional Gaussian, clipped; they depend on `seed`.
        batch_size: images solved at once; each takes about 10 MB.

    Raises ValueError for images outside [0, 1] or with NaN (see `from_nan`), for a mask that is not bool or of another
    shape, and for a covariance that is none.
    """
    _check(images, observed)
    n, pixels = images.flatten(1).shape
    mean = mean.expand(n, pixels)
    scale = torch.ones(n, pixels) if scale is None else scale
    spread = torch.zeros(n, 0, pixels) if spread is None else spread
    root = _root(covariance) if samples else None
    parts = []
    with seeded(seed):
        for rows in torch.arange(n).split(batch_size):
            gaussian = _Gaussians(covariance, scale[rows], spread[rows], noise)
            free = gaussian.sample(samples, root) if samples else None
            parts.append(_solve(images[rows].flatten(1), observed[rows].flatten(1), mean[rows], gaussian, std, free))
    guesses, deviations, draws = zip(*parts, strict=True)

    def keep(values: Tensor) -> Tensor:
        return torch.where(observed, images, values.view(*values.shape[:-1], *images.shape[1:]).clamp(0, 1))

    return Filled(
        keep(torch.cat(guesses)),
        torch.cat(deviations).view_as(images) if std else None,
        keep(torch.cat(draws, dim=1)) if samples else None,
    )


def _root(covariance: Tensor) -> Tensor:
    """`R` with `R.T @ R` = covariance, negative eigenvalues taken for 0."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp_min(0).sqrt()).mT.to(covariance.dtype)


@dataclass(frozen=True)
class _Gaussians:
    """The covariances of a few images, never written out: `diag(scale) C diag(scale) + spread.T spread + noise² I`."""

    covariance: Tensor  # (D, D)
    scale: Tensor  # (n, D)
    spread: Tensor  # (n, K, D)
    noise: float

    def block(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The rows `rows` `(n, k)` and columns `columns` `(n, m)` of each, without the noise on the diagonal: `(n, k, m)`."""
        out = self.covariance[rows[:, :, None], columns[:, None, :]]
        out.mul_(self.scale.gather(1, rows)[:, :, None]).mul_(self.scale.gather(1, columns)[:, None, :])
        return out.baddbmm_(self._spread_at(rows).mT, self._spread_at(columns))

    def times(self, vectors: Tensor) -> Tensor:
        """Each covariance times its own vectors `(n, m, D)`, again `(n, m, D)`."""
        scale = self.scale[:, None, :]
        out = ((vectors * scale) @ self.covariance).mul_(scale)
        return out.add_(vectors @ self.spread.mT @ self.spread).add_(vectors, alpha=self.noise**2)

    def _spread_at(self, columns: Tensor) -> Tensor:
        return self.spread.gather(2, columns[:, None, :].expand(-1, self.spread.shape[1], -1))

    def variances(self) -> Tensor:
        """The diagonals, `(n, D)`."""
        return self.covariance.diagonal() * self.scale**2 + self.spread.square().sum(1) + self.noise**2

    def sample(self, samples: int, root: Tensor) -> Tensor:
        """Draws `(samples, n, D)`; `root` as from `_root(covariance)`."""
        n, k, pixels = self.spread.shape
        out = (torch.randn(samples, n, pixels) @ root) * self.scale + self.noise * torch.randn(samples, n, pixels)
        return out + torch.einsum("snk,nkp->snp", torch.randn(samples, n, k), self.spread)


def _solve(
    x: Tensor, seen: Tensor, mean: Tensor, gaussian: _Gaussians, std: bool, free: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Conditional mean `(n, D)`, standard deviation, and draws `(S, n, D)` made from the unconditional draws `free`."""
    count = max(1, int(seen.sum(1).max()))  # images that see less are filled up with pixels that know nothing
    order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
    columns = order[:, :count]
    known = seen.gather(1, columns).to(x.dtype)
    gram = gaussian.block(columns, columns).mul_(known[:, :, None]).mul_(known[:, None, :])
    gram.diagonal(dim1=1, dim2=2).add_(gaussian.noise**2 * known + (1 - known))
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        raise ValueError("covariance has negative eigenvalues; give a covariance, or more noise than they are large.")
    residuals = ((x - mean) * seen)[:, None]
    if free is not None:
        # Matheron's rule: what a draw gets wrong at the seen pixels is put right like any other residual
        residuals = torch.cat([residuals, residuals - free.transpose(0, 1) * seen[:, None]], dim=1)
    places = columns[:, None, :].expand(-1, residuals.shape[1], -1)
    solved = torch.cholesky_solve(residuals.gather(2, places).mT, factor).mT  # 0 where nothing is known
    correction = gaussian.times(torch.zeros_like(residuals).scatter_(2, places, solved))
    guess = mean + correction[:, 0]
    draws = None if free is None else mean + free + correction[:, 1:].transpose(0, 1)
    deviation = None
    if std:
        missing = order[:, int(seen.sum(1).min()) :]  # of all images, and a few seen ones where an image misses less
        cross = gaussian.block(columns, missing).mul_(known[:, :, None])
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(1)
        explained = torch.zeros_like(x).scatter_(1, missing, explained)
        deviation = (gaussian.variances() - explained).clamp_min(0).sqrt() * ~seen
    return guess, deviation, draws


# Guesses are grouped by grey value: finely near black and near white, where a sure guess is hardly ever wrong.
_EDGES = torch.cat([torch.logspace(-4, -1.3, 12), torch.linspace(0.1, 0.9, 17), 1 - torch.logspace(-1.3, -4, 12)])


@dataclass(frozen=True)
class Residuals:
    """Truth minus guess, as a Gaussian of covariance `diag(s) @ correlation @ diag(s)` with s = `size(guess)`."""

    sizes: Tensor  # (groups of grey values,): the typical (root mean square) residual of a guess of that grey
    correlation: Tensor  # (D, D): mean product of two pixels' residuals, each divided by its size

    def size(self, guess: Tensor) -> Tensor:
        """The typical residual of each guessed pixel, the shape of `guess`, in grey values."""
        return self.sizes[torch.bucketize(guess.contiguous(), _EDGES)]


def learn_residuals(*, truth: Tensor, guess: Tensor, known: Tensor | None = None) -> Residuals:
    """Describe what `guess` gets wrong about `truth`, both `(N, 1, H, W)`, on images like those to be filled.

    `known`: bool, the shape of `truth`; where it is False the truth is not known either (training on incomplete images).
    Raises ValueError for NaN.
    """
    check_values(truth, unit_interval=False)  # the Gaussian model of a table leaves [0, 1]
    check_values(guess, unit_interval=False)
    sums = torch.zeros(2, len(_EDGES) + 1, dtype=torch.float64)  # of squared residuals, and of pixels, by grey value
    for residual, grey, counted in _batches(truth, guess, known):
        group = torch.bucketize(grey.contiguous(), _EDGES).flatten()
        for total, weights in zip(sums, (residual.square(), counted), strict=True):
            total += torch.bincount(group, weights=weights.flatten().double(), minlength=len(total))
    sizes = ((sums[0] + 1e-6) / (sums[1] + 1)).sqrt().to(truth.dtype)
    scaled = Residuals(sizes, torch.empty(0))
    products, pairs = torch.zeros(2, truth[0].numel(), truth[0].numel())
    for residual, grey, counted in _batches(truth, guess, known):
        unit = residual / scaled.size(grey)
        products += unit.T @ unit
        if known is not None:
            pairs += counted.T @ counted
    if known is None:
        return Residuals(sizes, products / len(truth))
    # Each pair of pixels has been seen together in images of its own, so that the products need not fit together.
    root = _root(products / pairs.clamp_min(1))
    return Residuals(sizes, root.T @ root)


def _batches(truth: Tensor, guess: Tensor, known: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Residuals (0 where the truth is not known), guesses, and 1 where they count, `(n, D)`: few images at a time."""
    for rows in torch.arange(len(truth)).split(2000):
        counted = torch.ones_like(guess[rows]) if known is None else known[rows].to(guess.dtype)
        residual = torch.where(counted > 0, truth[rows] - guess[rows], 0)
        yield residual.flatten(1), guess[rows].flatten(1), counted.flatten(1)


def guess(model: VAE, images: Tensor, observed: Tensor) -> Tensor:
    """The model's own output `(N, 1, H, W)` for all pixels, from the code's mean; missing pixels are not looked at.

    `model` takes pixels and mask (`in_channels=2`). Raises ValueError as `condition` does.
    """
    _check(images, observed)
    return decode(model, encode(model, with_mask_channel(Corrupted(images * observed, observed)))[0])


@dataclass(frozen=True)
class Imputer:
    """Fills gaps with a model's guess, corrected by the residuals at the observed pixels.

    What is missing has the Gaussian of `condition`: `residuals` around the guess, plus the uncertainty of the code itself.
    For the latter each latent dimension is perturbed by its own standard deviation, to see which pixels move together. A
    model trained with `beta` has a q(z|x) whose variance is about `beta` times the posterior's (its likelihood counts 1/beta
    times), which the perturbations make up for.
    """

    model: VAE
    residuals: Residuals
    beta: float = 1.0

    @classmethod
    def learn(
        cls,
        model: VAE,
        images: Tensor,
        holes: Callable[[Tensor, torch.Generator], Corrupted],
        *,
        beta: float = 1.0,
        known: Tensor | None = None,
        seed: int = 0,
    ) -> "Imputer":
        """The imputer for gaps like those that `holes` makes, learning the residuals from `images` with such gaps.

        Args: beta: what the model was trained with; known: bool, which pixels of `images` are known at all (default: all).
        """
        generator, guesses = torch.Generator().manual_seed(seed), torch.empty_like(images)
        for rows in torch.arange(len(images)).split(2000):
            observed = holes(images[rows], generator).observed
            guesses[rows] = guess(model, images[rows], observed if known is None else observed & known[rows])
        return cls(model, learn_residuals(truth=images, guess=guesses, known=known), beta)

    def fill(self, images: Tensor, observed: Tensor, *, std: bool = False, samples: int = 0, seed: int = 0) -> Filled:
        """Complete `images`; arguments, results and errors as for `condition`. Without any observed pixel: the guess."""
        _check(images, observed)
        parts = []
        for number, (x, mask) in enumerate(zip(images.split(100), observed.split(100), strict=True)):
            mu, logvar = encode(self.model, with_mask_channel(Corrupted(x * mask, mask)))
            # (n, latent_dim, latent_dim): for each latent dimension a perturbation that leaves the others alone
            perturbations = torch.diag_embed((0.5 * logvar).exp() / self.beta**0.5)
            middle = decode(self.model, mu).flatten(1)
            moved = decode(self.model, (mu[:, None] + perturbations).flatten(0, 1)).view(*mu.shape, -1)
            gaussian = {"mean": middle, "covariance": self.residuals.correlation, "scale": self.residuals.size(middle)}
            gaussian["spread"] = moved - middle[:, None]
            parts.append(condition(x, mask, std=std, samples=samples, seed=seed + number, **gaussian))
        filled, deviations, draws = zip(*parts, strict=True)
        return Filled(
            torch.cat(filled), torch.cat(deviations) if std else None, torch.cat(draws, dim=1) if samples else None
        )
