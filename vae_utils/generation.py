"""Where do new digits come from, and are they any good?

Codes to decode (the prior, a mixture fitted to the codes of real images, paths between two codes), and measures that compare
a set of generated images with a set of real ones by their features (`classifier.image_features`).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from vae_utils.metrics import nearest
from vae_utils.training import seeded


def _table(values: Tensor, name: str, rows: int = 1) -> Tensor:
    if values.ndim != 2 or len(values) < rows or not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; expected a table (N, D) of at least {rows} row(s) of finite numbers. "
            "Flatten images with images.flatten(1)."
        )
    return values


def _tables(rows: int, **tables: Tensor) -> None:
    for name, table in tables.items():
        _table(table, name, rows)
    if len({table.shape[1] for table in tables.values()}) != 1:
        shapes = ", ".join(f"{name} {tuple(table.shape)}" for name, table in tables.items())
        raise ValueError(f"{shapes}: these must have the same columns.")


# ---- codes ----


def prior_codes(count: int, latent_dim: int, *, temperature: float = 1.0, seed: int = 0) -> Tensor:
    """`count` codes `(count, latent_dim)` from N(0, temperature²·I). Raises ValueError for a negative temperature."""
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature!r}; give a number of at least 0 (1 is the prior).")
    with seeded(seed):
        return temperature * torch.randn(count, latent_dim)


@dataclass(frozen=True, eq=False)
class CodeMixture:
    """A mixture of Gaussians with full covariances over codes: `weights` (K,), `means` (K, D), `factors` (K, D, D).

    The covariance of component k is `factors[k] @ factors[k].T`. Fitting one to the codes of a trained model and
    sampling from it in place of the prior is called ex-post density estimation (Ghosh et al. 2020, "From Variational to
    Deterministic Autoencoders", section 4).
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def fit(cls, codes: Tensor, components: int, *, seed: int = 0, steps: int = 60) -> "CodeMixture":
        """Fit to `codes` `(N, D)` by expectation-maximisation (scikit-learn's GaussianMixture), `steps` rounds at most.

        Raises ValueError for a table that is none, or fewer codes than components.
        """
        _table(codes, "codes", rows=2)
        if not 1 <= components <= len(codes):
            raise ValueError(f"components is {components!r}; give a whole number from 1 to the {len(codes)} codes.")
        mixture = GaussianMixture(components, max_iter=steps, tol=1e-2, reg_covar=1e-3, random_state=seed)
        with warnings.catch_warnings():
            # a density that could be a little better is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            with threadpool_limits(1):  # matrices this small are four times as fast without a second thread to wait for
                mixture.fit(codes.double().numpy())
        factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
        return cls(torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_), factors)

    def log_density(self, codes: Tensor) -> Tensor:
        """log density of each code in nats, `(N,)`. Raises ValueError for codes of another size."""
        _tables(1, codes=codes, means=self.means)
        parts = torch.distributions.MultivariateNormal(self.means, scale_tril=self.factors)
        return (parts.log_prob(codes.double()[:, None]) + self.weights.log()).logsumexp(1)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """`count` codes `(count, D)`: a component by its weight, then a draw from its Gaussian."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], 1, generator=generator, dtype=torch.float64)
        return (self.means[which] + (self.factors[which] @ noise)[..., 0]).float()


@dataclass(frozen=True, eq=False)
class ClassMixtures:
    """One `CodeMixture` a class, so that a digit can be ordered by its name."""

    mixtures: tuple[CodeMixture, ...]

    @classmethod
    def fit(cls, codes: Tensor, labels: Tensor, components: int, *, seed: int = 0) -> "ClassMixtures":
        """Fit to `codes` `(N, D)` with `labels` `(N,)`, whole numbers from 0 up, of which each must occur.

        A class of few codes gets fewer components: one for every `2 * D` codes at most, and at least one.
        """
        if labels.shape != (len(codes),):
            raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(codes)},), one a code.")
        mixtures = []
        for label in range(int(labels.max()) + 1):
            own = codes[labels == label]
            if len(own) < 2:
                raise ValueError(f"Class {label} has {len(own)} code(s); a mixture needs at least 2.")
            mixtures.append(CodeMixture.fit(own, max(1, min(components, len(own) // (2 * codes.shape[1]))), seed=seed))
        return cls(tuple(mixtures))

    def sample(self, labels: Tensor, seed: int = 0) -> Tensor:
        """A code for each of `labels` `(N,)`: `(N, D)`. Raises ValueError for a label without a mixture."""
        if len(labels) == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < len(self.mixtures):
            raise ValueError(
                f"labels are {labels.tolist()[:5]}…; there are mixtures for 0 to {len(self.mixtures) - 1}."
            )
        codes = torch.empty(len(labels), self.mixtures[0].means.shape[1])
        for label, mixture in enumerate(self.mixtures):
            own = labels == label
            codes[own] = mixture.sample(int(own.sum()), seed=seed * len(self.mixtures) + label)
        return codes


def lerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """`steps` codes `(steps, D)` on the straight line from `start` `(D,)` to `end` `(D,)`, both included."""
    weights = torch.linspace(0, 1, steps)[:, None]
    return (1 - weights) * start + weights * end


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """`steps` codes `(steps, D)` on the great arc from `start` `(D,)` to `end` `(D,)`, both included.

    The angle grows evenly (Shoemake 1985), as does the length from |start| to |end|. Raises ValueError for a code of
    length 0 or for opposite directions, between which there is no shortest arc.
    """
    lengths = start.norm(), end.norm()
    if min(lengths) == 0:
        raise ValueError("A code of length 0 has no direction; use lerp.")
    first, last = start / lengths[0], end / lengths[1]
    # atan2 keeps its precision for small angles, where acos of the cosine does not
    angle = 2 * torch.atan2((first - last).norm(), (first + last).norm())
    if math.pi - angle < 1e-3:
        raise ValueError("The codes point in opposite directions; no arc between them is the shortest. Use lerp.")
    weights = torch.linspace(0, 1, steps)[:, None]
    if angle < 1e-4:
        return lerp(start, end, steps)
    directions = (((1 - weights) * angle).sin() * first + (weights * angle).sin() * last) / angle.sin()
    return ((1 - weights) * lengths[0] + weights * lengths[1]) * directions


@dataclass(frozen=True, eq=False)
class GreyCurve:
    """A rising curve that gives decoded images the grey values of real ones: `decoded` and `real` hold equal quantiles,
    `(Q,)` each.

    A decoder's picture is a mean over what it is unsure of, so it holds too many middle greys. The curve takes those
    back towards black and white without moving anything (histogram matching: Gonzalez & Woods, "Digital Image
    Processing", section 3.3).
    """

    decoded: Tensor
    real: Tensor

    @classmethod
    def fit(cls, *, decoded: Tensor, real: Tensor, quantiles: int = 2001) -> "GreyCurve":
        """Read off equal quantiles of all pixels of two sets of images. Raises ValueError for an empty set."""
        if decoded.numel() == 0 or real.numel() == 0:
            raise ValueError(f"{decoded.numel()} decoded and {real.numel()} real pixels; both sets must hold some.")

        def read(images: Tensor) -> Tensor:
            # NumPy's sort: torch's also makes a table of where each pixel came from, twice the size of the images
            values = torch.from_numpy(np.sort(images.flatten().cpu().numpy()))
            return values[torch.linspace(0, len(values) - 1, quantiles, dtype=torch.float64).round().long()]

        return cls(read(decoded), read(real))

    def __call__(self, images: Tensor) -> Tensor:
        """The images with their grey values exchanged, the same shape."""
        return torch.cat([self._of_batch(batch) for batch in images.split(500)])

    def _of_batch(self, images: Tensor) -> Tensor:
        # where many decoded pixels are the same, the last of the equal quantiles is found: rising, and exact at both ends
        above = torch.searchsorted(self.decoded, images.clamp(self.decoded[0], self.decoded[-1]), right=True)
        high = above.clamp(1, len(self.decoded) - 1)
        low = high - 1
        share = (images - self.decoded[low]) / (self.decoded[high] - self.decoded[low]).clamp(min=1e-12)
        return torch.lerp(self.real[low], self.real[high], share.clamp(0, 1))


# ---- comparing sets ----


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two tables of features `(N, D)`, `(M, D)`; 0 when mean and covariance agree.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2·(C₁C₂)^½), the formula of Heusel et al. (2017), "GANs Trained by a Two Time-Scale Update
    Rule", eq. 6. There the features are those of an Inception network, and the number is called FID; with other
    features it must not be. The order of the arguments does not matter. Raises ValueError for tables with different
    columns or fewer than 2 rows.
    """
    _tables(2, first=first, second=second)
    first, second = first.double(), second.double()
    c1, c2 = torch.cov(first.T).view(first.shape[1], -1), torch.cov(second.T).view(first.shape[1], -1)
    values, vectors = torch.linalg.eigh(c1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # the eigenvalues of C₁C₂ are those of the symmetric C₁^½ C₂ C₁^½, which can be had without complex numbers
    shared = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    distance = (first.mean(0) - second.mean(0)).square().sum() + c1.trace() + c2.trace() - 2 * shared
    return max(0.0, distance.item())


class PrecisionRecall(NamedTuple):
    """`precision`: the share of generated items that lie among real ones; `recall`: of real ones among generated; in [0, 1]."""

    precision: float
    recall: float


def precision_recall(*, real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """How much of what is generated is realistic, and how much of what is real is covered?

    Kynkäänniemi et al. (2019), "Improved Precision and Recall Metric for Assessing Generative Models", section 2: a
    point lies among a set when it is within some member's distance to that member's `k`-th nearest neighbour in the
    set. Both depend on the sizes of the sets; compare only with as many points.

    Args: real, generated: features `(N, D)`, `(M, D)`. Raises ValueError for tables with different columns or of `k`
    rows or fewer.
    """
    _tables(k + 1, real=real, generated=generated)
    return PrecisionRecall(_share_among(generated, real, k), _share_among(real, generated, k))


def _share_among(points: Tensor, members: Tensor, k: int) -> float:
    radii = nearest(members, members, k + 1)[0][:, -1]  # the nearest member is the member itself
    within = [(torch.cdist(batch, members) <= radii).any(1) for batch in points.split(500)]
    return torch.cat(within).float().mean().item()


def nearest_images(images: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest image of `gallery` `(M, 1, H, W)` to each of `images` `(N, 1, H, W)`: distances and indices, both `(N,)`.

    Distances are root mean squares over pixels.
    """
    distances, which = nearest(images.flatten(1), gallery.flatten(1), k=1)
    return distances[:, 0] / math.sqrt(images[0].numel()), which[:, 0]


def entropy(shares: Tensor | Sequence[float]) -> float:
    """Entropy in bits of shares that sum to 1: log₂(classes) when all are equal, 0 when one has everything."""
    shares = torch.as_tensor(shares, dtype=torch.float64)
    if bool((shares < 0).any()) or abs(shares.sum().item() - 1) > 1e-6:
        raise ValueError(f"shares are {shares.tolist()}; expected numbers of at least 0 that sum to 1.")
    return -(shares * shares.clamp(min=1e-300).log2()).sum().item()
