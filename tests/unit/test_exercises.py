"""The exercises in three states, taken from the notebooks: as committed, as solved there, and wrong as people get them wrong."""

import ast
import re
import warnings
from dataclasses import dataclass

import nbformat
import numpy as np
import pytest
import torch

from vae_utils import exercises, notebooks
from vae_utils.exercises.properties import Wrong, numbers, short

# For each exercise: a line in place of the one with the dots, and what the check must say about it.
WRONG = {
    "01.1": [
        ("return 0.5 * (1 + logvar - mu.pow(2) - variance).sum(1)", "a KL divergence never is"),
        ("return -0.5 * torch.sum(1 + logvar - mu.pow(2) - variance)", "sum over the latent numbers (dimension 1)"),
        ("return -0.5 * (1 + logvar - mu.pow(2) - variance).sum(0)", "sum over the latent numbers (dimension 1)"),
        ("return -(1 + logvar - mu.pow(2) - variance).sum(1)", "Mind the factor ½"),
        ("return -0.5 * (1 + logvar - mu.pow(2) - variance.pow(2)).sum(1)", "logvar is log σ²"),
        ("return -0.5 * (1 + logvar - mu.pow(2) - variance).mean(1)", "sum, do not average"),
        ("return 0.5 * mu.pow(2).sum(1)", "logvar is log σ²"),
    ],
    "01.2": [
        ("return torch.distributions.Exponential(1 / scale).sample((count,))", "No gradient can reach"),
        ("return scale * torch.log(1 - u)", "negative"),
        ("return -torch.log(1 - u) / scale", "the mean is 0.5"),
        ("return 1 - torch.exp(-u / scale)", "Solve u ="),
        ("return 2 * scale * u", "the spread is not"),
        ("return -torch.log(1 - u) * 2", "No gradient can reach"),
    ],
    "01.3": [
        ("return (groups.logsumexp(2) - math.log(log_weights.shape[1])).mean(1)", "Of how many is it the mean"),
        ("return groups.logsumexp(2).mean(1)", "Of how many is it the mean"),
        ("return groups.mean(2).mean(1)", "average the weights first"),
        ("return log_weights.logsumexp(1) - math.log(log_weights.shape[1])", "Average the *bounds*"),
        ("return groups.exp().mean(2).log().mean(1)", "exp(−1000) is 0"),
        ("return groups.logsumexp(2) - math.log(k)", "then the mean over the groups"),
    ],
    "02.1": [
        ("return (z / step).long()", "round to the nearest"),
        ("return (z / step).floor().long()", "round to the nearest"),
        ("return (z / step).round() * step", "whole numbers, such as"),
        ("return z.round().long()", "how many *steps*"),
    ],
    "02.2": [
        ("bits = -p[integers].log().sum()", "That is nats"),
        ("bits = p[integers].log2().sum()", "negative"),
        ("bits = -len(integers) * (p * p.log2()).sum()", "Look up the p of each"),
        ("q = integers.bincount() / len(integers); bits = -q[integers].log2().sum()", "the receiver does not have"),
        ("bits = len(integers) * math.log2(len(table))", "cost 83.0 bytes"),
        ("bits = -p[integers].log2().mean()", "in all"),
    ],
    "02.3": [
        ("nats = (log_qz_given_x - log_px_given_z - log_pz).sum()", "there was nothing to pop"),
        ("nats = -(log_px_given_z + log_pz).sum()", "nothing comes back"),
        ("nats = -(log_px_given_z + log_pz).sum() - log_qz_given_x[1:].sum()", "mind the sign"),
        ("nats = (log_px_given_z + log_pz).sum() - log_qz_given_x[1:].sum()", "negative length"),
        ("nats = -log_px_given_z.sum()", "for its pixels and for z"),
    ],
    "03.1": [
        ("return temperature * (mean + spread * eps)", "not the mean"),
        ("return temperature * eps", "not the mean"),
        ("return mean + temperature * eps", "Where does `spread` come in"),
        ("return mean + temperature**2 * spread * eps", "yours grew 4.0 times"),
        ("return codes.mean(0) + temperature * spread * eps", "the digit's mean"),
    ],
    "03.2": [
        ("limit = made_distance.quantile(rate)", "flags a tenth of *any*"),
        ("limit = test_distance.quantile(1 - rate)", "Which end"),
        ("limit = test_distance.mean()", "Which end"),
        ("limit = rate", "Which end"),
        ("limit = 0", "has a share of 1"),
    ],
    "03.3": [
        ("return mean + eps @ factor", "Each *row* of eps is one draw"),
        ("return eps @ factor.T", "your draws around (0.0, 0.0)"),
        ("return mean + eps * codes.std(0)", "go their own ways"),
        ("return mean + eps @ torch.cov(codes.T)", "The spreads should be"),
        ("return mean + factor @ eps", "RuntimeError"),
    ],
    "04.1": [
        ("return -10 * errors.mean().log10()", "the other way round"),
        ("return (10 * errors.log10()).mean()", "Look at the sign"),
        ("return (-20 * errors.log10()).mean()", "logarithm to base 10"),
        ("return (-10 * errors.log()).mean()", "logarithm to base 10"),
        ("return -10 * errors.log10()", "Average over the images"),
    ],
    "04.2": [
        ("replaced[0], replaced[255] = salt, 1 - salt", "the other way round"),
        ("replaced[0], replaced[255] = 1, 1", "black with probability 1, and white as well"),
        ("replaced[0], replaced[255] = r * (1 - salt), r * salt", "r counts twice"),
        ("replaced += 1 / 256", "make no grey"),
        ("replaced[0], replaced[255] = 0.5, 0.5", "a white one is untouched with"),
    ],
    "04.3": [
        ("r = (belief < 0.5).float().mean()", "the doubts, not the verdicts"),
        ("r = belief.mean()", "the probability of *untouched*"),
        ("r = 1 - belief", "One number for all pixels"),
    ],
    "05.1": [
        ("return highest_first[count].item()", "counts from 0"),
        ("return highest_first[-count].item()", "cut at the low scores"),
        ("return validation[count - 1].item()", "cut at the low scores"),
        ("return highest_first[:count]", "It is one number"),
        ("return validation.quantile(1 - rate).item()", "the fifth largest, 95"),
    ],
    "05.2": [
        ("wins = ranks.sum()", "more than 1"),
        ("wins = ranks.sum() - n", "more than 1"),
        ("wins = n * len(normal) - (ranks.sum() - n * (n + 1) / 2)", "the strange ones *lose*"),
        ("wins = np.floor(ranks).sum() - n * (n + 1) / 2", "the AUROC is 0.5"),
    ],
    "05.3": [
        ("weights = np.linalg.lstsq(judged, error, rcond=None)[0]", "fitted to the images it judges"),
        ("weights = np.linalg.lstsq(known, val_ink, rcond=None)[0]", "to what validation digits cost"),
        ("weights = np.array([*np.polyfit(val_ink, val_error, 1), 0])[[0, 2, 1]]", "Fit all three weights"),
        ("weights = np.linalg.solve(known, val_error)", "LinAlgError"),
    ],
    "06.1": [
        ("return guess", "keep it"),
        ("return torch.where(observed, guess, partial)", "the wrong way round"),
        ("return partial * observed + guess * ~observed", "0 · nan is nan"),
    ],
    "06.2": [
        ("return errors.mean().sqrt()", "divide by all pixels"),
        ("return (errors * ~observed).mean().sqrt()", "divide by all pixels"),
        ("return errors[observed].mean().sqrt()", "those are the pixels that were seen"),
        ("return errors[~observed].mean()", "without the root"),
        ("return errors[~observed].sqrt().mean()", "First the mean of all squares"),
        ("return ((errors * ~observed).flatten(1).sum(1) / (~observed).flatten(1).sum(1)).sqrt().mean()", "First the mean"),
    ],
    "06.3": [
        ("return across @ torch.linalg.solve(among_seen, seen - mean[observed])", "Only the *surprise*"),
        ("return mean[gap] + across @ torch.linalg.solve(among_seen, seen)", "Only the *surprise*"),
        ("return mean[gap] + across @ (seen - mean[observed])", "*divided by*"),
        ("return mean[gap] + across @ ((seen - mean[observed]) / among_seen.diagonal())", "the inverse of their covariance"),
        ("return mean[gap]", "you say 0.5"),
    ],
}  # fmt: skip

