"""Exercises that check themselves, three in each notebook.

    def kl_of_code(mu, logvar):
        return ...  # your line

    exercises.check("01.1", kl_of_code)

prints one of three verdicts and never raises for what a learner wrote: *not attempted yet*, with a hint; *not right
yet*, with what is wrong; *right*, with a sentence of insight. An answer is judged by its properties, however it is written.
"""

import dis
import math
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import constriction
import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_utils import settings
from vae_utils.model import VAE
from vae_utils.training import fit, seeded


class Wrong(Exception):
    """What is wrong with an answer, as sentences for the one who gave it."""


@dataclass(frozen=True)
class Exercise:
    """One exercise. `judge` is given the learner's function, raises `Wrong`, or returns a sentence of insight."""

    hint: str
    judge: Callable[[Callable], str]


EXERCISES: dict[str, Exercise] = {}


def check(number: str, answer: object) -> None:
    """Print what is to be said about the `answer` to exercise `number`, such as "01.1".

    The answer draws the same random numbers each time; those of the notebook go on as if nothing had been drawn.
    Raises ValueError for a number that no exercise has.
    """
    if number not in EXERCISES:
        raise ValueError(f"There is no exercise {number!r}; there are {', '.join(EXERCISES)}.")
    exercise = EXERCISES[number]
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's warnings about a wrong answer say less than the verdict
            verdict = f"right. {exercise.judge(_watched(answer))}"
    except Wrong as problem:
        if _unfinished(answer, problem):
            verdict = f"not attempted yet. Hint: {exercise.hint}"
        else:
            verdict = f"not right yet. {str(problem).strip()}"
    print(f"Exercise {number}: {verdict}")


def _watched(answer: object) -> Callable:
    """The learner's function, which raises nothing but `Wrong`."""
    if not callable(answer):
        raise Wrong(f"check was given a {type(answer).__name__}; give it the function by its name, without calling it.")

    def call(*arguments):
        try:
            value = answer(*arguments)
        except Exception as error:
            raise Wrong(_what_stopped(answer, error)) from error
        expect(value is not ..., "The function returns an ellipsis.")
        expect(value is not None, "The function returns None. Is a `return` missing?")
        return value

    return call


