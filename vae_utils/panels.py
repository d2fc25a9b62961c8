"""What the models of the series make of one drawing, panel by panel: the computing behind `drawing.DrawDigit`.

The pages of `make html` compute the same in JavaScript (tools/website/engine.js); tests/browser holds the two equal.
"""

import base64
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_utils.classifier import Classifier, class_probabilities, digit_classifier
from vae_utils.corruption import EraseHalf, ReplacePixels
from vae_utils.data import ImageData, first_of_each_class
from vae_utils.inference import decode, encode, reconstruct
from vae_utils.metrics import nearest, psnr
from vae_utils.model import VAE, kl_divergence

KNOWN = 2000  # training images that neighbours and completions are looked up in
STEP = 0.125  # latent means are rounded to multiples of it, as in notebook 02
NOISE, RATE = 0.25, 0.05  # share of replaced pixels; share of false alarms
STARTS, DRAWS, SHOWN = 4, 4, 4  # completions: images to start from, draws around each, completions shown


def arc(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """`steps` codes `(steps, L)` from `start` to `end`, each `(L,)`, on the arc of notebook 03 (spherical interpolation)."""
    lengths = torch.stack([start.norm(), end.norm()])
    angle = torch.acos((start @ end / lengths.prod()).clamp(-1 + 1e-6, 1 - 1e-6))
    t = torch.linspace(0, 1, steps)[:, None]
    mix = ((1 - t) * angle).sin() * start / lengths[0] + (t * angle).sin() * end / lengths[1]
    return torch.lerp(*lengths, t) * mix / angle.sin()


def cross_entropy(recon: Tensor, images: Tensor) -> Tensor:
    """That of each reconstruction `(N, 1, 28, 28)` and its image, summed over pixels: `(N,)` in nats."""
    return F.binary_cross_entropy(recon, images, reduction="none").flatten(1).sum(1)


def as_bytes(images: Tensor) -> Tensor:
    """Images `(N, 1, 28, 28)` in [0, 1] as uint8 `(N, 784)`."""
    return (255 * images).round().byte().flatten(1)


class Panels:
    """What the models make of one drawing, panel by panel: dictionaries of numbers, lists and images.

    score: images `(N, 1, 28, 28)` to strangeness `(N,)`, high for strange images (default: the reconstruction error in nats).
    denoise: noisy images to denoised ones (default: decode(mu)).
    complete: images with missing pixels at 0 and the mask of observed ones to `(SHOWN, 1, 28, 28)` (default: `draws_given`).
    """

    NAMES = ("look", "code", "bytes", "morph", "denoise", "strange", "complete")

    def __init__(
        self,
        vae: VAE,
        data: ImageData,
        *,
        classifier: Classifier | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
        denoise: Callable[[Tensor], Tensor] | None = None,
        complete: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.vae, self.classifier = vae, classifier or digit_classifier(data)
        self._score, self.unit = score or self.error, "" if score else "nats"
        self._denoise = denoise or (lambda images: reconstruct(vae, images))
        self._complete = complete or self.draws_given
        self.data, self.known = data, data.train_images[:KNOWN]
        self.codes = encode(vae, self.known)[0]
        self.decoded = (255 * decode(vae, self.codes)).round() / 255  # as the page without a kernel has them
        self.mean, self.deviation = self.codes.mean(0), self.codes.std(0)
        self.targets = data.test_images[first_of_each_class(data.test_labels)]
        self.target_codes = encode(vae, self.targets)[0]
        generator = torch.Generator().manual_seed(0)
        self.noise = ReplacePixels(NOISE)(torch.zeros(1, 1, 28, 28), generator)
        self.observed = EraseHalf("left")(torch.zeros(1, 1, 28, 28)).observed
        self.eps = torch.randn(STARTS * DRAWS, vae.latent_dim, generator=generator)
        self.gumbel = -torch.empty(STARTS * DRAWS).exponential_(generator=generator).log()

    @cached_property
    def limit(self) -> float:
        """The threshold that `RATE` of the validation images exceed: their m-th largest score, m = RATE · (N + 1)."""
        scores = self._score(self.data.val_images).sort(descending=True).values
        return scores[int(RATE * (len(scores) + 1)) - 1].item()

    @cached_property
    def scores(self) -> Tensor:
        """Strangeness of 2,500 test images (all, where there are fewer), for the histogram."""
        return self._score(self.data.test_images[:: max(1, len(self.data.test_images) // 2500)])

    @cached_property
    def histogram(self) -> dict:
        """What the chart of `strange` shows whatever is drawn: the threshold, and `counts` of the scores from 0 to `high`."""
        high = max(self.scores.quantile(0.999).item(), self.limit)
        counts = torch.histc(self.scores, 40, 0, high).tolist()
        return {"limit": self.limit, "counts": counts, "high": high, "unit": self.unit}

    def error(self, images: Tensor) -> Tensor:
        """Reconstruction error `(N,)` in nats: cross-entropy of images and decode(mu), summed over pixels."""
        return cross_entropy(reconstruct(self.vae, images), images)

    def look(self, x: Tensor, **_) -> dict:
        return {"image": x, "classes": class_probabilities(self.classifier, x)[0].tolist()}

    def code(self, x: Tensor, **_) -> dict:
        mu, logvar = encode(self.vae, x)
        recon = decode(self.vae, mu)
        numbers = {"mu": mu[0].tolist(), "sigma": (0.5 * logvar[0]).exp().tolist()}
        costs = {"recon": cross_entropy(recon, x).item(), "kl": kl_divergence(mu, logvar).item()}
        return {"reconstruction": recon} | numbers | costs

    def bytes(self, x: Tensor, **_) -> dict:
        mu = encode(self.vae, x)[0]
        whole = (mu / STEP).round()
        far = (STEP * whole[0] - self.mean) / self.deviation
        bits = (self.deviation * math.sqrt(2 * math.pi) / STEP).log2() + far.square() / (2 * math.log(2))
        numbers = {"whole": whole[0].int().tolist(), "bits": bits.sum().item()}
        return {"exact": decode(self.vae, mu), "rounded": decode(self.vae, STEP * whole)} | numbers

    def morph(self, x: Tensor, digit: int = 7, **_) -> dict:
        mu = encode(self.vae, x)[0]
        distance, index = nearest(mu, self.codes, k=5)
        near = {"neighbours": self.known[index[0]], "labels": self.data.train_labels[index[0]].tolist()}
        path = decode(self.vae, arc(mu[0], self.target_codes[digit], 7))
        return near | {"distances": distance[0].tolist(), "path": path, "target": self.targets[digit : digit + 1]}

    def denoise(self, x: Tensor, **_) -> dict:
        noisy = torch.where(self.noise.observed, x, self.noise.images)
        denoised = self._denoise(noisy)
        quality = {name: psnr(clean=x, estimate=y).item() for name, y in (("before", noisy), ("after", denoised))}
        return {"noisy": noisy, "denoised": denoised} | quality

    def strange(self, x: Tensor, **_) -> dict:
        score = self._score(x).item()
        below = (self.scores < score).float().mean().item()
        return {"score": score, "below": below, "reconstruction": reconstruct(self.vae, x)} | self.histogram

    def complete(self, x: Tensor, **_) -> dict:
        seen = x * self.observed
        ways = self._complete(seen, self.observed)
        return {"seen": seen, "ways": ways, "classes": class_probabilities(self.classifier, ways).tolist()}

    def draws_given(self, seen: Tensor, observed: Tensor) -> Tensor:
        """Completions of `seen` `(1, 1, 28, 28)` by codes drawn given its observed pixels: `(SHOWN, 1, 28, 28)`.

        Importance sampling: the proposal is a mixture of the encoder's Gaussians for the drawing, completed by each of the
        `STARTS` decoded training codes that explain the observed pixels best; `SHOWN` different draws are kept, with
        probabilities in proportion to the weights p(observed pixels | z) p(z) / q(z) (Gumbel top-k).
        """

        def fit(images):  # log p(observed pixels | z), no pixel surer than a byte can say
            images = images.clamp(1 / 512, 511 / 512)
            pixel = -F.binary_cross_entropy(images, seen.expand_as(images), reduction="none")
            return (pixel * observed).flatten(1).sum(1)

        starts = self.decoded[fit(self.decoded).topk(STARTS).indices]
        mu, logvar = encode(self.vae, torch.where(observed, seen, starts))
        z = (mu[:, None] + (0.5 * logvar).exp()[:, None] * self.eps.view(STARTS, DRAWS, -1)).flatten(0, 1)
        images = decode(self.vae, z)
        away = (z[:, None] - mu).square() / logvar.exp()
        proposal = (-0.5 * (away + logvar).sum(2)).logsumexp(1)
        weight = fit(images) - 0.5 * z.square().sum(1) - proposal
        return torch.where(observed, seen, images[(weight + self.gumbel).topk(SHOWN).indices])

    def answer(self, x: Tensor, panels: Sequence[str], options: dict | None = None) -> dict:
        """Each of `panels` for one image `(1, 1, 28, 28)`, ready for JSON: images are base64 of 784 bytes each, in a list."""
        found = {name: getattr(self, name)(x, **(options or {})) for name in panels if name in self.NAMES}
        return {name: {key: _packed(value) for key, value in panel.items()} for name, panel in found.items()}


def _packed(value):
    if not isinstance(value, Tensor):
        return value
    return [base64.b64encode(row.numpy().tobytes()).decode() for row in as_bytes(value)]
