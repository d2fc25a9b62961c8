"""What belongs in the gaps, and how sure are we?

A model that is fed pixels and mask guesses every pixel, seen or missing. Where a pixel was seen, the error of the guess is
known, and errors are alike across an image: a stroke drawn one pixel too far left is so along its whole length. So what
went wrong where we look says what went wrong where we cannot. `Imputer` describes the errors by a Gaussian and conditions
it on the seen ones (statisticians call the same step for maps "regression kriging"); `condition` is that step alone.
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
    """Images `(N, 1, H, W)` whose missing pixels are marked by NaN, as images with 0 there and the mask of what is observed.

    Raises ValueError as `check_holes` does for the pixels that are not NaN.
    """
    observed = ~images.isnan()
    corrupted = Corrupted(images.nan_to_num(0.0), observed)
    check_holes(*corrupted)
    return corrupted


def check_holes(images: Tensor, observed: Tensor) -> None:
    """Raises ValueError unless `images` is a float tensor `(N, 1, H, W)` in [0, 1] and `observed` a bool one of its shape."""
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected (N, 1, H, W).")
    if observed.shape != images.shape:
        raise ValueError(
            f"observed has shape {tuple(observed.shape)}; expected one truth value a pixel, {tuple(images.shape)}."
        )
    if observed.dtype != torch.bool:
        raise ValueError(
            f"observed has dtype {observed.dtype}; expected bool, True where a pixel was seen: mask > 0.5."
        )
    if images.isnan().any():
        raise ValueError("images holds NaN; mark missing pixels with `from_nan(images)`, which gives images and mask.")
    check_values(images, name="images")


# --- the conditional Gaussian -----------------------------------------------------------------------------------------


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
        images, observed: as in `check_holes`; the values of missing pixels are not looked at.
        mean: `(D,)`, or `(N, D)` for one an image.
        covariance: `(D, D)`, symmetric and without negative eigenvalues (but for what `noise` outweighs).
        scale: `(N, D)`, default 1.
        spread: `(N, K, D)`, default none: directions in which an image of its own is uncertain.
        noise: in grey values, above 0; keeps the linear systems solvable.
        std: also give the standard deviation of each missing pixel (before clipping).
        samples: also give so many draws from the conditional Gaussian, clipped (by Matheron's rule; depends on `seed`).
        batch_size: images solved at once; each takes about 10 MB.

    Raises ValueError for inputs of other shapes or ranges, and for a covariance that is none.
    """
    check_holes(images, observed)
    n, pixels = len(images), images.shape[2] * images.shape[3]
    if covariance.shape != (pixels, pixels):
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}; expected {(pixels, pixels)}, one row a pixel."
        )
    if mean.shape not in ((pixels,), (n, pixels)):
        raise ValueError(f"mean has shape {tuple(mean.shape)}; expected {(pixels,)} or {(n, pixels)}.")
    if not noise > 0:
        raise ValueError(f"noise is {noise!r}; give a grey value above 0, such as 0.01.")
    if n == 0:
        empty = images.clone()
        return Filled(empty, empty if std else None, empty.expand(samples, *images.shape) if samples else None)
    mean = mean.expand(n, pixels)
    scale = torch.ones(n, pixels) if scale is None else scale
    spread = torch.zeros(n, 0, pixels) if spread is None else spread
    root = _root(covariance) if samples else None
    parts = []
    with seeded(seed):
        for rows in torch.arange(n).split(batch_size):
            gaussian = _Gaussians(covariance, scale[rows], spread[rows], noise)
            errors = gaussian.sample(samples, root) if samples else None
            parts.append(_solve(images[rows].flatten(1), observed[rows].flatten(1), mean[rows], gaussian, std, errors))
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
    x: Tensor, seen: Tensor, mean: Tensor, gaussian: _Gaussians, std: bool, errors: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Conditional mean `(n, D)`, standard deviation, and draws `(S, n, D)` made from the unconditional draws `errors`."""
    count = max(1, int(seen.sum(1).max()))  # images that see less are filled up with pixels that know nothing
    order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
    columns = order[:, :count]
    known = seen.gather(1, columns).to(x.dtype)
    gram = gaussian.block(columns, columns).mul_(known[:, :, None]).mul_(known[:, None, :])
    gram.diagonal(dim1=1, dim2=2).add_(gaussian.noise**2 * known + (1 - known))
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        raise ValueError("covariance has negative eigenvalues; give a covariance, or more noise than they are large.")
    surprise = ((x - mean) * seen)[:, None]
    if errors is not None:
        # Matheron's rule: what a draw gets wrong at the seen pixels is put right like any other error
        surprise = torch.cat([surprise, surprise - errors.transpose(0, 1) * seen[:, None]], dim=1)
    places = columns[:, None, :].expand(-1, surprise.shape[1], -1)
    solved = torch.cholesky_solve(surprise.gather(2, places).mT, factor).mT  # 0 where nothing is known
    correction = gaussian.times(torch.zeros_like(surprise).scatter_(2, places, solved))
    guess = mean + correction[:, 0]
    draws = None if errors is None else mean + errors + correction[:, 1:].transpose(0, 1)
    deviation = None
    if std:
        missing = order[:, int(seen.sum(1).min()) :]  # of all images, and a few seen ones where an image misses less
        cross = gaussian.block(columns, missing).mul_(known[:, :, None])
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(1)
        explained = torch.zeros_like(x).scatter_(1, missing, explained)
        deviation = (gaussian.variances() - explained).clamp_min(0).sqrt() * ~seen
    return guess, deviation, draws


# --- the errors of a model --------------------------------------------------------------------------------------------

# Guesses are grouped by grey value: finely near black and near white, where a sure guess is hardly ever wrong.
_EDGES = torch.cat([torch.logspace(-4, -1.3, 12), torch.linspace(0.1, 0.9, 17), 1 - torch.logspace(-1.3, -4, 12)])


@dataclass(frozen=True)
class Errors:
    """How far guesses are off, and how errors go together: covariance `diag(s) @ correlation @ diag(s)`, s = `size(guess)`."""

    sizes: Tensor  # (groups of grey values,): the typical (root mean square) error of a guess of that grey
    correlation: Tensor  # (D, D): mean product of two pixels' errors, each divided by its size

    def size(self, guess: Tensor) -> Tensor:
        """The typical error of each guessed pixel, the shape of `guess`, in grey values."""
        return self.sizes[torch.bucketize(guess.contiguous(), _EDGES)]


def learn_errors(*, truth: Tensor, guess: Tensor, known: Tensor | None = None) -> Errors:
    """Describe what `guess` gets wrong about `truth`, both `(N, 1, H, W)`, on images like those to be filled.

    Args: known: bool, the shape of `truth`; where it is False the truth is not known either (training on incomplete images).
    Raises ValueError for shapes that differ or fewer than 2 images.
    """
    if truth.shape != guess.shape or len(truth) < 2:
        raise ValueError(
            f"truth is {tuple(truth.shape)}, guess {tuple(guess.shape)}; expected the same, 2 images or more."
        )
    sums = torch.zeros(2, len(_EDGES) + 1, dtype=torch.float64)  # of squared errors, and of pixels, by grey value
    for error, grey, counted in _batches(truth, guess, known):
        group = torch.bucketize(grey.contiguous(), _EDGES).flatten()
        for total, weights in zip(sums, (error.square(), counted), strict=True):
            total += torch.bincount(group, weights=weights.flatten().double(), minlength=len(total))
    sizes = ((sums[0] + 1e-6) / (sums[1] + 1)).sqrt().to(truth.dtype)
    errors = Errors(sizes, torch.empty(0))
    products, pairs = torch.zeros(2, truth[0].numel(), truth[0].numel())
    for error, grey, counted in _batches(truth, guess, known):
        unit = error / errors.size(grey)
        products += unit.T @ unit
        if known is not None:
            pairs += counted.T @ counted
    if known is None:
        return Errors(sizes, products / len(truth))
    # Each pair of pixels has been seen together in images of its own, so that the products need not fit together.
    root = _root(products / pairs.clamp_min(1))
    return Errors(sizes, root.T @ root)


def _batches(truth: Tensor, guess: Tensor, known: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Errors (0 where the truth is not known), guesses, and 1 where they count, `(n, D)`: few images at a time."""
    for rows in torch.arange(len(truth)).split(2000):
        counted = torch.ones_like(guess[rows]) if known is None else known[rows].to(guess.dtype)
        error = torch.where(counted > 0, truth[rows] - guess[rows], 0)
        yield error.flatten(1), guess[rows].flatten(1), counted.flatten(1)


