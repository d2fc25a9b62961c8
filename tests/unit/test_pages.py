"""What people read without a kernel: pages of the notebooks, and links that lead somewhere."""

import re
from html.parser import HTMLParser

import nbformat
import pytest

from vae_utils import notebooks, settings

ROOT = settings.project_root()
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *notebooks.find([])]


class Images(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.alts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt"))


def figure(alt):
    return nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": alt}})


def test_a_page_keeps_the_description_of_every_figure_and_links_to_pages():
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(
                "# A title\n\n[next](02_compression.ipynb), [elsewhere](https://a.org/x.ipynb)"
            ),
            nbformat.v4.new_code_cell("1", outputs=[figure('a "curve" < 1'), figure("two more curves")]),
        ]
    )
    page = notebooks.page(notebook, "01_theory")
    assert Images(page).alts == ['a "curve" < 1', "two more curves"]
    assert "<title>01_theory</title>" in page
    assert 'href="02_compression.html"' in page and 'href="https://a.org/x.ipynb"' in page


def links(path):
    """The targets of all links and pictures of a text."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path):
    local = [link.split("#")[0] for link in links(path) if not link.startswith(("http://", "https://", "#"))]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_into_the_web_are_whole_addresses(path):
    web = [link for link in links(path) if link.startswith("http")]
    assert [link for link in web if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./?=&%#~:+-]*)?", link)] == []
