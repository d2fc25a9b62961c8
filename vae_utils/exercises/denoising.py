"""Exercises of notebook 04: a scale for errors, a belief in a pixel, and how much noise there is."""

import torch

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _mean_psnr(mean_psnr):
    def measured(*errors):
        """The answer for images that are off by `errors`, one each, at every pixel."""
        clean = torch.zeros(len(errors), 1, 4, 4)
        estimate = clean + torch.tensor(errors).view(-1, 1, 1, 1)
        return float(numbers(mean_psnr(clean, estimate), (), "The mean PSNR", "Average over the images."))

    tenth = measured(0.1)
    expect(
        tenth > 0,
        f"An error of 0.1 at each pixel gives {short(tenth)} dB; a better image must have *more*. Look at the sign.",
    )
    expect(
        close(tenth, 20, 1e-3),
        f"An error of 0.1 at each pixel is a mean square of 0.01, and 20 dB; you say {short(tenth)}. "
        "It is 10 times the logarithm to base 10, of the *squared* error.",
    )
    expect(
        close(measured(0.01), 40, 1e-3), f"An error of 0.01 at each pixel is 40 dB; you say {short(measured(0.01))}."
    )
    both = measured(0.1, 0.01)
    expect(
        close(both, 30, 1e-3),
        f"One image at 20 dB and one at 40 dB are 30 dB on average; you say {both:.1f}. "
        "First a PSNR for each image, then the mean: the other way round the worst image decides.",
    )
    return (
        "10 dB more is a tenth of the squared error. Papers differ in what they average first: ask before you compare."
    )


def _belief(belief):
    levels = torch.arange(256)
    clean = torch.exp(-levels / 40.0) + 0.01
    clean = clean / clean.sum()
    for r, salt in ((0.1, 0.3), (0.5, 0.8)):
        w = numbers(belief(clean, r, salt), (256,), "The belief in each of 256 grey levels", "One a grey level.")

        def truth(black, white, r=r):
            return [
                ((1 - r) * clean[at] / ((1 - r) * clean[at] + r * u)).item() for at, u in ((0, black), (255, white))
            ]

        ends, right = w[[0, 255]], truth(1 - salt, salt)
        expect(
            not close(ends, truth(salt, 1 - salt)), "Salt is white, pepper is black: you have them the other way round."
        )
        expect(
            not close(ends, truth(1, 1)),
            "Your noise is black with probability 1, and white as well. Of the *replaced* pixels, how many are which?",
        )
        expect(
            not close(ends, truth(r * (1 - salt), r * salt)),
            "The share r counts twice: `replaced` says what a pixel shows *if* it was replaced, and sums to 1. (1) brings in r.",
        )
        expect(
            close(w[1:-1], 1),
            f"Salt and pepper make no grey, so every grey pixel is untouched for certain; you believe one at {short(w[128])}.",
        )
        expect(
            close(ends, right),
            f"With {r:.0%} of the pixels replaced, {salt:.0%} of these by white, a white one is untouched with probability "
            f"{right[1]:.4f}; you say {ends[1]:.4f}.",
        )
    return "With the right noise in it, equation (1) restores grey pixels for nothing; all doubt is at black and white."


def _share_replaced(share):
    p = torch.tensor([0.6, 0.25, 0.1, 0.04, 0.01, 0.0, 0.0, 0.0])  # eight grey levels; noise makes all of them
    u = torch.full((8,), 1 / 8)
    for r in (0.25, 0.6):
        counts = (10_000 * ((1 - r) * p + r * u)).round().long()
        image = torch.arange(8).repeat_interleave(counts)
        found = float(
            numbers(share(p[image], u[image]), (), "The share of replaced pixels", "One number for all pixels.")
        )
        expect(
            found < r + 0.2,
            f"{r:.0%} of the pixels are replaced, and you find {found:.0%}. "
            "A belief is the probability of *untouched*; r is the share of the others.",
        )
        expect(
            abs(found - r) < 0.01,
            f"{r:.0%} of the pixels are replaced, and you find {found:.0%}. A replaced pixel can look untouched: "
            "add up the doubts, not the verdicts.",
        )
    return "No pixel has to be judged to know how many are broken. This is expectation-maximisation, in two lines."


EXERCISES = {
    "04.1": Exercise("−10 · log10 of each entry of `errors`; the mean comes last.", _mean_psnr),
    "04.2": Exercise(
        "of the replaced pixels a share `salt` is white (level 255); how many are left for black (level 0)?", _belief
    ),
    "04.3": Exercise(
        "1 − belief is the chance that a pixel was replaced. How many replaced pixels do you expect?", _share_replaced
    ),
}
