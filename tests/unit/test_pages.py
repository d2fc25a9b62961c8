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


def test_formulas_are_typeset_in_the_page_and_nothing_is_fetched_for_them():
    text = r"With $a < b$ and\n\n$$\mathrm{KL} = \tfrac{1}{2} \log \sigma, 3 \log_2 p$$\n\nit costs `$5` and `$6`."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text.replace(r"\n", "\n"))])
    page = notebooks.page(notebook, "formulas")
    assert page.count("<math") == 2 and page.count('display="block"') == 1
    assert "<mi>a</mi><mo>&lt;</mo><mi>b</mi>" in page.replace("&#x0003C;", "&lt;")
    assert '<mi>log</mi><mspace width="0.17em"></mspace><mi>\u03c3</mi>' in page
    base_two = "<msub><mi>log</mi><mn>2</mn></msub>"
    assert f'<mn>3</mn><mspace width="0.17em"></mspace>{base_two}<mspace width="0.17em"></mspace><mi>p</mi>' in page
    assert "<code>$5</code>" in page and "<code>$6</code>" in page
    assert "<script" not in page and not re.search(r'src="https?:', page)


@pytest.mark.parametrize("path", notebooks.find([]), ids=lambda path: path.stem)
def test_every_formula_of_the_series_is_typeset(path):
    page = notebooks.page(nbformat.read(path, as_version=4), path.stem)
    prose = re.sub(r"<(code|pre|math|style)\b.*?</\1>|<img[^>]*>", "", page, flags=re.DOTALL)
    assert "$" not in prose and "\\begin" not in prose
    assert re.findall(r"<m[iot][^>]*>\s*\\[^<]*", page) == []  # a command that was not understood stays as it is


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
