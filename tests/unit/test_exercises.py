"""The exercises in three states, taken from the notebooks: as committed, as solved there, and wrong as people get them wrong."""

import ast
import math
import re
from collections import namedtuple

import nbformat
import pytest
import torch
from scipy.optimize import brentq

from vae_utils import exercises, settings

# An exercise, a line in place of the one with the dots, and a word of what the check must say about it.
WRONG = [
    ("01.1", "too_dear = -0.5 * (1 + middle - mu**2 - math.exp(middle)) < 1", "lower half"),
    ("01.1", "too_dear = -(1 + middle - mu**2 - math.exp(middle)) > 1", "factor ½"),
    ("01.2", "return torch.distributions.Exponential(1 / scale).sample((count,))", "gradient"),
    ("01.3", "grow = [nn.ConvTranspose1d(32, 16, 3, 2, 1), nn.ReLU(), nn.ConvTranspose1d(16, 1, 3, 2, 1)]", "37"),
    ("01.3", "grow = [nn.ConvTranspose1d(32, 1, 4, 4), nn.ReLU()]", "negative"),
    ("02.1", "return (z / step).long()", "nearest"),
    ("02.2", "bits = -len(integers) * (p * p.log2()).sum()", "rare"),
    ("02.2", "q = integers.bincount() / len(integers); bits = -q[integers].log2().sum()", "receiver"),
    ("02.3", "stack = stack.push(z, prior)", "which one"),
    ("02.3", "stack = stack", "bits"),
    ("02.3", "stack = z", "`push` returns"),
    ("03.1", "return temperature * (mean + spread * eps)", "mean"),
    ("03.2", "limit = made_distance.quantile(rate)", "any"),
    ("03.3", "return means[which] + torch.einsum('nij,ni->nj', factors[which], eps)", "row"),
    ("03.3", "return weights @ means + eps", "which"),
    ("04.1", "return -10 * errors.mean().log10()", "First"),
    ("04.2", "replaced[0], replaced[255] = salt, 1 - salt", "round"),
    ("04.2", "replaced[0], replaced[255] = 1, 1", "shared"),
    ("04.3", "p_clean = likelihood / (likelihood + u[y])", "common"),
    ("04.3", "p_clean = r * likelihood / (r * likelihood + (1 - r) * u[y])", "swapped"),
    ("05.1", "return highest_first[count].item()", "counts from 0"),
    ("05.2", "return real / (real + false_alarms)", "outnumber"),
    ("05.3", "return torch.cat([rows_of_ink, columns_of_ink], dim=1)", "bold"),
    ("06.1", "return variances.mean()", "single imputation"),
    ("06.1", "return variances.mean() + estimates.var()", "1 + 1/m"),
    ("06.1", "return variances.mean() + estimates.var() / len(estimates)", "independent"),
    ("06.2", "return held.float().mean().expand(count)", "group by group"),
    ("06.2", "return torch.stack([held[g].float().mean() for g in reversed(groups)])", "wrong way"),
    ("06.3", "logs = log_density", "twice as frequent"),
    ("06.3", "logs = weights.log() - 0.5 * (seen - means[:, observed]).square().sum(1)", "determinant"),
]


Committed = namedtuple("Committed", "imports heading stub output solution")  # an exercise as it stands in a notebook