# Other ways to be right.
RIGHT = {
    "01.2": ["return -scale * torch.log(u)", "return torch.distributions.Exponential(1 / scale).rsample((count,))"],
    "01.3": ["return torch.stack([g.logsumexp(1) - math.log(k) for g in log_weights.split(k, 1)]).mean(0)"],
    "02.1": ["return torch.floor(z / step + 0.5).int()", "return torch.tensor([round(v / step) for v in z.tolist()])"],
    "02.2": ["bits = sum(-math.log2(p[i]) for i in integers)"],
    "02.3": ["nats = (log_qz_given_x - log_px_given_z - log_pz).sum() - log_qz_given_x[0]"],
    "03.2": ["limit = test_distance.sort().values[round(rate * len(test))]"],
    "03.3": [
        "return mean + (factor @ eps.T).T",
        "return torch.distributions.MultivariateNormal(mean, torch.cov(codes.T)).sample((count,))",
    ],
    "04.1": ["return sum(-10 * e.log10() for e in errors) / len(errors)"],
    "04.2": ["replaced[[0, 255]] = torch.tensor([1 - salt, salt])"],
    "04.3": ["r = 1 - belief.mean()"],
    "05.1": ["return validation.topk(count).values[-1]"],
    "05.2": ["wins = (ranks - np.arange(1, n + 1)).sum()"],
    "05.3": ["weights = np.linalg.pinv(known) @ val_error"],
    "06.1": ["return partial.where(observed, guess)"],
    "06.2": ["return (errors[~observed].sum() / (~observed).sum()).sqrt()"],
    "06.3": ["return mean[gap] + across @ torch.linalg.inv(among_seen) @ (seen - mean[observed])"],
}


