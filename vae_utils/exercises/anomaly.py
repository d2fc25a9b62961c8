"""Exercises of notebook 05: an alarm that keeps its promise, a score for scores, and an error that is fair to thin letters."""

import numpy as np
import torch

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _threshold(threshold):
    scores = torch.arange(1.0, 100.0).view(9, 11).T.flatten()  # 1 to 99, not in order
    limit = float(numbers(threshold(scores, 0.05), (), "The threshold", "It is one number."))
    flagged = int((scores > limit).sum())
    expect(
        limit > 50,
        f"{flagged} of 99 normal images would be flagged: you cut at the low scores, but strange images score *high*.",
    )
    expect(
        not close(limit, 94),
        "Python counts from 0, so the m-th largest stands at place m − 1. As it is, 6 of 100 new normal images would be flagged.",
    )
    expect(
        close(limit, 95),
        f"Of the scores 1 to 99 and a rate of 0.05 the threshold is the fifth largest, 95; yours is {short(limit)}. "
        "Then a new normal score is above it with probability 5/100.",
    )
    few = float(numbers(threshold(scores[:19], 0.1), (), "The threshold"))
    second = scores[:19].sort(descending=True).values[1].item()
    expect(
        close(few, second),
        f"For 19 scores and a rate of 0.1 it is the second largest, {second:g}; yours is {short(few)}.",
    )
    return (
        "Four of these 99 lie above it, yet a new one does with probability 5/100: there are 100 places for it to fall."
    )


def _auroc(auroc):
    low, high = np.arange(5.0), np.arange(10.0, 13.0)
    apart = float(numbers(auroc(low, high), (), "The AUROC", "It is one number."))
    expect(
        apart <= 1 + 1e-6,
        f"Scores that part perfectly get {short(apart)}, more than 1: the ranks of the strange ones also count "
        "the strange ones below them. How many such pairs are there?",
    )
    expect(
        not close(apart, 0),
        "Scores that part perfectly get 0: these are the pairs that the strange ones *lose*.",
    )
    expect(close(apart, 1), f"Scores that part perfectly get an AUROC of 1; you say {short(apart)}.")
    reversed_ = float(numbers(auroc(high, low), (), "The AUROC"))
    expect(close(reversed_, 0), f"If every strange image scores lower, the AUROC is 0; you say {short(reversed_)}.")
    tied = float(numbers(auroc(np.ones(4), np.ones(6)), (), "The AUROC"))
    expect(close(tied, 0.5), f"If all scores are equal, the AUROC is 0.5; you say {short(tied)}.")
    normal, strange = np.array([1.0, 2.0, 2.0, 4.0]), np.array([2.0, 3.0, 5.0])
    value = float(numbers(auroc(normal, strange), (), "The AUROC"))
    truth = ((strange[:, None] > normal) + 0.5 * (strange[:, None] == normal)).mean()
    expect(close(value, truth), f"Counted pair by pair an example gives {truth:.3f}, your line {value:.3f}.")
    return "Only the order counts: any rising function of a score has the same AUROC. It does not say where to put a threshold."


def _fair_error(fair_error):
    val_ink, val_size = (values.ravel() for values in np.meshgrid(np.linspace(40, 160, 7), np.linspace(100, 220, 5)))
    val_error = 5 + 0.4 * val_ink + 0.2 * val_size + np.tile([3.0, -3.0, 0.0, -3.0, 3.0], 7)
    known = np.column_stack([val_ink, val_size, np.ones(35)])
    weights = np.linalg.lstsq(known, val_error, rcond=None)[0]
    error, ink, size = np.array([60.0, 110.0]), np.array([20.0, 160.0]), np.array([90.0, 200.0])  # one thin, one bold
    truth = error - np.column_stack([ink, size, np.ones(2)]) @ weights
    value = fair_error(error, ink, size, val_error, val_ink, val_size)
    both = numbers(value, (2,), "The corrected error of two images", "One an image.")
    expect(
        not close(both, 0),
        "Two images come out at exactly 0, whatever they are: the plane was fitted to the images it judges. "
        "Learn it from the validation digits.",
    )
    expect(
        close(both, truth, 1e-3),
        f"Digits follow 5 + 0.4 · ink + 0.2 · size, so an error of 60 at ink 20 and size 90 is {truth[0]:.0f} above the "
        f"usual; you say {short(both[0])}. Fit all three weights at once, to what validation digits cost.",
    )
    return "The thin image, at 60 nats, is now stranger than the bold one at 110: that is what an I or a J needed."


EXERCISES = {
    "05.1": Exercise("m is `count`; the largest score stands at place 0 of `highest_first`.", _threshold),
    "05.2": Exercise(
        "ranks.sum() counts, for each strange score, all scores up to itself. Take away the 1 + 2 + … + n among the strange.",
        _auroc,
    ),
    "05.3": Exercise(
        "np.linalg.lstsq(A, b, rcond=None)[0] finds w with A w ≈ b. Which A belongs to val_error?", _fair_error
    ),
}
