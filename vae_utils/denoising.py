"""Which pixels of a noisy image can be believed?

The noise of this module replaces a fraction r of the pixels by values uniform on [0, 1] (`corruption.ReplacePixels`) and
leaves the others exactly as they were. So each pixel y is one of two things, and a prediction q of what should be there
(a decoder's value, a neighbourhood's) tells which is likelier, by Bayes' rule:

    belief = P(untouched | y, q) = (1 - r) p(y | q) / ((1 - r) p(y | q) + r u(y))

with p(y | q), how often a clean pixel is y where the prediction says q, counted on training images, and u the uniform
distribution. The best estimate in mean square is then belief * y + (1 - belief) * E[clean | q].

Images are float tensors (N, 1, H, W) in [0, 1]. Grey levels are the 256 that an image file can hold: as real numbers,
uniform noise would give itself away by not being a multiple of 1/255.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet
from torch import Tensor

from vae_utils.corruption import ReplacePixels
from vae_utils.inference import reconstruct
from vae_utils.metrics import psnr
from vae_utils.model import Autoencoder, check_values

GREY_LEVELS = 256
PREDICTION_BINS = 128
BATCH = 250  # images weighed at once; a thousand take 180 MB
_REACH = 9.0  # bins divide logit(q) from -9 to 9 evenly: most predictions are near 0 or near 1
_FORGET = 20.0  # pixels' worth of prior in each bin of the table: a bin nobody has seen says what all pixels say


def to_grey_levels(images: Tensor) -> Tensor:
    """`images` rounded to the 256 grey levels of an image file, as floats k/255. Raises ValueError outside [0, 1]."""
    check_values(images)
    return (images * (GREY_LEVELS - 1)).round() / (GREY_LEVELS - 1)


def _level(images: Tensor) -> Tensor:
    return (images * (GREY_LEVELS - 1)).round().long()


def uniform_grey_levels() -> Tensor:
    """The probability of each grey level, `(256,)`, for a uniform value on [0, 1] that is rounded: the ends get half."""
    probability = torch.full((GREY_LEVELS,), 1 / (GREY_LEVELS - 1))
    probability[[0, -1]] /= 2
    return probability


def _check_fraction(fraction: float | Tensor, count: int = 1) -> Tensor:
    """As a tensor that broadcasts to (N, 1, H, W): a number, or one for each of `count` images `(N,)`."""
    values = torch.as_tensor(fraction, dtype=torch.float32)
    in_range = bool(((values >= 0) & (values <= 1)).all())  # False for NaN too
    if values.ndim > 1 or values.numel() not in (1, count) or not in_range:
        raise ValueError(f"fraction is {fraction!r}; give 0 to 1 (0.3 for 30 %), one number or one for each image.")
    return values.view(-1, 1, 1, 1)


# --- a pixel and a prediction -----------------------------------------------------------------------------------------


class Weighed(NamedTuple):
    """What remains of noisy images: the estimate, and how far each pixel was believed; both (N, 1, H, W) in [0, 1]."""

    images: Tensor
    belief: Tensor


@dataclass(frozen=True, eq=False)
class CleanPixels:
    """How clean pixels spread around a prediction: `probability[b, v]` of grey level v where the prediction is in bin b.

    Rows `(128, 256)` sum to 1. Bins are equally wide in logit(prediction). Made by `count`.
    """

    probability: Tensor

    @classmethod
    def count(cls, *, prediction: Tensor, clean: Tensor) -> "CleanPixels":
        """Count training pixels. A bin lends to its two neighbours on each side, and rare bins lean on all pixels.

        Raises ValueError for values outside [0, 1].
        """
        check_values(prediction)
        check_values(clean)
        cell = _bin(prediction) * GREY_LEVELS + _level(clean)
        counts = torch.bincount(cell.flatten(), minlength=PREDICTION_BINS * GREY_LEVELS)
        counts = counts.view(PREDICTION_BINS, GREY_LEVELS).float()
        anywhere = (counts.sum(0) + 1) / (counts.sum() + GREY_LEVELS)
        kernel = torch.tensor([1.0, 2, 3, 2, 1]) / 9
        lent = F.conv1d(F.pad(counts.T[:, None], (2, 2), mode="replicate"), kernel[None, None])[:, 0].T
        lent = lent + _FORGET * anywhere
        return cls(lent / lent.sum(1, keepdim=True))

    def likelihood(self, *, noisy: Tensor, prediction: Tensor) -> Tensor:
        """p(pixel | prediction, untouched) for each pixel."""
        return self.probability[_bin(prediction), _level(noisy)]

    def mean(self, prediction: Tensor) -> Tensor:
        """E[clean pixel | prediction]: what to write where a pixel is not believed."""
        return (self.probability @ torch.linspace(0, 1, GREY_LEVELS))[_bin(prediction)]


def _bin(prediction: Tensor) -> Tensor:
    # the bin's number by a division, ten times as fast as a search among the edges
    place = (torch.logit(prediction, eps=1e-4) + _REACH) * ((PREDICTION_BINS - 2) / (2 * _REACH))
    return place.ceil().clamp(0, PREDICTION_BINS - 1).long()


def weigh(noisy: Tensor, prediction: Tensor, clean_pixels: CleanPixels, fraction: float | Tensor) -> Weighed:
    """The posterior mean of each pixel, and the probability that it is untouched (the formulas at the top of this page).

    Args:
        noisy, prediction: the same shape. For an exact posterior the prediction of a pixel must not have seen that pixel.
        clean_pixels: counted for predictions of this kind.
        fraction: replaced pixels, 0 to 1; one number or one for each image `(N,)`.

    Raises ValueError for values outside [0, 1], or such a fraction.
    """
    likelihoods = _likelihoods(noisy, prediction, clean_pixels)
    belief = _belief(_check_fraction(fraction, len(noisy)), *likelihoods)
    return Weighed(belief * noisy + (1 - belief) * clean_pixels.mean(prediction), belief)


def _likelihoods(noisy: Tensor, prediction: Tensor, clean_pixels: CleanPixels) -> tuple[Tensor, Tensor]:
    """How likely each pixel is if untouched, and if replaced; checks the images."""
    check_values(noisy)
    check_values(prediction)
    return clean_pixels.likelihood(noisy=noisy, prediction=prediction), uniform_grey_levels()[_level(noisy)]


def _belief(fraction: Tensor, if_untouched: Tensor, if_replaced: Tensor) -> Tensor:
    untouched = (1 - fraction) * if_untouched
    return untouched / (untouched + fraction * if_replaced)


def estimate_fraction(
    noisy: Tensor, prediction: Tensor, clean_pixels: CleanPixels, *, start: float = 0.25, rounds: int = 20
) -> Tensor:
    """The fraction of replaced pixels of each image, `(N,)`, by expectation-maximisation from `start`.

    Weigh with the present guess; the mean disbelief is the next guess. Each round raises the likelihood of the fraction
    (Dempster, Laird & Rubin 1977). EM never leaves a start of 0 or 1. Raises ValueError as `weigh` does.
    """
    likelihoods = _likelihoods(noisy, prediction, clean_pixels)
    fraction = torch.full((len(noisy), 1, 1, 1), start)
    for _ in range(rounds):
        fraction = 1 - _belief(fraction, *likelihoods).mean((1, 2, 3), keepdim=True)
    return fraction.flatten()


# --- a second opinion: the neighbours ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BlindSpotFilter:
    """The linear filter that predicts a pixel from what surrounds it in several pictures of the same image.

    `kernel` is (1, C, S, S), `bias` (1,). The centre is 0 in the pictures named blind: a pixel has no say about itself.
    Made by `fit`.
    """

    kernel: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, pictures: Tensor, clean: Tensor, *, blind: Sequence[int], size: int = 5) -> "BlindSpotFilter":
        """Least squares on training images: pictures `(N, C, H, W)`, clean `(N, 1, H, W)`, `blind` a list of channels."""
        channels = pictures.shape[1]
        sees = torch.ones(channels, size * size, dtype=torch.bool)
        sees[list(blind), size * size // 2] = False
        sees = sees.flatten()
        gram = torch.zeros(int(sees.sum()) + 1, int(sees.sum()) + 1, dtype=torch.float64)
        moment = torch.zeros(len(gram), dtype=torch.float64)
        for batch, target in zip(pictures.split(25), clean.split(25), strict=True):
            patches = F.unfold(batch, size, padding=size // 2)[:, sees].transpose(1, 2).flatten(0, 1)
            patches = F.pad(patches, (0, 1), value=1.0)  # the last column is for the bias
            gram += (patches.T @ patches).double()
            moment += (patches.T @ target.flatten()).double()
        gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        solution = torch.linalg.solve(gram, moment).float()
        kernel = torch.zeros(len(sees))
        kernel[sees] = solution[:-1]
        return cls(kernel.view(1, channels, size, size), solution[-1:])

    def __call__(self, pictures: Tensor) -> Tensor:
        """Predictions `(N, 1, H, W)` in [0, 1] from pictures `(N, C, H, W)`."""
        return F.conv2d(pictures, self.kernel, self.bias, padding=self.kernel.shape[-1] // 2).clamp(0, 1)


# --- both opinions, several times over --------------------------------------------------------------------------------


class _Step(NamedTuple):
    filter: BlindSpotFilter | None  # None: the decoder's value is the prediction
    clean_pixels: CleanPixels


@dataclass(frozen=True, eq=False)
class Denoiser:
    """Weigh the pixels by the decoder; then, several times, repaint the estimate and weigh again, with the neighbours' help.

    `steps[fraction]` are the steps for that fraction of replaced pixels. `model` may be None: then the neighbours alone
    predict, which shows what the model contributes. Made by `fit`.
    """

    model: Autoencoder | None
    steps: dict[float, list[_Step]]

    @classmethod
    def fit(
        cls,
        model: Autoencoder | None,
        clean: Tensor,
        fractions: Sequence[float] = (0.05, 0.1, 0.25, 0.5),
        *,
        rounds: int = 4,
        seed: int = 0,
    ) -> "Denoiser":
        """On clean training images `(N, 1, 28, 28)`, corrupted here: a filter and a table for each fraction and round."""
        steps: dict[float, list[_Step]] = {}
        for fraction in fractions:
            noisy = to_grey_levels(ReplacePixels(fraction)(clean, torch.Generator().manual_seed(seed)).images)
            estimate, steps[fraction] = noisy, []
            for _ in range(rounds):
                pictures = _pictures(model, estimate)
                blind_filter = None
                if model is None or steps[fraction]:
                    blind_filter = BlindSpotFilter.fit(pictures, clean, blind=[pictures.shape[1] - 1])
                prediction = blind_filter(pictures) if blind_filter else pictures[:, :1]
                steps[fraction].append(_Step(blind_filter, CleanPixels.count(prediction=prediction, clean=clean)))
                estimate = weigh(noisy, prediction, steps[fraction][-1].clean_pixels, fraction).images
        return cls(model, steps)

    def __call__(self, noisy: Tensor, fraction: float | Tensor | None = None, *, rounds: int | None = None) -> Weighed:
        """Estimate and belief for noisy images `(N, 1, 28, 28)`.

        Args:
            fraction: replaced pixels, one number or one for each image `(N,)`; None: estimated from each image.
            rounds: stop after so many; default all.

        Each image meets the steps of the fraction nearest to its own. Raises ValueError as `weigh` does.
        """
        noisy = to_grey_levels(noisy)
        if fraction is None:
            fraction = torch.cat([self.estimate_fraction(batch) for batch in noisy.split(BATCH)])
        else:
            fraction = _check_fraction(fraction, len(noisy)).flatten().expand(len(noisy))
        fitted = torch.tensor(sorted(self.steps))
        nearest = fitted[(fraction[:, None] - fitted).abs().argmin(1)]
        images, belief = torch.empty_like(noisy), torch.empty_like(noisy)
        for level, steps in self.steps.items():
            mine = torch.isclose(nearest, torch.tensor(level)).nonzero().flatten()
            for rows in mine.split(BATCH):
                if len(rows):
                    images[rows], belief[rows] = self._run(noisy[rows], fraction[rows], steps[:rounds])
        return Weighed(images, belief)

    def _run(self, noisy: Tensor, fraction: Tensor, steps: list[_Step]) -> Weighed:
        weighed = Weighed(noisy, torch.ones_like(noisy))
        for blind_filter, clean_pixels in steps:
            pictures = _pictures(self.model, weighed.images)
            prediction = blind_filter(pictures) if blind_filter else pictures[:, :1]
            weighed = weigh(noisy, prediction, clean_pixels, fraction)
        return weighed

    def estimate_fraction(self, noisy: Tensor) -> Tensor:
        """The fraction of replaced pixels of each image, `(N,)`, by the first step of the middle one of the fitted fractions."""
        steps = self.steps[sorted(self.steps)[len(self.steps) // 2]]
        pictures = _pictures(self.model, noisy)
        prediction = steps[0].filter(pictures) if steps[0].filter else pictures[:, :1]
        return estimate_fraction(noisy, prediction, steps[0].clean_pixels)


def _pictures(model: Autoencoder | None, estimate: Tensor) -> Tensor:
    """What a pixel is predicted from: the decoder's picture, if there is a model, and the present estimate."""
    return estimate if model is None else torch.cat([reconstruct(model, estimate), estimate], dim=1)