# --- model and errors together ----------------------------------------------------------------------------------------


def guess(model: VAE, images: Tensor, observed: Tensor) -> Tensor:
    """The model's own output `(N, 1, H, W)` for all pixels, from the code's mean; missing pixels are not looked at.

    Raises ValueError as `check_holes` does, and for a model without a channel for the mask.
    """
    check_holes(images, observed)
    if model.in_channels != 2:
        raise ValueError(
            f"The model has in_channels={model.in_channels}; train VAE(..., in_channels=2): pixels and mask."
        )
    return decode(model, encode(model, with_mask_channel(Corrupted(images * observed, observed)))[0])


@dataclass(frozen=True)
class Imputer:
    """Fills gaps with a model's guess, put right by what the guess got wrong at the observed pixels.

    What is missing has the Gaussian of `condition`: `errors` around the guess, plus what the code itself is unsure of.
    For the latter each latent number is nudged by its own standard deviation, to see which pixels move together. A model
    trained with `beta` has a q(z|x) whose variance is about `beta` times the posterior's (its likelihood counts 1/beta
    times), which the nudges make up for.
    """

    model: VAE
    errors: Errors
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
        """The imputer for gaps like those that `holes` makes, learning the errors from `images` with such gaps.

        Args: beta: what the model was trained with; known: bool, which pixels of `images` are known at all (default: all).
        """
        generator, guesses = torch.Generator().manual_seed(seed), torch.empty_like(images)
        for rows in torch.arange(len(images)).split(2000):
            observed = holes(images[rows], generator).observed
            guesses[rows] = guess(model, images[rows], observed if known is None else observed & known[rows])
        return cls(model, learn_errors(truth=images, guess=guesses, known=known), beta)

    def fill(self, images: Tensor, observed: Tensor, *, std: bool = False, samples: int = 0, seed: int = 0) -> Filled:
        """Complete `images`; arguments, results and errors as for `condition`. Without any observed pixel: the guess."""
        check_holes(images, observed)
        batches = zip(images.split(100), observed.split(100), strict=True)  # with all its nudges an image takes 300 kB
        parts = [
            self._fill_batch(*batch, std=std, samples=samples, seed=seed + number)
            for number, batch in enumerate(batches)
        ]
        return Filled(
            torch.cat([part.images for part in parts]),
            torch.cat([part.std for part in parts]) if std else None,
            torch.cat([part.samples for part in parts], dim=1) if samples else None,
        )

    def _fill_batch(self, images: Tensor, observed: Tensor, **options: int) -> Filled:
        mu, logvar = encode(self.model, with_mask_channel(Corrupted(images * observed, observed)))
        # (N, latent_dim, latent_dim): for each latent number a nudge that leaves the others alone
        nudges = torch.diag_embed((0.5 * logvar).exp() / self.beta**0.5)
        middle = decode(self.model, mu).flatten(1)
        moved = decode(self.model, (mu[:, None] + nudges).flatten(0, 1)).view(len(images), mu.shape[1], middle.shape[1])
        return condition(
            images,
            observed,
            mean=middle,
            covariance=self.errors.correlation,
            scale=self.errors.size(middle),
            spread=moved - middle[:, None],
            **options,
        )
