"""Did the reader get it? The exercises of the notebooks, three each, check themselves.

    def kl_of_code(mu, logvar):
        return ...  # your line

    exercises.check("01.1", kl_of_code)

prints one of three verdicts and never raises for what a learner wrote: *not attempted yet*, with a hint; *not right
yet*, with what is wrong about it; *right*, with a sentence of insight. An answer is judged by its properties, so there
is no one way to write it.
"""

import dis
import traceback
import warnings
from collections.abc import Callable
from itertools import pairwise

from vae_utils.exercises import anomaly, compression, denoising, generation, imputation, theory
from vae_utils.exercises.properties import Exercise, Wrong
from vae_utils.training import seeded

EXERCISES: dict[str, Exercise] = {
    number: exercise
    for module in (theory, compression, generation, denoising, anomaly, imputation)
    for number, exercise in module.EXERCISES.items()
}


def check(number: str, answer: object) -> None:
    """Print what is to be said about the `answer` to exercise `number`, such as "01.1".

    Random numbers drawn by the answer are the same each time, and those of the notebook go on as if nothing had been drawn.
    Raises ValueError for a number that no exercise has.
    """
    if number not in EXERCISES:
        raise ValueError(f"There is no exercise {number!r}; there are {', '.join(EXERCISES)}.")
    exercise = EXERCISES[number]
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's warnings about a wrong answer say less than the verdict
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
        raise Wrong(
            f"check was given {type(answer).__name__}; give it the function itself, by its name, without calling it."
        )

    def call(*arguments):
        try:
            value = answer(*arguments)
        except Exception as error:
            raise Wrong(_what_stopped(error)) from error
        if value is ...:
            raise Wrong("The function returns `...`.")
        if value is None:
            raise Wrong("The function returns None. Is a `return` missing?")
        return value

    return call


def _what_stopped(error: Exception) -> str:
    """The error, and the last line of the learner's cell on the way to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame.line for frame in frames if frame.line and frame.filename == frames[0].filename]
    where = f" at the line `{own[-1]}`" if own else ""
    message = " ".join(str(error).split())
    return (
        f"Your function stopped{where} with {type(error).__name__}: {message}. Print the shapes of what goes into it."
    )


def _unfinished(answer: object, problem: Wrong) -> bool:
    """Whether a wrong answer still has the dots of the exercise in it: as its value, in its code, or in what stopped it."""
    if answer is None or answer is ...:
        return True
    return _has_placeholder(answer) or "ellipsis" in str(problem.__cause__).lower()


def _has_placeholder(answer: object) -> bool:
    """Whether `name = ...` or `return ...` is in a function's code. (`x[..., 0]` is not: there the dots are put to use.)"""
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    steps = list(dis.get_instructions(code))
    returned = any(step.opname == "RETURN_CONST" and step.argval is ... for step in steps)
    return returned or any(
        step.argval is ... and after.opname.startswith(("STORE", "RETURN", "UNPACK")) for step, after in pairwise(steps)
    )