# --- the classical filters --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LinearFilter:
    """The linear filter with the least mean squared error (LMMSE, Wiener) for replaced pixels: `fit` tells it the noise.

    `matrix` is (D, D) and `bias` (D,) for images of D pixels.
    """

    matrix: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, clean: Tensor, fractions: Sequence[float]) -> dict[float, "LinearFilter"]:
        """One for each fraction, from the mean and covariance of clean training images and the exact moments of the noise.

        A pixel is untouched with probability 1 - r, else uniform with mean 1/2 and mean square 1/3, independently. So
        Cov(x, y) = (1 - r) C, and Cov(y) = (1 - r)² C but for its diagonal, (1 - r) E[x²] + r/3 - E[y]².
        """
        mean, second_moment = 0.0, 0.0
        for x in clean.flatten(1).split(1000):  # single precision is enough for a thousand images, not for all
            mean = mean + x.sum(0).double() / len(clean)
            second_moment = second_moment + (x.T @ x).double() / len(clean)
        return {fraction: cls._from_moments(mean, second_moment, fraction) for fraction in fractions}

    @classmethod
    def _from_moments(cls, mean: Tensor, second_moment: Tensor, fraction: float) -> "LinearFilter":
        r = _check_fraction(fraction).item()
        covariance, square = second_moment - mean.outer(mean), second_moment.diagonal()
        noisy_mean = (1 - r) * mean + r / 2
        noisy_covariance = (1 - r) ** 2 * covariance
        noisy_covariance.diagonal().copy_((1 - r) * square + r / 3 - noisy_mean**2 + 1e-6)
        matrix = torch.linalg.solve(noisy_covariance, (1 - r) * covariance).T
        return cls(matrix.float(), (mean - matrix @ noisy_mean).float())

    def __call__(self, noisy: Tensor) -> Tensor:
        return (noisy.flatten(1) @ self.matrix.T + self.bias).clamp(0, 1).view_as(noisy)


