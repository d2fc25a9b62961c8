"""The committed notebooks are whole, and the checker that says so sees what is broken."""

import ast
import copy

import nbformat
import pytest
import torch
from notebook_lint import problems
from torch import nn

from vae_utils import model as package
from vae_utils import notebooks, plotting, settings
from vae_utils.training import seeded

NOTEBOOKS = notebooks.find([])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_whole(path):
    assert problems(path) == []


def test_the_series_begins_with_01():
    assert NOTEBOOKS[0].name == "01_theory_and_model.ipynb"


def inline_definitions():
    """Everything defined at the top level of notebook 01 by a `class` or `def`, executed by itself."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    namespace = {"torch": torch, "nn": nn, "F": nn.functional}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(("class VAE", "def loss_function")):
            assert all(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in ast.parse(cell.source).body)
            exec(cell.source, namespace)
    return namespace["VAE"], namespace["loss_function"]


@pytest.mark.parametrize("latent_dim", [2, 10])
def test_the_class_in_notebook_01_is_the_packages(latent_dim):
    inline_class, inline_loss = inline_definitions()
    inline, imported = inline_class(latent_dim), package.VAE(latent_dim)
    assert {k: v.shape for k, v in inline.state_dict().items()} == {
        k: v.shape for k, v in imported.state_dict().items()
    }
    imported.load_state_dict(inline.state_dict())
    inline.to(memory_format=torch.channels_last)  # laid out like the package's, so that both add in the same order
    x = torch.rand(5, 1, 28, 28)
    results = []
    for net, loss in ((inline, inline_loss), (imported, package.loss_function)):
        with seeded(0):
            recon, mu, logvar = net(x)
        value = loss(recon, x, mu, logvar, beta=2.0)
        value.backward()
        results.append([recon, mu, logvar, value, *(p.grad for _, p in sorted(net.named_parameters()))])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


# ---- the checker, tested with broken notebooks ----


def good_notebook():
    v4 = nbformat.v4
    png = v4.new_output(
        "display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "A line that rises from left to right."}}
    )
    verdict = v4.new_output("stream", name="stdout", text="✓ the claim\n")
    code = lambda source, count, *outputs, tags=(): v4.new_code_cell(  # noqa: E731
        source, execution_count=count, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {}
    )
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Title\n\n## Section\n\nSee [the paper](https://arxiv.org/abs/1312.6114)."),
            code("print(0.25)", 1, v4.new_output("stream", name="stdout", text="0.25\n")),
            code("show(figure)", 2, png),
            v4.new_markdown_cell("The line rises by 0.25."),
            code(
                "claims.verdicts(mnist_only=True)", 3, copy.deepcopy(verdict), tags=["nbval-check-output", "mnist-only"]
            ),
            code("claims.verdicts()", 4, verdict, tags=["nbval-check-output"]),
        ]
    )


def strip(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def run_out_of_order(notebook):
    notebook.cells[1].execution_count = 7


def fail_a_claim(notebook):
    notebook.cells[-1].outputs[0].text = "✗ the claim\n"


def save_an_error(notebook):
    notebook.cells[1].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))


def drop_the_tag(notebook):
    notebook.cells[-1].metadata = {}


def add_a_cell_at_the_end(notebook):
    notebook.cells.append(nbformat.v4.new_code_cell("1", execution_count=5))


def silence_the_verdicts(notebook):
    notebook.cells[-1].outputs = []


def drop_the_alt_text(notebook):
    notebook.cells[2].outputs[0].metadata = {}


def leave_the_figure_alone(notebook):
    del notebook.cells[3]


def let_a_number_drift(notebook):
    notebook.cells[3].source = "The line rises by 0.26."


def add_a_second_title(notebook):
    notebook.cells[3].source += "\n# Another\n"


def skip_a_level(notebook):
    notebook.cells[3].source += "\n#### Deep\n"


def save_widget_state(notebook):
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}


def name_a_path(notebook):
    notebook.cells[1].outputs[0].text = "0.25 saved in /home/somebody/x\n"


def write_long_cells(notebook):
    notebook.cells[1].source = "\n".join(["x = 1"] * 60)
    notebook.cells[2].source = "\n".join(["x = 1"] * 60)
    notebook.cells.insert(1, nbformat.v4.new_code_cell("\n".join(["x = 1"] * 60)))


def keep_warnings(notebook):
    notebook.cells[1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="UserWarning"))


def grow(notebook):
    notebook.cells[2].outputs[0].data["image/png"] = "A" * 2_500_000


BREAKS = {
    strip: "stripped",
    run_out_of_order: "top to bottom",
    fail_a_claim: "failed claim",
    save_an_error: "ValueError: no",
    drop_the_tag: "tagged",
    add_a_cell_at_the_end: "at the end",
    silence_the_verdicts: "no verdict",
    drop_the_alt_text: "alt text",
    leave_the_figure_alone: "no sentence below",
    let_a_number_drift: "states 0.26",
    add_a_second_title: "2 headings of level 1",
    skip_a_level: "level 4 follows one of level 2",
    save_widget_state: "widget state",
    name_a_path: "path of one machine",
    write_long_cells: "longer than",
    keep_warnings: "stderr",
    grow: "MB",
}


def test_a_good_notebook_passes(tmp_path):
    nbformat.write(good_notebook(), tmp_path / "n.ipynb")
    assert problems(tmp_path / "n.ipynb") == []


@pytest.mark.parametrize("breakage", BREAKS, ids=lambda breakage: breakage.__name__)
def test_a_broken_notebook_is_told_what_is_wrong(tmp_path, breakage):
    notebook = good_notebook()
    breakage(notebook)
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert any(BREAKS[breakage] in problem for problem in problems(tmp_path / "n.ipynb"))


def add_exercises(notebook):
    """Three exercises before the verdicts, as they are committed."""
    v4 = nbformat.v4
    for place in (1, 2, 3):
        hint = v4.new_output("stream", name="stdout", text=f"Exercise 04.{place}: not attempted yet. Hint: think.\n")
        solution = "```python\n# the 4.44 is code, and no heading\n```"
        notebook.cells[-2:-2] = [
            v4.new_code_cell(f'exercises.check("04.{place}", ...)', outputs=[hint]),
            v4.new_markdown_cell(f"<details><summary>Solution</summary>\n\n{solution}\n\nSo.\n\n</details>"),
        ]
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count


def leave_an_exercise_out(notebook):
    del notebook.cells[-4:-2]
    notebook.cells[-2].execution_count, notebook.cells[-1].execution_count = 5, 6


def commit_an_answer(notebook):
    notebook.cells[-4].outputs[0].text = "Exercise 04.3: right.\n"


def forget_the_solution(notebook):
    notebook.cells[-3].source = "Think again."


def test_a_notebook_of_the_series_with_three_exercises_passes(tmp_path):
    notebook = good_notebook()
    add_exercises(notebook)
    nbformat.write(notebook, tmp_path / "04_n.ipynb")
    assert problems(tmp_path / "04_n.ipynb") == []


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (leave_an_exercise_out, "expected ['04.1', '04.2', '04.3']"),
        (commit_an_answer, "04.3 was run with an answer"),
        (forget_the_solution, "04.3 has no solution"),
    ],
)
def test_a_broken_exercise_is_told(tmp_path, breakage, said):
    notebook = good_notebook()
    add_exercises(notebook)
    breakage(notebook)
    nbformat.write(notebook, tmp_path / "04_n.ipynb")
    (problem,) = problems(tmp_path / "04_n.ipynb")
    assert said in problem


def test_normalising_drops_bars_warnings_and_widget_state():
    notebook = good_notebook()
    bar = nbformat.v4.new_output("display_data", {notebooks.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "0%"})
    notebook.cells[1].outputs.append(bar)
    notebook.cells[1].metadata["execution"] = {"iopub.status.busy": "2026"}
    keep_warnings(notebook)
    save_widget_state(notebook)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    notebooks.normalise(notebook)
    assert [output.output_type for output in notebook.cells[1].outputs] == ["stream"]
    assert notebook.cells[1].metadata == {}
    assert notebook.cells[-1].metadata.tags == ["nbval-check-output"]
    assert "widgets" not in notebook.metadata and notebook.metadata.language_info == {"name": "python"}


def test_figures_with_a_name_are_found_for_the_readme():
    notebook = good_notebook()
    assert notebooks.named_figures(notebook) == {}
    notebook.cells[2].outputs[0].metadata["image/png"]["name"] = "line"
    assert notebooks.named_figures(notebook) == {"line.png": b"\0\0\0"}


def test_animations_with_a_name_are_found_for_the_readme(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **options: shown.append((data, options["metadata"])))
    for name in ("walk", None):
        plotting.show_animation(torch.rand(3, 1, 4, 4), alt="Three frames.", name=name)
    notebook = good_notebook()
    notebook.cells[1].outputs = [nbformat.v4.new_output("display_data", d, metadata=m) for d, m in shown]
    found = notebooks.named_figures(notebook)
    assert list(found) == ["walk.gif"] and found["walk.gif"].startswith(b"GIF89a")


def test_asking_for_a_notebook_that_is_not_there_names_those_that_are():
    with pytest.raises(SystemExit, match=r"'99'.*01_theory_and_model"):
        notebooks.find(["99"])
    assert settings.project_root() / "notebooks" == NOTEBOOKS[0].parent
