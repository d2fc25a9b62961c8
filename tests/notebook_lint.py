"""What is wrong with a notebook, as a list of sentences: its structure, its outputs and its text."""

import re
import statistics
from itertools import pairwise
from pathlib import Path

import nbformat

MAX_BYTES = 2_000_000
MEDIAN_LINES, LONG_LINES, SETUP_LINES = 8, 25, 5
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|Users|tmp|work|mnt|var)/\w")
DECIMAL = re.compile(r"(?<![\w.,])\d+\.\d+(?!\w|\.\d)")
# numbers of papers and addresses are no results
REFERENCE = re.compile(r"\]\([^)]*\)|https?://\S+|arXiv:[\d.]+", re.IGNORECASE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
EXERCISE = re.compile(r'exercises\.check\("([^"]+)"')
EXERCISES = 3


def problems(path: Path) -> list[str]:
    """Everything wrong with the notebook at `path`; an empty list when nothing is."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    found = [
        *_execution(code),
        *_verdict_cells(code),
        *_figures(notebook.cells),
        *_text(notebook.cells),
        *_lengths(code),
    ]
    if re.match(r"\d\d_", path.name):
        found += [*_setup(code), *_exercises(notebook.cells, path.name[:2])]
    if "widgets" in notebook.metadata:
        found.append("widget state is saved in the metadata; GitHub refuses to show such notebooks")
    if path.stat().st_size > MAX_BYTES:
        found.append(f"{path.stat().st_size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB")
    return found


def _output_text(output: dict) -> str:
    return output.get("text", "") + output.get("data", {}).get("text/plain", "")


def _setup(code: list) -> list[str]:
    """The first code cell alone is the one that installs the package on Colab, and it is short."""
    tagged = [number for number, cell in enumerate(code) if "setup" in cell.metadata.get("tags", [])]
    lines = [line for line in code[0].source.splitlines() if line.strip() and not line.startswith("#")]
    found = [] if tagged == [0] else [f"code cells {tagged} are tagged 'setup'; expected the first"]
    return found if len(lines) <= SETUP_LINES else [*found, f"{len(lines)} lines set up; at most {SETUP_LINES}"]


def _execution(code: list) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"not run top to bottom in one go: execution counts {counts}")
    if not any(cell.outputs for cell in code):
        found.append("stripped: no cell has an output")
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"an error is saved: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"stderr is saved: {output.text[:80]!r}")
            if "✗" in _output_text(output) or "Traceback" in _output_text(output):
                found.append(f"a failed claim or a traceback is saved: {_output_text(output)[:80]!r}")
            if MACHINE_PATH.search(_output_text(output)):
                found.append(f"an output names a path of one machine: {_output_text(output)[:80]!r}")
        if MACHINE_PATH.search(cell.source):
            found.append(f"a cell names a path of one machine: {cell.source[:80]!r}")
    return found


def _verdict_cells(code: list) -> list[str]:
    """The last two code cells report the claims and are the only ones compared; those for MNIST alone come first."""
    found = []
    expected = {
        "claims.verdicts(mnist_only=True)": {"nbval-check-output", "mnist-only"},
        "claims.verdicts()": {"nbval-check-output"},
    }
    for cell, (source, tags) in zip(code[-2:], expected.items(), strict=False):
        if cell.source.strip() != source or set(cell.metadata.get("tags", [])) != tags:
            found.append(
                f"expected a cell {source!r} tagged {sorted(tags)} at the end; found {cell.source.strip()[:60]!r}"
            )
        elif not any("✓" in _output_text(output) for output in cell.outputs):
            found.append(f"the cell {source!r} shows no verdict")
    tagged = sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in code)
    if tagged != 2:
        found.append(f"{tagged} cells are compared by nbval; expected the two that print verdicts")
    return found


def _figures(cells: list) -> list[str]:
    found = []
    for number, cell in enumerate(cells):
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}):
                continue
            alt = output.metadata.get("image/png", {}).get("alt", "")
            if len(alt.split()) < 5:
                found.append(f"the figure of cell {number} has no describing alt text: {alt!r}")
            if not any(after.cell_type == "markdown" for after in cells[number + 1 : number + 3]):
                found.append(f"no sentence below the figure of cell {number} says what it shows")
    return found


def _text(cells: list) -> list[str]:
    found = []
    markdown = FENCED.sub("", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    levels = [len(mark) for mark in re.findall(r"^(#+) ", markdown, flags=re.MULTILINE)]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append(f"{levels.count(1)} headings of level 1; expected one, at the top")
    found += [f"a heading of level {b} follows one of level {a}" for a, b in pairwise(levels) if b > a + 1]
    shown = "\n".join(
        [cell.source for cell in cells if cell.cell_type == "code"]
        + [_output_text(output) for cell in cells for output in cell.get("outputs", [])]
    )
    numbers = set(re.findall(r"\d+\.\d+", shown))
    for number in sorted(set(DECIMAL.findall(REFERENCE.sub("", markdown)))):
        if number not in numbers:
            found.append(f"the text states {number}, which no output or code cell shows")
    return found


def _exercises(cells: list, number: str) -> list[str]:
    """Three cells that check themselves, committed as nobody has attempted them, each with its solution folded below."""
    checks = [(name, place) for place, cell in enumerate(cells) for name in EXERCISE.findall(cell.source)]
    checks = [(name, place) for name, place in checks if cells[place].cell_type == "code"]
    expected = [f"{number}.{place + 1}" for place in range(EXERCISES)]
    found = []
    if [name for name, _ in checks] != expected:
        found.append(f"exercises {[name for name, _ in checks]}; expected {expected}, in this order")
    for name, place in checks:
        if not any("not attempted yet" in _output_text(output) for output in cells[place].outputs):
            found.append(f"exercise {name} was run with an answer in it; put the dots back")
        below = cells[place + 1] if place + 1 < len(cells) else None
        if below is None or not below.source.startswith("<details><summary>Solution</summary>"):
            found.append(f"exercise {name} has no solution folded below it")
    return found


def _lengths(code: list) -> list[str]:
    found = []
    lines = sorted(len(cell.source.strip().splitlines()) for cell in code)
    if lines and statistics.median(lines) > MEDIAN_LINES:
        found.append(f"half of the code cells are longer than {MEDIAN_LINES} lines (median {statistics.median(lines)})")
    if lines and lines[int(len(lines) * 0.9)] > LONG_LINES:
        found.append(f"more than a tenth of the code cells are longer than {LONG_LINES} lines")
    return found