def _what_stopped(answer: Callable, error: Exception) -> str:
    """The error, and the last line of the learner's cell on the way to it."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.line and frame.filename == file]
    where = f" at the line `{lines[-1]}`" if lines else ""
    message = " ".join(str(error).split())
    return f"Your function stopped{where} with {type(error).__name__}: {message}. Print the shapes of its arguments."


def _unfinished(answer: object, problem: Wrong) -> bool:
    """Whether the dots of the exercise are still there: as the answer, in what stopped it, or stored or returned in its code.

    (`x[..., 0]` is an attempt: there the dots are put to use.)
    """
    if answer is None or answer is ... or "ellipsis" in str(problem).lower():
        return True
    steps = dis.get_instructions(answer) if hasattr(answer, "__code__") else ()
    return any(
        step.argval is ... and after.opname.startswith(("STORE", "RETURN", "UNPACK")) for step, after in pairwise(steps)
    )


# ---- what the judges are written with ----


def exercise(number: str, hint: str) -> Callable:
    """Decorator: the judge below belongs to exercise `number`."""

    def register(judge: Callable[[Callable], str]) -> Callable:
        EXERCISES[number] = Exercise(hint, judge)
        return judge

    return register


def expect(holds: object, otherwise: str) -> None:
    """Raises `Wrong` with the sentence `otherwise` unless `holds`."""
    if not holds:
        raise Wrong(otherwise)


def numbers(value: object, shape: tuple[int, ...], what: str, advice: str = "") -> np.ndarray:
    """`value` as a finite float64 array of `shape`. Raises `Wrong`, which calls the value `what`, for anything else."""
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    except Exception:  # whatever a learner returns
        raise Wrong(f"{what} is a {type(value).__name__}; expected numbers. {advice}") from None
    expect(array.shape == shape, f"{what} has the shape {array.shape}; expected {shape or 'one number, ()'}. {advice}")
    bad = "nan" if np.isnan(array).any() else "an infinite value"
    expect(np.isfinite(array).all(), f"{what} contains {bad}. {advice}")
    return array


def close(value: object, expected: object, within: float = 1e-4) -> bool:
    """Whether all of `value` is within `within` of `expected`, relative to 1 or to `expected` where that is larger."""
    return bool(np.allclose(value, expected, rtol=within, atol=within))


def agree(value: object, truth: object, what: str, advice: str = "", *, mistakes=(), within: float = 1e-4) -> None:
    """Raises `Wrong` unless `value` is close to `truth`. `mistakes`: pairs (what else it may be, what is wrong then)."""
    for wrong, sentence in mistakes:
        expect(not close(value, wrong, within), sentence)
    for mine, right in zip(*(array.flat for array in np.broadcast_arrays(value, truth)), strict=True):
        expect(close(mine, right, within), f"{what} should be {right + 0.0:.4g}; yours is {mine + 0.0:.4g}. {advice}")


# ---- 01: KL divergence, reparameterization, layers of one's own ----


@exercise("01.1", "the line is a comparison: equation (2) for one dimension, with mu and logvar = middle, against 1.")
def _one_nat(logvar_of_one_nat):
    for mu in (0.0, 0.5, -1.0):
        logvar = numbers(logvar_of_one_nat(mu), (), f"The log-variance for mu = {mu}")
        nats = kl_divergence(Normal(mu, math.exp(0.5 * logvar)), Normal(0.0, 1.0)).item()
        half = "That is half a nat: check the factor ½."
        bit = "That is one bit, log 2 nats."
        search = "Too dear means more than one nat; then the search goes on in the lower half."
        what = f"With mu = {mu}, logvar = {logvar:.3g} the KL in nats"
        agree(nats, 1, what, search, mistakes=[(0.5, half), (math.log(2), bit)])
    return "A nat buys a mean off by 1.4, or a variance 4.5 times too large. Ten latent dimensions share some 20 nats."


@exercise("01.2", "solve u = 1 − exp(−z / scale) for z, step by step: which operation undoes exp?")
def _waiting_times(sample):
    scale = torch.tensor(2.0, requires_grad=True)
    times = sample(scale, 20_000)
    values = numbers(times, (20_000,), "The sample of 20,000")
    expect(values.min() >= 0, "Some waiting times are negative, as the logarithm of u is; look at the sign.")
    reached = isinstance(times, torch.Tensor) and times.requires_grad
    expect(reached, "No gradient reaches `scale`: use it in your line, and `u` too, instead of drawing anew.")
    solve = "Solve u = 1 − exp(−z / scale) for z step by step."
    agree(values.mean(), 2, "With scale = 2 the mean", solve, within=0.05)
    agree((values > 2).mean(), math.exp(-1), "The share of waiting times above the mean", solve, within=0.02)
    return "mu + σ·ε is this trick for the Gaussian: random numbers without parameters, then a smooth function of both."


@exercise("01.3", "a transposed layer makes (length − 1) · stride − 2 · padding + kernel steps. Two layers will do.")
def _wave_decoder(wave_decoder):
    decoder = wave_decoder()
    expect(isinstance(decoder, nn.Module), f"The function returns a {type(decoder).__name__}; expected a network.")
    try:
        shape = tuple(decoder(torch.zeros(3, 4)).shape)
    except Exception as error:
        raise Wrong(f"On codes (3, 4) your decoder stops: {' '.join(str(error).split())}") from error
    expect(shape == (3, 40, 1), f"Codes (3, 4) become {shape}; expected (3, 40, 1).")
    pitch, phase = torch.rand(1200, 1) * 0.25 + 0.15, torch.rand(1200, 1) * 2 * math.pi
    seen, unseen = torch.sin(pitch * torch.arange(40) + phase)[:, :, None].split(1000)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 8))
    vae = VAE(4, encoder=encoder, decoder=decoder, likelihood="gaussian")
    fit(vae, seen, epochs=15, batch_size=32, progress=False)
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(unseen.to(settings.device()))[0]).cpu()
    share = ((rebuilt - unseen).square().mean() / unseen.var()).item()
    expect(
        share < 0.2,
        f"The shapes are right, but after training {share:.0%} of the waves' variance is missing. Waves are negative too: "
        "which layer comes last? And without a ReLU between them two layers are as good as one.",
    )
    return f"Of the variance of unseen waves your decoder misses {share:.0%}. Whatever maps codes to data is a decoder."


# ---- 02: quantisation, code lengths, bits back ----


@exercise("02.1", "how many times does `step` fit into z? Then choose the *nearest* whole number, and its dtype.")
def _whole_steps(quantise):
    z = torch.linspace(-3.3, 3.3, 67)
    for step in (0.5, 2.0):
        value = quantise(z, step)
        steps = numbers(value, (67,), "The quantised code")
        whole = isinstance(value, torch.Tensor) and not value.is_floating_point()
        expect(whole, "A codec wants integers, as `.long()` makes them. (Multiplying by `step` is the decoder's work.)")
        expect(not close(steps, z.round()), f"With step = {step:g} you round z itself: how many *steps* is z?")
        off = abs(steps * step - z.numpy()).max()
        expect(off <= step / 2 + 1e-5, f"With step = {step:g} yours is off by up to {off:.2g}. Round to the nearest.")
    return "Rounding errors are uniform, so their mean square is step²/12; halving the step costs about one bit per number."


@exercise("02.2", "look up the probability of each integer in p; one of probability p costs −log2 p bits.")
def _honest_bytes(honest_bytes):
    uniform = numbers(honest_bytes(torch.arange(256).repeat(4), torch.full((256,), 9)), (), "The size of 1024 integers")
    expect(uniform > 0, f"1024 integers need {uniform:.0f} bytes, you say: log p is negative.")
    nats = "You count nats: a bit is a logarithm to base 2."
    what = "The size of 1024 integers, 256 values equally probable, in bytes"
    agree(uniform, 1024, what, "Add up all integers.", mistakes=[(1024 * math.log(2), nats)])
    table, rare = torch.tensor([899, 89, 9]), torch.full((100,), 2)
    p = (table + 1) / (table + 1).sum()
    average = "You charge each integer what the *table's* cost on average; rare ones cost more. Look up p of each."
    own = "A hundred equal integers cost nothing, by a table counted on them. But the receiver does not have that."
    mistakes = [(100 * -(p * p.log2()).sum().item() / 8, average), (0, own)]
    value = numbers(honest_bytes(rare, table), (), "The size of 100 integers")
    agree(value, -100 * p[2].log2() / 8, "The bytes of a hundred integers of probability 1/100", mistakes=mistakes)
    return "What this is above the integers' own entropy is a KL divergence: the cost of coding by other frequencies."


class _Stack:
    """An entropy coder: `push` by a table of probabilities, `pop` what was pushed last."""

    def __init__(self, words: np.ndarray):
        self.ans = constriction.stream.stack.AnsCoder(words)

    def push(self, symbol, p) -> "_Stack":
        self.ans.encode_reverse(int(symbol), _categorical(p))
        return self

    def pop(self, p) -> int:
        return self.ans.decode(_categorical(p))


def _categorical(p) -> object:
    return constriction.stream.model.Categorical(np.asarray(p, dtype=np.float64), perfect=False)


@exercise(
    "02.3", "the sender's first move took z off the stack. Undo it, with the same table: which one does x choose?"
)
def _pop_image(pop_image):
    prior = torch.tensor([0.5, 0.3, 0.2])
    likelihood = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]])
    posterior = (prior[:, None] * likelihood / (prior @ likelihood)).T
    images, before = [0, 2, 1, 3, 3, 0, 1, 2], []
    stack = _Stack(np.arange(1, 9, dtype=np.uint32) * 123_456_789)
    for x in images:
        before.append((stack.ans.num_valid_bits(), stack.ans.get_compressed()))
        z = stack.pop(posterior[x])
        stack.push(x, likelihood[z]).push(z, prior)
    for x, (bits, words) in zip(images[::-1], before[::-1], strict=True):
        answer = pop_image(stack, prior, likelihood, posterior)
        expect(isinstance(answer, tuple) and len(answer) == 2, "Return two things: the image and the stack.")
        value, stack = answer
        expect(isinstance(stack, _Stack), f"The stack became a {type(stack).__name__}; `push` returns the stack.")
        expect(value == x, f"The image should be {x}; yours is {value}. Leave the two pops as they are.")
        restored = np.array_equal(stack.ans.get_compressed(), words)
        had = f"Before this image came there were {bits} bits, now there are {stack.ans.num_valid_bits()}, or others."
        expect(restored, f"{had} The sender popped z by one of the three tables: which one, at which row?")
    return "Eight images, last to first, and each leaves the stack as it found it: bits lent, bits given back."


# ---- 03: sampling at a temperature, copies, a mixture ----


@exercise("03.1", "which of `mean`, `spread` and `eps` must still count at temperature 0, and which must not?")
def _draw(draw):
    codes = torch.cat([torch.tensor([3.0, -1]) + torch.tensor([0.5, 2]) * torch.randn(500, 2), torch.randn(500, 2)])
    labels = torch.arange(2).repeat_interleave(500)
    mean, std = codes[:500].mean(0), codes[:500].std(0)

    def drawn(count, temperature):
        return numbers(draw(codes, labels, 0, count, temperature), (count, 2), f"A draw of {count} codes of size 2")

    scaled = "At temperature 0 every code is 0, the middle of *all* digits: the mean is not to be scaled."
    agree(drawn(4, 0.0), mean, "At temperature 0 a draw is the digit's mean, so it", mistakes=[(0, scaled)])
    warm = "At temperature 1 the standard deviation of a latent dimension"
    agree(drawn(4000, 1.0).std(0), std, warm, "Where does `spread` come in?", within=0.08)
    agree(drawn(4000, 2.0).std(0), 2 * std, "At temperature 2 it is twice that, so it", within=0.08)
    return "A low temperature makes typical digits, a high one varied digits: state which one you used."


@exercise(
    "03.2", "whose distances set the limit? Tensors have a method that finds the value with a given share below it."
)
def _copies(copies):
    grid = torch.linspace(0, 1, 100)[:, None]
    train, rate = 10 * torch.cartesian_prod(*[torch.arange(10.0)] * 2), 0.1
    test = train + torch.cat([0.5 + grid, torch.zeros(100, 1)], dim=1)  # 0.5 to 1.5 from a training image

    def share(made):
        return numbers(copies(made, train, test, rate), (), "The share of copies", "One number.")

    own = "A tenth of images far from all training images are copies, you say, as of *any* images: whose is your limit?"
    agree(share(train + 2 + 2 * grid), 0, "For images far from all training images the share", mistakes=[(rate, own)])
    agree(share(train + 0.01), 1, "For a generator that returns its training images the share")
    agree(share(test), rate, "For test images the share", "Which end of their distances is the near one?", within=0.02)
    return "Test images give distances a scale: they cannot be copies, and they are as near as honest digits are."


@exercise("03.3", "take one draw by hand: which row of `means`, and which of the `factors`, belongs to it?")
def _draw_mixture(draw_mixture):
    weights, means = torch.tensor([0.25, 0.75]), torch.tensor([[3.0, -1.0], [-40.0, 20.0]])
    factors = torch.tensor([[[2.0, 0.0], [1.8, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])
    drawn = numbers(draw_mixture(weights, means, factors, 20_000), (20_000, 2), "The sample of 20,000 codes of size 2")
    first = drawn[drawn[:, 0] > -18]
    agree(len(first) / len(drawn), 0.25, "The share of draws that lie near the first mean", "Use `which`.", within=0.02)
    rows = "Each *row* of eps is one draw: does its factor stand to the left of it, as in factor · ε?"
    agree(np.cov(first.T), factors[0] @ factors[0].T, "An entry of the first covariance", rows, within=0.15)
    return "A mixture draws codes where codes are; N(0, I) draws some where no image has ever been."


# ---- 04: PSNR, salt and pepper, weighing ----


@exercise("04.1", "a PSNR for each image first: a mean squared error of 0.01 is 20 dB, one of 0.0001 is 40 dB.")
def _mean_psnr(mean_psnr):
    def measured(*errors):
        """The answer for images that are off by `errors`, one each, at every pixel."""
        estimate = torch.tensor(errors).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        return numbers(mean_psnr(torch.zeros_like(estimate), estimate), (), "The mean PSNR", "Average over the images.")

    tenth = measured(0.1)
    expect(tenth > 0, f"An error of 0.1 gives {tenth:.3g} dB; a better image must have *more*. Look at the sign.")
    squared = "It is 10 times the logarithm to base 10 of the *squared* error, 0.01."
    agree(tenth, 20, "With an error of 0.1 at each pixel the PSNR in dB", squared, within=1e-3)
    first = "First a PSNR for each image, then the mean: otherwise the worst image decides."
    agree(measured(0.1, 0.01), 30, "The mean PSNR of an image at 20 dB and one at 40 dB", first, within=1e-3)
    return "10 dB more is a tenth of the squared error. Papers differ in what they average first: ask before comparing."


def _noisy_pixels(u, r):
    """Grey levels `(512,)`, each of the 256 twice, and how probable each clean level is for each of them `(512, 256)`."""
    y = torch.arange(256).repeat(2)
    dark = torch.exp(-torch.arange(256) / 40.0) + 0.01
    p = torch.stack([dark, dark.flip(0)]).repeat_interleave(256, dim=0)
    p = p / p.sum(1, keepdim=True)
    likelihood, mean = p[torch.arange(512), y], p @ torch.arange(256.0)

    def posterior_mean(intact=(1 - r) * likelihood, replaced=r * u[y]):
        p_clean = intact / (intact + replaced)
        return (p_clean * y + (1 - p_clean) * mean).numpy()

    return y, p, likelihood, posterior_mean


@exercise("04.2", "of the replaced pixels a share `salt` is white (level 255); how many are left for black (level 0)?")
def _salt_and_pepper(denoise):
    for r, salt in ((0.1, 0.3), (0.5, 0.8)):
        u = torch.zeros(256)
        u[0], u[255] = 1 - salt, salt
        y, p, _, posterior_mean = _noisy_pixels(u, r)
        found = numbers(denoise(y, p, r, salt), (512,), "The estimates", "One grey level for each pixel.")
        swapped = "Salt is white, pepper is black: you have them the other way round."
        certain = "Your noise is black with probability 1, and white as well. How is it *shared* out?"
        twice = "The share r counts twice: `replaced` is for pixels that *were* replaced, and sums to 1."
        mistakes = [
            (posterior_mean(replaced=r * u.flip(0)[y]), swapped),
            (posterior_mean(replaced=r * (u > 0)[y]), certain),
            (posterior_mean(replaced=r * r * u[y]), twice),
        ]
        agree(found, posterior_mean(), f"For r = {r}, salt = {salt} the estimate", mistakes=mistakes)
    return "With the right noise in it, Bayes' rule keeps all grey pixels; all doubt is at black and white."


@exercise("04.3", "equation (1): the prior times the likelihood of the level that is shown, for both kinds of pixel.")
def _weigh(weigh):
    u = torch.linspace(1, 3, 256)
    u = u / u.sum()  # not uniform: it matters where it is looked up
    for r in (0.1, 0.6):
        y, p, likelihood, posterior_mean = _noisy_pixels(u, r)
        found = numbers(weigh(y, p, r, u), (512,), "The posterior means", "Look `u` up at the level of each pixel.")
        lookup = "`u` need not be uniform: look it up at the level that each pixel shows."
        swapped = "r is the share that was *replaced*: you have the priors swapped."
        mistakes = [
            (posterior_mean(likelihood, u[y]), "How common replaced pixels are, r, does not enter."),
            (posterior_mean(r * likelihood, (1 - r) * u[y]), swapped),
            (posterior_mean(replaced=r / 256), lookup),
        ]
        agree(found, posterior_mean(), f"For r = {r} the posterior mean of a pixel", mistakes=mistakes)
    return "This line is the whole noise model: another u, and it denoises another noise."


# ---- 05: thresholds, base rates, a score of your own ----


@exercise("05.1", "m is `count`. Python counts from 0: at which place of `highest_first` does the m-th largest stand?")
def _threshold(threshold):
    scores = torch.arange(1.0, 100.0).view(9, 11).T.flatten()  # 1 to 99, not in order
    limit = numbers(threshold(scores, 0.05), (), "The threshold", "It is one number.")
    expect(limit > 50, f"Of the scores 1 to 99 you cut at {limit:g}, a low one, but strange images score *high*.")
    place = "Python counts from 0, so the m-th largest is at place m − 1. Yours would flag 6 of 100 new normal images."
    what = "Of the scores 1 to 99 and a rate of 0.05 the threshold, the fifth largest,"
    agree(limit, 95, what, mistakes=[(94, place)])
    few = numbers(threshold(scores[:19], 0.1), (), "The threshold")
    agree(few, scores[:19].topk(2).values[1], "Of 19 scores and a rate of 0.1 the threshold, the second largest,")
    return "Four of these 99 lie above it, yet a new one does with probability 5/100: it has 100 places to fall."


@exercise("05.2", "`real` alarms are right. Which share of all images is normal, and how many of those are flagged?")
def _precision(precision):
    def measured(caught, false_alarms, base):
        return numbers(precision(caught, false_alarms, base), (), "The share of real alarms", "It is one number.")

    agree(measured(0.8, 0.0, 0.1), 1, "Without false alarms the share of real alarms")
    forgotten = "Normal images outnumber strange ones: false alarms are a share of the share 1 − base that is normal."
    what = "At 90 % caught, 5 % false alarms and one strange image in ten it"
    agree(measured(0.9, 0.05, 0.1), 0.09 / (0.09 + 0.9 * 0.05), what, mistakes=[(0.09 / 0.14, forgotten)])
    guess = "A guess is right as often as images are strange."
    agree(measured(0.5, 0.5, 0.3), 0.3, "For a detector that guesses it", guess)
    return "Where strange images are rare, half the false alarms nearly double it; catching the last tenth hardly moves it."


@exercise("05.3", "torch.cat joins rows and columns along dimension 1; the ink of an image is the sum of its pixels.")
def _profile(profile):
    images = torch.arange(2 * 784.0).view(2, 1, 28, 28) / 1568
    found = numbers(profile(images), (2, 56), "The profile of two images", "28 rows, then 28 columns, for each image.")
    what = "The shares of ink in the 28 rows of an image, added up,"
    whole = "Divide by the ink of each image: the shares must not depend on how bold it is."
    agree(found[:, :28].sum(1), 1, what, whole)
    rows, columns = images[0, 0].sum(1) / images[0].sum(), images[1, 0].sum(0) / images[1].sum()
    agree(found[0, :2], rows[:2], "The share of ink in one of the first rows", "Rows come first.")
    agree(found[1, 28:], columns, "The share of ink in a column")
    half = numbers(profile(images / 2), (2, 56), "The profile")
    agree(half, found, "An image half as bold has the same profile: a number of it", whole)
    return "A score is a table of features and a distance. Design letters may choose it, only held-out ones praise it."


# ---- 06: Rubin's rules, coverage by width, responsibilities from what was seen ----


@exercise(
    "06.1", "three things: the mean of the variances, the variance of the estimates (n − 1), and the factor 1 + 1/m."
)
def _pool(pool):
    within, estimates = torch.tensor([1.0, 2.0, 3.0, 2.0]), torch.tensor([5.0, 5.0, 5.0, 5.0])
    agreed = numbers(pool(estimates, within), (), "The total variance")
    agree(agreed, 2, "If all estimates agree, the total variance", "Then it is the mean of the variances, here 2.")
    estimates = torch.tensor([4.0, 6.0, 5.0, 9.0])
    mistakes = [
        (2, "You leave the disagreement of the estimates out: that is what a single imputation does."),
        (2 + 14 / 3, "The factor 1 + 1/m on the variance between the estimates is missing: m draws are finitely many."),
        (2 + 1.25 * 14 / 4, "Divide by m − 1 in the variance between the estimates: their mean is estimated, too."),
        (2 + 14 / 12, "You treat the draws as independent data: more draws would shrink what is unknown to nothing."),
    ]
    value = numbers(pool(estimates, within), (), "The total variance")
    agree(value, 2 + 1.25 * 14 / 3, "For estimates 4, 6, 5, 9 the total variance", mistakes=mistakes)
    return "More draws do not buy certainty: the variance between them stays, and it is what was lost with the gaps."


@exercise("06.2", "`held` is bool: as numbers, its mean over a group is a coverage. Which groups? Those in `groups`.")
def _coverage_by_width(coverage_by_width):
    width = torch.linspace(0.01, 1, 100)[torch.randperm(100)]
    low = torch.rand(100)
    narrow = width < 0.405  # 40 of them, of which none holds the truth
    truth = torch.where(narrow, low - 1, low + width / 2)
    value = numbers(coverage_by_width(truth, low, low + width, 5), (5,), "The coverage of five groups")
    mistakes = [
        ([0.6] * 5, "All groups get the same coverage: that is the coverage of all. Take the mean group by group."),
        ([1, 1, 1, 0, 0], "The order is the wrong way round: the narrowest intervals come first."),
    ]
    missed = "The narrowest two fifths of these intervals miss the truth, all others hold it."
    agree(value, [0, 0, 1, 1, 1], "A group's coverage", missed, mistakes=mistakes)
    edge = numbers(coverage_by_width(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.ones(2), 2), (2,), "The coverage")
    agree(edge, 1, "With the truth on an interval's end the coverage", "A closed interval holds its ends.")
    return "The coverage of all hides it: here it is 60 %, and two groups hold nothing. Always ask among which."


@exercise("06.3", "Bayes' rule: log weight plus the log density of the *seen* numbers; softmax makes them sum to 1.")
def _responsibilities(responsibilities):
    means = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 9.0]])
    covariances, weights = torch.eye(2).repeat(3, 1, 1), torch.tensor([0.25, 0.25, 0.5])
    seen, observed = torch.tensor([1.0]), torch.tensor([True, False])
    value = numbers(responsibilities(seen, observed, means, covariances, weights), (3,), "The responsibilities")
    expect(close(value.sum(), 1), "They do not sum to 1: softmax of the logarithms sees to that.")
    share = np.array([0.25, 0.25, 0.5]) * np.exp([-0.5, -0.5, -0.5])
    mistakes = [([1 / 3] * 3, "Components 1 and 3 explain what was seen equally well; the third is twice as frequent.")]
    same = "All three explain the seen 1 equally well, so what was seen leaves the weights as they were."
    agree(value, share / share.sum(), "A responsibility", same, mistakes=mistakes)
    factor, means, seen = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 5, 5), (3, 5), (3,)))
    covariances, observed = factor @ factor.mT + torch.eye(5), torch.tensor([True, False, True, True, False])
    value = numbers(responsibilities(seen, observed, means, covariances, weights), (3,), "The responsibilities")
    parts = zip(means[:, observed], covariances[:, observed][:, :, observed], weights, strict=True)
    truth = [w * multivariate_normal(m.numpy(), c.numpy()).pdf(seen.numpy()) for m, c, w in parts]
    density = "With unlike covariances: is it the density of all seen numbers at once, with its determinant?"
    expect(close(value, np.array(truth) / np.sum(truth)), density)
    return "With sixty components this is the mixture above: one line decides whose gap it is, by what was seen alone."
