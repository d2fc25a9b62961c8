"""Exercises of notebook 06: what was seen stays, only gaps count, and what the seen says about the unseen."""

import torch

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _complete(complete):
    truth = torch.tensor([[0.2, 0.4, 0.6, 0.8]])
    observed = torch.tensor([[True, False, True, False]])
    guess = torch.tensor([[0.9, 0.1, 0.9, 0.3]])
    filled = numbers(complete(truth * observed, observed, guess), (1, 4), "The completed image")
    expect(
        not close(filled, guess),
        "The guess stands everywhere, also where the pixel was seen. What was observed is known: keep it.",
    )
    expect(
        not close(filled, torch.where(observed, guess, truth * observed)),
        "It is the wrong way round: the guess stands where the pixel was seen, the hole is still there.",
    )
    expect(
        close(filled, torch.where(observed, truth, guess)),
        f"Seen 0.2 and 0.6, guessed 0.1 and 0.3 for the gaps; you made {[round(v, 2) for v in filled[0].tolist()]}.",
    )
    gappy = truth.masked_fill(~observed, torch.nan)
    numbers(
        complete(gappy, observed, guess),
        (1, 4),
        "With gaps marked as nan your result",
        "0 · nan is nan, so a sum of products cannot leave a gap out: choose, with torch.where.",
    )
    return "Chosen, not calculated: observed pixels come back bit for bit, whatever a gap is marked with."


def _rmse(rmse):
    clean = torch.zeros(2, 1, 2, 2)
    observed = torch.tensor([True, True, True, False]).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    estimate = torch.where(observed, clean, clean + 0.4)
    value = float(numbers(rmse(clean, estimate, observed), (), "The RMSE", "One number for all images."))
    expect(
        not close(value, 0.2),
        "The gaps are off by 0.4, and you say 0.2: you divide by all pixels, so copying the seen ones counts as skill.",
    )
    expect(not close(value, 0), "The gaps are off by 0.4, and you say 0: those are the pixels that were seen.")
    expect(
        not close(value, 0.16), "The gaps are off by 0.4, and you say 0.16: that is the mean square, without the root."
    )
    expect(close(value, 0.4), f"The gaps are off by 0.4 each; you say {short(value)}.")
    careless = torch.where(observed, clean + 0.9, clean + 0.4)
    ignored = float(numbers(rmse(clean, careless, observed), (), "The RMSE"))
    expect(close(ignored, 0.4), "An error at a pixel that was seen changes your figure; only the gaps are judged.")
    mixed = estimate.clone()
    mixed[1, 0, 1, 1] = 0.0
    pooled = float(numbers(rmse(clean, mixed, observed), (), "The RMSE"))
    expect(
        close(pooled, 0.08**0.5),
        f"One gap is off by 0.4, one by 0: the RMSE is {0.08**0.5:.3f}; you say {pooled:.3f}. "
        "First the mean of all squares, then the root.",
    )
    return "A figure over all pixels flatters, the more the fewer are missing: always ask over which pixels an RMSE was taken."


def _conditional_mean(conditional_mean):
    observed = torch.tensor([True, False])
    mean, covariance = torch.tensor([0.5, 0.5]), 0.2**2 * torch.tensor([[1.0, 0.8], [0.8, 1.0]])

    def toy(seen):
        value = conditional_mean(torch.tensor([seen]), observed, mean, covariance)
        return float(numbers(value, (1,), "The mean of one missing number")[0])

    unsurprised, surprised = toy(0.5), toy(0.8)
    expect(
        close(unsurprised, 0.5),
        f"What was seen is exactly the mean, so the gap's best guess is its mean too, 0.5; you say {short(unsurprised)}. "
        "Only the *surprise*, seen − mean, moves it.",
    )
    expect(
        close(surprised, 0.74),
        f"In the toy at the top of the notebook, 0.8 is seen and the answer is 0.74; you say {short(surprised)}. "
        "How much of the surprise is passed on: covariance of gap and seen, *divided by* that of the seen.",
    )
    torch.manual_seed(0)
    factor = torch.randn(5, 5, dtype=torch.float64)
    covariance, mean = factor @ factor.T + torch.eye(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    observed, seen = torch.tensor([True, False, True, True, False]), torch.randn(3, dtype=torch.float64)
    value = numbers(conditional_mean(seen, observed, mean, covariance), (2,), "The mean of two missing numbers of five")
    precision = torch.linalg.inv(covariance)  # the same answer by another road: Bishop (2006), equation 2.75
    gap, across = precision[~observed][:, ~observed], precision[~observed][:, observed]
    truth = mean[~observed] - torch.linalg.solve(gap, across @ (seen - mean[observed]))
    expect(
        close(value, truth),
        "Right for one seen number, wrong for three: they repeat each other, which the inverse of their covariance undoes.",
    )
    return "With 784 numbers instead of two this line is the Gaussian, which beat the plain VAE at half of the pixels missing."


EXERCISES = {
    "06.1": Exercise("torch.where(condition, where true, where false).", _complete),
    "06.2": Exercise("`errors[~observed]` holds the squared errors of the gaps alone.", _rmse),
    "06.3": Exercise(
        "equation (1): the mean of the gap + covariance · (inverse · surprise); torch.linalg.solve(A, b) is A⁻¹b.",
        _conditional_mean,
    ),
}