@dataclass(frozen=True)
class Committed:
    """An exercise as it stands in a notebook."""

    imports: str  # of the cells that set the notebook up, and of the section's first
    heading: str
    stub: str
    output: str
    solution: str

    def with_line(self, statement: str) -> str:
        """The cell with `statement` in place of the line with the dots."""
        (dots,) = [line for line in self.stub.splitlines() if "..." in line]
        indent = dots[: len(dots) - len(dots.lstrip())]
        return self.stub.replace(dots, indent + statement)


def imports_of(source: str) -> str:
    body = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.unparse(ast.Module(body, type_ignores=[]))


def committed(path) -> dict[str, Committed]:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    last = next(place for place, cell in enumerate(code) if "Claims(" in cell.source)
    imports = "\n".join(imports_of(cell.source) for cell in code[: last + 1])
    found = {}
    for place, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        if "from vae_utils import exercises" in cell.source:
            imports += "\n" + imports_of(cell.source)
        for number in re.findall(r'exercises\.check\("([^"]+)"', cell.source):
            solution = re.search(
                r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n\S.*\n\n</details>",
                cells[place + 1].source,
                flags=re.DOTALL,
            )
            assert solution, f"{number}: the cell below the exercise folds no solution with a sentence"
            output = "".join(output.get("text", "") for output in cell.outputs)
            found[number] = Committed(imports, cells[place - 1].source, cell.source, output, solution[1])
    return found


NOTEBOOKS = {path: committed(path) for path in notebooks.find([])}
COMMITTED = {number: exercise for found in NOTEBOOKS.values() for number, exercise in found.items()}
CASES = [(n, *case) for n, cases in WRONG.items() if n in COMMITTED for case in cases]


def run(exercise: Committed, cell: str, capsys) -> str:
    """What the cell prints after the imports alone, warnings being errors."""
    namespace = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(exercise.imports, namespace)
        capsys.readouterr()
        exec(compile(cell, "<cell>", "exec"), namespace)
    return capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_three_exercises_from_easy_to_hard(path):
    number = path.name[:2]
    assert list(NOTEBOOKS[path]) == [f"{number}.{place}" for place in (1, 2, 3)]
    assert list(NOTEBOOKS[path]) == [name for name in exercises.EXERCISES if name.startswith(f"{number}.")]
    headings = [exercise.heading.splitlines()[0] for exercise in NOTEBOOKS[path].values()]
    levels = ("easy", "medium", "hard")
    for place, (heading, level) in enumerate(zip(headings, levels, strict=True), 1):
        assert heading.startswith(f"### Exercise {place} ({level}): ")


def test_each_exercise_has_a_check_and_a_wrong_answer():
    assert list(exercises.EXERCISES) == list(WRONG) == [f"{n:02d}.{place}" for n in range(1, 7) for place in (1, 2, 3)]


@pytest.mark.parametrize("number", COMMITTED)
def test_as_committed_it_gives_a_hint(number, capsys):
    exercise = COMMITTED[number]
    printed = run(exercise, exercise.stub, capsys)
    assert printed == f"Exercise {number}: not attempted yet. Hint: {exercises.EXERCISES[number].hint}\n"
    assert exercise.output == printed, "the committed output is not what the cell prints"


@pytest.mark.parametrize("number", COMMITTED)
def test_the_folded_solution_is_right(number, capsys):
    exercise = COMMITTED[number]
    assert run(exercise, exercise.solution, capsys).startswith(f"Exercise {number}: right. ")


@pytest.mark.parametrize("number", COMMITTED)
def test_one_idea_is_missing(number):
    exercise = COMMITTED[number]
    pairs = zip(exercise.stub.splitlines(), exercise.solution.splitlines(), strict=True)
    assert ["..." in before for before, after in pairs if before != after] == [True]


@pytest.mark.parametrize(("number", "line", "phrase"), CASES)
def test_a_wrong_answer_is_told_what_is_wrong(number, line, phrase, capsys):
    exercise = COMMITTED[number]
    printed = run(exercise, exercise.with_line(line), capsys)
    assert printed.startswith(f"Exercise {number}: not right yet. ")
    assert phrase in printed


