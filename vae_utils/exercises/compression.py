"""Exercises of notebook 02: whole numbers, what they cost by a table that both sides know, and the bits that come back."""

import math

import torch
from torch.distributions import Normal

from vae_utils.exercises.properties import Exercise, close, expect, numbers, short


def _quantise(quantise):
    z = torch.linspace(-3.3, 3.3, 67)
    for step in (0.5, 2.0):
        value = quantise(z, step)
        steps = numbers(value, (67,), "The quantised code")
        expect(
            isinstance(value, torch.Tensor) and not value.is_floating_point(),
            "The result holds numbers with a decimal point; a codec wants whole numbers, such as `.long()` makes. "
            "(Multiplying by `step` is the decoder's work.)",
        )
        off = abs(steps * step - z.double().numpy())
        expect(
            not close(steps, z.round()),
            f"With step = {step:g} you give z rounded to whole numbers: how many *steps* is z?",
        )
        expect(
            off.max() <= step / 2 + 1e-5,
            f"With step = {step:g} a number is off by up to {off.max():.2g}, more than half a step. "
            "`.long()` and floor cut off; round to the nearest.",
        )
    return "Rounding errors are uniform, so their mean square is step²/12; halving the step costs about a bit a number."


def _honest_bytes(honest_bytes):
    flat = numbers(honest_bytes(torch.arange(256).repeat(4), torch.full((256,), 9)), (), "The size of 1024 integers")
    expect(
        flat > 0, f"1024 integers need {flat:.0f} bytes, says your line: the logarithm of a probability is negative."
    )
    expect(
        not close(flat, 1024 * math.log(2)),
        "256 values, all equally probable, cost a byte each; you say 0.69 bytes. That is nats: a bit is a logarithm to base 2.",
    )
    expect(
        close(flat, 1024),
        f"1024 integers, 256 values equally probable, cost a byte each; you say {short(flat)} bytes in all.",
    )
    table, rare = torch.tensor([899, 89, 9]), torch.full((100,), 2)
    p = (table + 1) / (table + 1).sum()
    value = numbers(honest_bytes(rare, table), (), "The size of 100 integers")
    expect(
        not close(value, 100 * -(p * p.log2()).sum().item() / 8),
        "You charge each integer what those of the *table* cost on average; rare ones cost more. Look up the p of each.",
    )
    expect(
        value > 0.1,
        "A hundred times the same value costs nothing, you say: with a table counted on these very integers, which the receiver "
        "does not have.",
    )
    truth = 100 * -p[2].log2().item() / 8
    expect(
        close(value, truth),
        f"A hundred integers of probability 1/100 cost {truth:.1f} bytes; you say {short(value)}. Rare is dear.",
    )
    return "What this is above the integers' own entropy is a KL divergence: the price of coding by somebody else's frequencies."


def _file_bits(file_bits):
    x, z = torch.tensor([1.5, -0.5, 0.2, 2.0]), torch.tensor([0.3, 0.1, -0.4, 1.8])
    likelihood, prior, posterior = (
        Normal(z, 1.0).log_prob(x),
        Normal(0.0, 1.0).log_prob(z),
        Normal(x / 2, 0.5**0.5).log_prob(z),
    )
    exact = -Normal(0.0, 2**0.5).log_prob(x) / math.log(2)

    def length(count):
        terms = likelihood[:count], prior[:count], posterior[:count]
        return float(
            numbers(file_bits(*terms), (), f"The length of a file of {count} image(s)", "One number for the file.")
        )

    paid = (-likelihood - prior) / math.log(2)
    first, second = length(1), length(2)
    expect(first > 0, "Your file has a negative length: a probability p costs −log p.")
    expect(
        not close(first, exact[0]),
        "You give bits back for the first image. But nothing lies on the stack yet: there was nothing to pop.",
    )
    expect(
        close(first, paid[0]),
        f"The first image costs {paid[0]:.2f} bits, for its pixels and for z; you say {short(first)}.",
    )
    expect(
        not close(second - first, paid[1]),
        "You pay for x and for z of the second image, and nothing comes back. But its z was popped: the stack shrank first.",
    )
    expect(
        close(second - first, exact[1]),
        f"Here q is the exact posterior, so the second image should add −log2 p(x) = {exact[1]:.2f} bits; "
        f"it adds {short(second - first)}. Popping z makes the stack *shorter*: mind the sign of log q.",
    )
    whole = length(4)
    expect(
        close(whole, first + exact[1:].sum()),
        f"Four images take {first + exact[1:].sum():.2f} bits; you say {short(whole)}.",
    )
    return "From the second image on each adds its −ELBO, in bits; the first pays for the stack. Hence many images in one file."


EXERCISES = {
    "02.1": Exercise(
        "z / step says how many steps z is; the nearest whole number is round, then `.long()`.", _quantise
    ),
    "02.2": Exercise(
        "`p[integers]` looks up the probability of each integer; one of probability p costs −log2 p.", _honest_bytes
    ),
    "02.3": Exercise(
        "pixels and z of every image are pushed; z of every image but the first is popped, `[1:]`.", _file_bits
    ),
}