def median(noisy: Tensor, size: int) -> Tensor:
    """The median of the `size`×`size` pixels around each pixel (SciPy's)."""
    return torch.from_numpy(median_filter(noisy.numpy(), size=(1, 1, size, size), mode="constant"))


def switching_median(noisy: Tensor, threshold: float) -> Tensor:
    """Keep a pixel unless it differs from the 3×3 median by more than `threshold` (in [0, 1]); then take the median."""
    smooth = median(noisy, 3)
    return torch.where((noisy - smooth).abs() > threshold, smooth, noisy)


def _each(function: Callable[[np.ndarray], np.ndarray], noisy: Tensor) -> Tensor:
    arrays = [function(image) for image in noisy[:, 0].numpy()]
    return torch.from_numpy(np.stack(arrays)).to(noisy.dtype).clamp(0, 1)[:, None]


def total_variation(noisy: Tensor, weight: float) -> Tensor:
    """Total-variation denoising (Chambolle 2004; scikit-image's): the larger `weight`, the smoother."""
    return _each(lambda image: denoise_tv_chambolle(image, weight=weight), noisy)


def non_local_means(noisy: Tensor, h: float) -> Tensor:
    """Non-local means (Buades et al. 2005; scikit-image's), 5×5 patches: the larger `h`, the smoother."""
    return _each(lambda image: denoise_nl_means(image, patch_size=5, patch_distance=6, h=h, fast_mode=True), noisy)


def wavelet(noisy: Tensor, sigma: float) -> Tensor:
    """Wavelet shrinkage (BayesShrink, Chang et al. 2000; scikit-image's) for noise of standard deviation `sigma`."""
    return _each(lambda image: denoise_wavelet(image, sigma=sigma, rescale_sigma=True), noisy)


def best_setting(
    method: Callable[[Tensor, float], Tensor], settings: Sequence[float], *, clean: Tensor, noisy: Tensor
) -> float:
    """Which of `settings` gives `method(noisy, setting)` the highest mean PSNR: tune on validation images, never on test ones."""
    scores = [psnr(clean=clean, estimate=method(noisy, setting)).mean().item() for setting in settings]
    return settings[int(np.argmax(scores))]
