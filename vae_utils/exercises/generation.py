"""Exercises of notebook 03: sampling on purpose, what counts as a copy, and drawing numbers that hang together."""

import torch

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _draw(draw):
    spread, centre = torch.tensor([0.5, 2.0]), torch.tensor([3.0, -1.0])
    codes = torch.cat([centre + spread * torch.randn(500, 2), 10 + torch.randn(500, 2)])
    labels = torch.arange(2).repeat_interleave(500)
    mean, std = codes[:500].mean(0).numpy(), codes[:500].std(0).numpy()
    cold = numbers(draw(codes, labels, 0, 4, 0.0), (4, 2), "A draw of 4 codes of 2 numbers")
    expect(
        not close(cold, 0),
        "At temperature 0 every code is 0, the middle of *all* digits. Temperature scales the spread around the digit's mean, "
        "not the mean.",
    )
    expect(
        close(cold, mean),
        f"At temperature 0 nothing is random, so each draw is the digit's mean ({short(mean[0])}, {short(mean[1])}); "
        f"yours is ({short(cold[0, 0])}, {short(cold[0, 1])}).",
    )
    warm = numbers(draw(codes, labels, 0, 4000, 1.0), (4000, 2), "A draw of 4000 codes of 2 numbers").std(0)
    expect(
        close(warm, std, 0.08),
        f"At temperature 1 the draws should spread as the digit's codes do ({short(std[0])}, {short(std[1])}); "
        f"yours spread by {short(warm[0])}, {short(warm[1])}. Where does `spread` come in?",
    )
    hot = numbers(draw(codes, labels, 0, 4000, 2.0), (4000, 2), "A draw of 4000 codes of 2 numbers").std(0)
    expect(
        close(hot, 2 * std, 0.08),
        f"Twice the temperature is twice the spread; yours grew {hot[0] / warm[0]:.1f} times.",
    )
    return (
        "Low temperature makes typical digits, high temperature varied ones: no sample is both, so say which you used."
    )


def _copies(copies):
    grid = torch.linspace(0, 1, 100)[:, None]
    train, rate = 10 * torch.cartesian_prod(*[torch.arange(10.0)] * 2), 0.1
    test = train + torch.cat([0.5 + grid, torch.zeros(100, 1)], dim=1)  # 0.5 to 1.5 from a training image
    other = float(numbers(copies(train + 2 + 2 * grid, train, test, rate), (), "The share of copies"))
    expect(
        not close(other, rate),
        "Images far from all training images: a tenth of them are copies, you say. A limit taken from the made images themselves "
        "flags a tenth of *any* of them.",
    )
    expect(close(other, 0), f"Images far from all training images have a share of 0; you say {short(other)}.")
    caught = float(numbers(copies(train + 0.01, train, test, rate), (), "The share of copies", "One number."))
    expect(
        close(caught, 1), f"A generator that gives back its training images has a share of 1; you say {short(caught)}."
    )
    honest = float(numbers(copies(test, train, test, rate), (), "The share of copies"))
    expect(
        close(honest, rate, 0.02),
        f"Test images are no copies; by the rule a share of {rate:g} of them lies below the limit, by yours {short(honest)}. "
        "Which end of their distances is the near one?",
    )
    return "Near means nothing without a scale. Test images give it: they cannot be copies, and they are as near as digits are."


def _draw_like(draw_like):
    mixing = torch.tensor([[2.0, 0.0], [1.8, 0.5]])
    codes = torch.tensor([3.0, -1.0]) + torch.randn(1000, 2) @ mixing.T
    mean, covariance = codes.mean(0).numpy(), torch.cov(codes.T).numpy()
    drawn = numbers(draw_like(codes, 20_000), (20_000, 2), "The sample of 20,000 codes of two numbers")
    centre, found = drawn.mean(0).round(1) + 0.0, torch.cov(torch.tensor(drawn.T)).numpy()
    expect(
        abs(centre - mean).max() < 0.15,
        f"The codes lie around ({mean[0]:.1f}, {mean[1]:.1f}), your draws around ({centre[0]:.1f}, {centre[1]:.1f}).",
    )
    expect(
        abs(found[0, 1]) > 0.2,
        "In the codes the two numbers rise together; in your draws they go their own ways. The factor has more than a diagonal.",
    )
    spread, wanted = found.diagonal() ** 0.5, covariance.diagonal() ** 0.5
    expect(
        abs(found - covariance).max() < 0.25,
        f"The spreads should be {wanted[0]:.1f} and {wanted[1]:.1f} and are {spread[0]:.1f} and {spread[1]:.1f}. "
        "Each *row* of eps is one draw: to multiply it by `factor` from the left, what happens to `factor` on the right?",
    )
    return "A mixture of such Gaussians draws codes where codes are; N(0, I) draws some where no image has ever been."


EXERCISES = {
    "03.1": Exercise("the mean stays; `eps` is scaled by the digit's spread, and by the temperature.", _draw),
    "03.2": Exercise(
        "`test_distance.quantile(...)`: below which distance does a share `rate` of the test images lie?", _copies
    ),
    "03.3": Exercise(
        "for one column of dice the draw is mean + factor @ eps; `eps` holds one draw a row, so transpose.", _draw_like
    ),
}
