"""The pages in docs/ point at things that are there, and speak of the exercises as they are."""

import re
from itertools import pairwise

import nbformat
import pytest
from test_exercises import WRONG

from vae_utils import settings

DOCS = settings.project_root() / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\[([^\]]*)\]\(([^)]+)\)")
PLACE = re.compile(r'(?:(\d\d), )?"(.+)"')


def links():
    return [
        (page.name, text, target) for page in PAGES for text, target in LINK.findall(page.read_text(encoding="utf-8"))
    ]


def said_in(path) -> str:
    """Headings (each in a line of its own), and the sources and outputs of code cells."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts += re.findall(r"^#+ (.+)$", cell.source, flags=re.MULTILINE)
        else:
            parts += [cell.source, *(output.get("text", "") for output in cell.outputs)]
    return "\n".join(parts)


def test_there_are_pages_and_they_link_to_notebooks():
    assert {"conventions.md", "workshop.md"} <= {page.name for page in PAGES}
    assert sum(target.endswith(".ipynb") for _, _, target in links()) > 30


@pytest.mark.parametrize(("page", "text", "target"), links())
def test_a_link_leads_to_what_it_says(page, text, target):
    if target.startswith(("http://", "https://", "#")):
        return
    path = (DOCS / target.split("#")[0]).resolve()
    assert path.exists(), f"{page} links to {target}"
    place = PLACE.fullmatch(text.replace(r"\|", "|"))
    if path.suffix == ".ipynb" and place:
        number, words = place.groups()
        assert number in (None, path.name[:2])
        assert words in said_in(path), f"{page} names {words!r}, which {path.name} does not say"


@pytest.mark.parametrize("start", ["0:00", "09:00"])
def test_a_timetable_adds_up(start):
    page = (DOCS / "workshop.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| from \| minutes .*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    (rows,) = [rows for rows in (re.findall(r"^\| (\d+):(\d\d) \| (\d+) \|", table, flags=re.MULTILINE) for table in tables)
               if ":".join(rows[0][:2]) == start]  # fmt: skip
    for (hours, minutes, length), (next_hours, next_minutes, _) in pairwise(rows):
        assert 60 * int(hours) + int(minutes) + int(length) == 60 * int(next_hours) + int(next_minutes)


def test_wrong_answers_in_the_guide_are_those_that_are_tested():
    rows = re.findall(
        r"^\| (\d\d\.\d) \| `([^`]+)` \|", (DOCS / "workshop.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert {number for number, _ in rows} == set(WRONG)
    for number, line in rows:
        assert line in [wrong for wrong, _ in WRONG[number]], (number, line)
