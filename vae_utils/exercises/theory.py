"""Exercises of notebook 01: what a code costs, what a gradient can pass, what a bound is."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _kl_of_code(kl):
    zeros = torch.zeros(2, 3)
    per_image = "One number an image: sum over the latent numbers (dimension 1), not over the images."
    silent = numbers(kl(zeros, zeros), (2,), "The KL of two codes of three numbers", per_image)
    expect(
        close(silent, 0),
        f"A code that is the prior itself (mu = 0, logvar = 0) costs 0 nats; yours costs {short(silent[0])}.",
    )
    mu, logvar = torch.cartesian_prod(torch.linspace(-2, 2, 5), torch.linspace(-3, 3, 7)).T[:, :, None]
    values = numbers(kl(mu, logvar), (35,), "The KL of 35 codes of one number")
    lowest = values.argmin()
    expect(
        values[lowest] > -1e-6,
        f"Your KL is {short(values[lowest])} for mu = {short(mu[lowest])}, logvar = {short(logvar[lowest])}, which is negative: "
        "a KL divergence never is; look at the sign.",
    )
    moved = numbers(kl(torch.full((1, 1), 2.0), torch.zeros(1, 1)), (1,), "The KL of one code")[0]
    expect(
        close(moved, 2),
        f"At mu = 2, logvar = 0 the KL is mu²/2 = 2 nats; yours is {short(moved)}. Mind the factor ½ and the square.",
    )
    wide = numbers(kl(torch.zeros(1, 1), torch.full((1, 1), 2.0)), (1,), "The KL of one code")[0]
    truth = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))[:, 0]
    expect(
        close(values, truth),
        f"At mu = 0, logvar = 2 the KL is {(math.exp(2) - 3) / 2:.2f} nats; yours is {short(wide)}. "
        "logvar is log σ²: is the variance in your line exp(logvar)?",
    )
    together = numbers(kl(mu.view(1, 35), logvar.view(1, 35)), (1,), "The KL of one code of 35 numbers", per_image)[0]
    expect(
        close(together, truth.sum()), "The latent numbers of one image pay one after the other: sum, do not average."
    )
    return "Each latent number pays for itself, and a silent one pays exactly 0: that is how a large β can switch numbers off."


def _waiting_times(sample):
    scale = torch.tensor(2.0, requires_grad=True)
    times = sample(scale, 20_000)
    values = numbers(times, (20_000,), "The sample of 20,000")
    expect(values.min() >= 0, "Waiting times are negative: the logarithm of a number below 1 is; look at the sign.")
    expect(
        isinstance(times, torch.Tensor) and times.requires_grad,
        "No gradient can reach `scale`: your line draws afresh, or leaves it out. Make the dice `u` an input, "
        "and z a function of `u` and `scale`.",
    )
    expect(
        abs(values.mean() - 2) < 0.1,
        f"With scale = 2 the mean is {values.mean():.1f}; it should be 2. Solve u = 1 − exp(−z / scale) for z step by step.",
    )
    expect(
        abs(values.std() - 2) < 0.15 and abs((values > 2).mean() - math.exp(-1)) < 0.02,
        "The mean is right, but the spread is not that of an exponential distribution. Solve u = 1 − exp(−z / scale) for z.",
    )
    (gradient,) = torch.autograd.grad(times.mean(), scale)
    expect(
        abs(gradient.item() - 1) < 0.05,
        f"The mean grows as fast as `scale`, so its gradient is 1; yours is {gradient.item():.1f}.",
    )
    return (
        "mu + σ·ε is this trick for the Gaussian. Any distribution can be reparameterised that is a smooth function "
        "of its parameters and of dice without parameters."
    )


def _bound(bound):
    one = "One bound an image: first of each group, then the mean over the groups."
    equal = numbers(bound(torch.full((2, 6), -3.0), 3), (2,), "The bound of two images with six samples each", one)
    expect(
        close(equal, -3),
        f"If every log weight is −3, so is every bound; yours is {short(equal[0])}. Of how many is it the mean?",
    )
    weights = torch.tensor([[1.0, 3.0, 5.0, 11.0]])
    one_each, pairs, all_four = (float(numbers(bound(weights.log(), k), (1,), "The bound", one)[0]) for k in (1, 2, 4))
    expect(
        close(one_each, math.log(1 * 3 * 5 * 11) / 4),
        f"For k = 1 the bound is the ELBO, the mean of the log weights; the weights 1, 3, 5, 11 give "
        f"{math.log(165) / 4:.3f}, and you say {one_each:.3f}. Average the *bounds* of the groups.",
    )
    expect(
        close(all_four, math.log(5)),
        f"For k = K the bound is the logarithm of the mean weight; the weights 1, 3, 5, 11 give log 5 = {math.log(5):.3f}, "
        f"and you say {all_four:.3f}. Within a group average the weights first, then take the logarithm.",
    )
    truth = (math.log(2) + math.log(8)) / 2
    expect(
        close(pairs, truth),
        f"Weights 1, 3, 5, 11 and k = 2: log 2 and log 8, on average {truth:.3f}; you say {pairs:.3f}.",
    )
    numbers(
        bound(torch.tensor([[-1000.0, -1001.0]]), 2),
        (1,),
        "The bound for log weights of −1000 (as a real image may have)",
        "exp(−1000) is 0 for a computer. torch.logsumexp takes the largest weight out first.",
    )
    return "A group listens to the best of its k guesses: the larger the groups, the tighter the bound."


EXERCISES = {
    "01.1": Exercise("equation (5), summed over the latent numbers of each image: `.sum(1)`.", _kl_of_code),
    "01.2": Exercise("exp(−z / scale) = 1 − u. Take logarithms on both sides.", _waiting_times),
    "01.3": Exercise(
        "of each group the log of the mean weight, `groups.logsumexp(2)` less something; then `.mean(1)` over the groups.",
        _bound,
    ),
}
