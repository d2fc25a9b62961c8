"""README, docs and notebooks link to what is there; the workshop guide speaks of the exercises as they are."""

import re
from itertools import pairwise

import nbformat
import pytest
from test_exercises import COMMITTED, run

from vae_utils import settings

ROOT = settings.project_root()
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", *DOCS, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
GUIDE = (ROOT / "docs" / "workshop.md").read_text(encoding="utf-8")
PLACE = re.compile(r'(?:(\d\d), )?"(.+)"')


def markdown(path):
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links(path):
    """The text and target of every link and picture."""
    return re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", markdown(path), flags=re.DOTALL))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for _, target in links(path):
        if target.startswith("http"):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./?=&%#~:+-]*)?", target)
        elif not target.startswith("#"):
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_a_link_in_quotes_names_a_heading_of_the_notebook(path):
    for text, target in links(path):
        if target.endswith(".ipynb") and (place := PLACE.fullmatch(text.replace(r"\|", "|"))):
            headings = re.findall(r"^#+ (.+)$", markdown(path.parent / target), flags=re.MULTILINE)
            assert place[1] in (None, target.split("/")[-1][:2]) and place[2] in headings, text


@pytest.mark.parametrize("start", ["0:00", "09:00"])
def test_a_timetable_adds_up(start):
    tables = re.findall(r"^\| from \| minutes .*\n\|[-|]+\n((?:\|.*\n)+)", GUIDE, flags=re.MULTILINE)
    rows = [re.findall(r"^\| (\d+):(\d\d) \| (\d+) \|", table, flags=re.MULTILINE) for table in tables]
    [rows] = [found for found in rows if ":".join(found[0][:2]) == start]
    for (hours, minutes, length), (next_hours, next_minutes, _) in pairwise(rows):
        assert 60 * int(hours) + int(minutes) + int(length) == 60 * int(next_hours) + int(next_minutes)


def test_wrong_answers_in_the_guide_are_wrong(capsys):
    rows = re.findall(r"^\| (\d\d\.\d) \| `([^`]+)` \|", GUIDE, flags=re.MULTILINE)
    assert {number for number, _ in rows} == set(COMMITTED)
    for number, line in rows:
        stub = COMMITTED[number].stub.splitlines()
        solution = COMMITTED[number].solution.splitlines()
        answer = [re.match(r"\s*", a)[0] + line if a != b else a for a, b in zip(stub, solution, strict=True)]
        said = run(COMMITTED[number], "\n".join(answer), capsys)
        assert said.startswith(f"Exercise {number}: not right yet. "), (number, line)
