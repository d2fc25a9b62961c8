"""The committed notebooks are whole, and the checker that says so sees what is broken."""

import ast

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_lint import problems
from torch import nn

from vae_utils import model as package
from vae_utils import settings
from vae_utils.training import seeded

NOTEBOOKS = sorted((settings.project_root() / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_whole(path):
    assert problems(path) == []


def test_the_class_and_the_loss_in_notebook_01_are_the_packages():
    namespace = {"torch": torch, "nn": nn, "F": nn.functional}
    for cell in nbformat.read(NOTEBOOKS[0], as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith(("class VAE", "def loss_function")):
            assert all(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in ast.parse(cell.source).body)
            exec(cell.source, namespace)
    inline, imported = namespace["VAE"](10), package.VAE(10)
    imported.load_state_dict(inline.state_dict())
    inline.to(memory_format=torch.channels_last)  # laid out like the package's, so that both add in the same order
    x = torch.rand(5, 1, 28, 28)
    with seeded(0):
        recon, mu, logvar = inline(x)
    mine = namespace["loss_function"](recon, x, mu, logvar, beta=2.0)
    with seeded(0):
        reconstruction, kl = imported.loss_terms(x, x)
    theirs = (reconstruction + 2.0 * kl).sum()
    with seeded(0):
        torch.testing.assert_close(imported(x), (recon, mu, logvar), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    mine.backward()
    theirs.backward()
    for name, parameter in inline.named_parameters():
        torch.testing.assert_close(parameter.grad, imported.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


# ---- the checker, tested with broken notebooks ----


def printed(text):
    return new_output("stream", name="stdout", text=text)


def good_notebook():
    def code(source, *outputs, tags=()):
        return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {})

    alt = {"image/png": {"alt": "A line that rises from left to right."}}
    cells = [
        new_markdown_cell("# Title\n\n## Section\n\nSee [the paper](https://arxiv.org/abs/1312.6114)."),
        code("# install\nprint(0.25)", printed("0.25\n"), tags=["setup"]),
        code("show(figure)", new_output("display_data", {"image/png": "AAAA"}, metadata=alt)),
        new_markdown_cell("The line rises by 0.25."),
    ]
    for place in (1, 2, 3):
        hint = printed(f"Exercise 04.{place}: not attempted yet. Hint: think.\n")
        solution = "```python\n# the 4.44 is code, and no heading\n```\n\nSo."
        cells.append(code(f'exercises.check("04.{place}", ...)', hint))
        cells.append(new_markdown_cell(f"<details><summary>Solution</summary>\n\n{solution}\n\n</details>"))
    verdict = "Findings\n✓ the claim\nSanity checks\n✓ one is one\n"
    cells.append(code("claims.verdicts(mnist_only=True)", printed(verdict), tags=["nbval-check-output", "mnist-only"]))
    cells.append(code("claims.verdicts()", printed(verdict), tags=["nbval-check-output"]))
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    return new_notebook(cells=cells)


def strip(cells):
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def lengthen(cells):
    for cell in cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(["x = 1"] * 60)


def output(number, text):
    """A breakage: another output of cell `number`."""
    return lambda cells: cells[number].outputs[0].update(text=text)


def source(number, text):
    """A breakage: `text` at the end of cell `number`."""
    return lambda cells: cells[number].update(source=cells[number].source + text)


BREAKS = {
    "stripped": strip,
    "top to bottom": lambda cells: cells[1].update(execution_count=7),
    "failed claim": output(-1, "Findings\n✗ the claim\n"),
    "ValueError: no": lambda cells: cells[1].outputs.append(
        new_output("error", ename="ValueError", evalue="no", traceback=[])
    ),
    "tagged": lambda cells: cells[-1].update(metadata={}),
    "at the end": lambda cells: cells.append(new_code_cell("1", execution_count=8)),
    "no verdict": output(-1, ""),
    "alt text": lambda cells: cells[2].outputs[0].update(metadata={}),
    "no sentence below": lambda cells: cells.__setitem__(slice(3, 4), [new_code_cell("1"), new_code_cell("2")]),
    "states 0.26": source(3, " Or by 0.26."),
    "2 headings of level 1": source(3, "\n# Another\n"),
    "level 4 follows one of level 2": source(3, "\n#### Deep\n"),
    "path of one machine": output(1, "0.25 saved in /home/somebody/x\n"),
    "longer than": lengthen,
    "stderr": lambda cells: cells[1].outputs.append(new_output("stream", name="stderr", text="UserWarning")),
    "MB": lambda cells: cells[2].outputs[0].data.update({"image/png": "A" * 2_500_000}),
    "expected the first": lambda cells: cells[1].update(metadata={}),
    "6 lines set up": source(1, "\nimport sys" * 5),
    "expected ['04.1', '04.2', '04.3']": source(8, '\nexercises.check("04.4", ...)'),
    "04.3 was run with an answer": output(8, "Exercise 04.3: right.\n"),
    "04.3 has no solution": lambda cells: cells[9].update(source="Think again."),
}


def test_a_good_notebook_passes_and_widget_state_does_not(tmp_path):
    notebook = good_notebook()
    nbformat.write(notebook, tmp_path / "04_n.ipynb")
    assert problems(tmp_path / "04_n.ipynb") == []
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    nbformat.write(notebook, tmp_path / "04_n.ipynb")
    assert ["widget state" in problem for problem in problems(tmp_path / "04_n.ipynb")] == [True]


@pytest.mark.parametrize("said", BREAKS)
def test_a_broken_notebook_is_told_what_is_wrong(tmp_path, said):
    notebook = good_notebook()
    BREAKS[said](notebook.cells)
    nbformat.write(notebook, tmp_path / "04_n.ipynb")
    assert any(said in problem for problem in problems(tmp_path / "04_n.ipynb"))