def committed(path) -> dict[str, Committed]:
    """The exercises of one notebook, with its imports of other packages than this one."""
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    lines = [ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = "\n".join([line for line in lines if "vae_utils" not in line] + ["from vae_utils import exercises"])
    found = {}
    for heading, cell, below in zip(cells, cells[1:], cells[2:], strict=False):
        if cell.cell_type == "code" and (number := re.search(r'exercises\.check\("([^"]+)"', cell.source)):
            solution = re.search(r"<summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n\S", below.source, re.DOTALL)
            output = "".join(output.get("text", "") for output in cell.outputs)
            found[number[1]] = Committed(imports, heading.source, cell.source, output, solution[1])
    return found


PATHS = sorted((settings.project_root() / "notebooks").glob("*.ipynb"))
COMMITTED = {number: exercise for path in PATHS for number, exercise in committed(path).items()}


def run(exercise: Committed, cell: str, capsys) -> str:
    """What the cell prints after the imports alone."""
    capsys.readouterr()
    exec(compile(f"{exercise.imports}\n{cell}", "<cell>", "exec"), {})
    return capsys.readouterr().out


def test_each_notebook_has_three_exercises_from_easy_to_hard():
    assert list(COMMITTED) == list(exercises.EXERCISES)
    titles = [exercise.heading.splitlines()[0].split(":")[0] for exercise in COMMITTED.values()]
    assert titles == ["### Exercise 1 (easy)", "### Exercise 2 (medium)", "### Exercise 3 (hard)"] * (
        len(COMMITTED) // 3
    )


@pytest.mark.parametrize("number", exercises.EXERCISES)
def test_stub_solution_and_wrong_answers(number, capsys):
    exercise = COMMITTED[number]
    printed = run(exercise, exercise.stub, capsys)
    assert printed == f"Exercise {number}: not attempted yet. Hint: {exercises.EXERCISES[number].hint}\n"
    assert run(exercise, exercise.solution, capsys).startswith(f"Exercise {number}: right. ")
    pairs = list(zip(exercise.stub.splitlines(), exercise.solution.splitlines(), strict=True))
    [(dots, missing)] = [pair for pair in pairs if pair[0] != pair[1]]
    assert "..." in dots and missing.strip().removeprefix("return ") not in exercises.EXERCISES[number].hint
    indent = dots[: len(dots) - len(dots.lstrip())]
    wrong = [(line, word) for name, line, word in WRONG if name == number]
    assert wrong
    for line, word in wrong:
        said = run(exercise, exercise.stub.replace(dots, indent + line), capsys)
        assert said.startswith(f"Exercise {number}: not right yet. ") and word in said
    assert exercise.output == printed, "the committed output is not what the cell prints: run tools/refresh.py"


# ---- the mechanism ----


def one_nat(mu):
    return brentq(lambda logvar: 0.5 * (mu**2 + math.exp(logvar) - 1 - logvar) - 1, 0, 4)


def unused(mu):
    too_dear = ...  # noqa: F841
    return mu


def stops(mu):
    return torch.ones(2) @ torch.ones(3)


@pytest.mark.parametrize(
    ("answer", "verdict", "word"),
    [(answer, "not attempted yet. Hint", "equation") for answer in (..., None, unused, lambda m: m + ...)]
    + [
        (lambda m: torch.tensor(one_nat(m)), "right. ", ""),
        (lambda m: torch.tensor([m])[..., 0], "not right yet. ", ""),
    ]
    + [(torch.zeros(2), "not right yet. ", "Tensor"), (lambda m: print(end=""), "not right yet. ", "return")]
    + [(stops, "not right yet. ", "`return torch.ones(2) @"), (stops, "not right yet. ", "RuntimeError")]
    + [(lambda m: "seven", "not right yet. ", "str"), (lambda m: [[1.0], []], "not right yet. ", "list")]
    + [(lambda m: torch.zeros(3), "not right yet. ", "()"), (lambda m: math.nan, "not right yet. ", "nan")],
)
def test_what_is_said_about_an_answer(answer, verdict, word, capsys):
    exercises.check("01.1", answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"Exercise 01.1: {verdict}") and word in printed


def test_an_interrupt_and_an_unknown_number_are_raised_and_random_numbers_go_on(capsys):
    def interrupted(mu):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("01.1", interrupted)
    with pytest.raises(ValueError, match=r"'07\.1'"):
        exercises.check("07.1", one_nat)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    exercises.check("01.2", lambda scale, count: -scale * torch.rand(count).log())
    assert torch.equal(torch.rand(2), expected)