@pytest.mark.parametrize(
    ("number", "line"), [(n, line) for n, lines in RIGHT.items() if n in COMMITTED for line in lines]
)
def test_there_is_more_than_one_way_to_be_right(number, line, capsys):
    exercise = COMMITTED[number]
    assert run(exercise, exercise.with_line(line), capsys).startswith(f"Exercise {number}: right. ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_exercise_takes_no_name_that_the_notebook_uses(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    taken = {node.name for e in NOTEBOOKS[path].values() for node in ast.parse(e.stub).body if hasattr(node, "name")}
    rest = "\n".join(source for source in cells if "exercises.check(" not in source)
    used = {node.id for node in ast.walk(ast.parse(rest)) if isinstance(node, ast.Name)}
    defined = {node.name for node in ast.walk(ast.parse(rest)) if hasattr(node, "name")}
    assert taken and not taken & (used | defined)


# ---- the mechanism ----


def said(answer, capsys, number="01.1") -> str:
    exercises.check(number, answer)
    return capsys.readouterr().out


def kl(mu, logvar):
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1)


@pytest.mark.parametrize("answer", [..., None])
def test_a_value_that_is_no_answer_is_not_attempted(answer, capsys):
    assert "not attempted yet. Hint: " in said(answer, capsys)


def assigned(mu, logvar):
    per_number = ...
    return per_number.sum(1)


def unpacked(mu, logvar):
    a, b = ...
    return a + b


def added(mu, logvar):
    return mu + ...


def passed_on(mu, logvar):
    return torch.exp(...)


def unused(mu, logvar):
    per_number = ...  # noqa: F841
    return mu.sum(1)


@pytest.mark.parametrize("stub", [assigned, unpacked, added, passed_on, unused], ids=lambda stub: stub.__name__)
def test_dots_that_are_left_are_found_wherever_they_stop_the_function(stub, capsys):
    assert "not attempted yet. Hint: " in said(stub, capsys)


def test_dots_above_a_right_line_do_no_harm(capsys):
    def answer(mu, logvar):
        result = ...
        result = kl(mu, logvar)
        return result

    assert "right. " in said(answer, capsys)


def test_dots_that_are_put_to_use_are_an_attempt(capsys):
    assert "not right yet. " in said(lambda mu, logvar: mu[..., 0], capsys)


def test_a_function_without_return_is_told_so(capsys):
    def answer(mu, logvar):
        kl(mu, logvar)

    assert "Is a `return` missing?" in said(answer, capsys)


def test_a_result_instead_of_a_function_is_told_so(capsys):
    assert "the function itself" in said(torch.zeros(2), capsys)


def test_an_error_is_shown_with_its_type_its_message_and_its_line(capsys):
    def answer(mu, logvar):
        return mu @ logvar  # two tables that do not fit

    printed = said(answer, capsys)
    assert "not right yet. Your function stopped" in printed and "RuntimeError" in printed
    assert "return mu @ logvar" in printed and "mat1 and mat2" in printed


def test_what_the_learner_interrupts_is_interrupted(capsys):
    def answer(mu, logvar):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("01.1", answer)


@pytest.mark.parametrize("answer", [lambda mu, logvar: "seven", lambda mu, logvar: {}, lambda mu, logvar: [[1.0], []]])
def test_an_answer_that_is_no_number_is_told_so(answer, capsys):
    assert "expected numbers" in said(answer, capsys)


def test_arrays_and_lists_will_do_as_well(capsys):
    assert "right. " in said(lambda mu, logvar: kl(mu, logvar).numpy(), capsys)
    assert "right. " in said(lambda mu, logvar: kl(mu, logvar).tolist(), capsys)


def test_an_unknown_exercise_names_those_there_are():
    with pytest.raises(ValueError, match=r"'07\.1'.*01\.1"):
        exercises.check("07.1", kl)


def test_the_notebooks_random_numbers_go_on_as_if_nothing_had_been_checked(capsys):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    exercises.check("01.2", lambda scale, count: -scale * torch.rand(count).log())
    assert torch.equal(torch.rand(2), expected)


def test_numbers_says_what_shape_belongs_there():
    assert numbers(torch.ones(2, requires_grad=True), (2,), "it").dtype == np.float64
    with pytest.raises(Wrong, match=r"it has shape \(2,\); expected the shape of a single number. hint"):
        numbers([1, 2], (), "it", "hint")
    with pytest.raises(Wrong, match="it holds nan"):
        numbers(float("nan"), (), "it")
    assert short(-0.0) == "0" and short(0.12345) == "0.123"
