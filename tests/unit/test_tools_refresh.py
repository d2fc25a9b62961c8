"""Running notebooks, what is kept of them, their pages, their badges and setup cells."""

import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import refresh
from vae_utils import plotting, settings

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PATHS = [Path(f"{number:02}_fake.ipynb") for number in range(1, 6)]


# ---- the setup cell and the badges ----


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("https://github.com/someone/one-model.git\n", "someone/one-model"),
        ("https://user:secret@github.com/someone/one.model/", "someone/one.model"),
        ("git@github.com:someone/one-model.git", "someone/one-model"),
        ("ssh://git@github.com/someone/one-model", "someone/one-model"),
        ("https://example.org/someone/one-model", ""),
        ("../elsewhere", ""),
        ("", ""),
    ],
)
def test_a_remote_on_github_becomes_a_name_without_anybodys_password(remote, name):
    assert refresh.github_name(remote) == name


def test_badges_and_setup_cells_name_the_repository():
    contents = {path.name: text for path, text in refresh.with_badges("someone/one-model").items()}
    assert "github/someone/one-model/blob/HEAD/notebooks/01_theory_and_model.ipynb)" in contents["README.md"]
    text = contents.pop("03_generation.ipynb")
    assert "github/someone/one-model/blob/HEAD/notebooks/03_generation.ipynb)" in text
    assert "gh/someone/one-model/HEAD?labpath=notebooks%2F03_generation.ipynb)" in text
    assert "install --quiet git+https://github.com/someone/one-model" in text


def test_readme_and_notebooks_have_the_badges_and_setup_cell_of_one_repository():
    first = refresh.find(["01"])[0].read_text(encoding="utf-8")
    match = re.search(r"git\+https://github\.com/([\w.-]+/[\w.-]+)", first)
    for path, text in refresh.with_badges(match[1] if match else "").items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make refresh ARGS=badges`"


@pytest.mark.parametrize("cell", [refresh.SETUP, refresh.SETUP_ON_GITHUB.format(owner_and_name="someone/one-model")])
def test_the_setup_cell_is_short_and_does_nothing_where_the_package_is(cell):
    assert len(cell.splitlines()) <= 5
    exec(cell, {})


@pytest.mark.parametrize("name", ["", "someone/one-model"])
def test_without_the_package_the_setup_cell_installs_it_or_says_how(monkeypatch, name):
    called = []
    shell = SimpleNamespace(run_line_magic=lambda *line: called.append(line))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if name:
        exec(refresh.SETUP_ON_GITHUB.format(owner_and_name=name), {"get_ipython": lambda: shell})
        assert called == [("pip", "install --quiet git+https://github.com/someone/one-model")]
    else:
        with pytest.raises(ModuleNotFoundError, match="pip install -e"):
            exec(refresh.SETUP, {})


def test_binder_pins_every_package_that_the_notebooks_import_and_brings_no_server_of_its_own():
    lines = (refresh.ROOT / "binder" / "requirements.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if "==" in line)
    needed = [line for line in requires("vae-utils") if "extra ==" not in line] + ["nbclient", "nbconvert", "psutil"]
    assert {re.split("[<>=]", line)[0].lower() for line in needed} <= set(pins)
    assert pins["torch"].endswith("+cpu") and not {"jupyterlab", "notebook"} & set(pins)


@pytest.mark.skipif(sys.platform != "linux", reason="the script of a Linux container")
@pytest.mark.parametrize(("limit", "threads"), [("2.0", "2"), ("0.5", "1"), ("", "1")])
def test_binder_uses_as_many_threads_as_it_has_processors(limit, threads):
    command = ["bash", "binder/start", "sh", "-c", "echo $OMP_NUM_THREADS"]
    environment = {"PATH": "/usr/bin:/bin", "CPU_LIMIT": limit}
    ended = subprocess.run(command, cwd=refresh.ROOT, env=environment, capture_output=True, text=True)
    assert ended.stdout.split() == [threads]


# ---- running ----


@pytest.fixture
def fake(monkeypatch):
    """Notebooks that take a moment each, on four processors with much memory; what was run, and how many at most at once."""
    seen = SimpleNamespace(order=[], threads=set(), most=0, now=0, written=[], fetched=0, failing=None)
    lock = threading.Lock()

    def execute(path, threads=None):
        with lock:
            seen.now += 1
            seen.most = max(seen.most, seen.now)
            seen.order.append(path)
            seen.threads.add(threads)
        time.sleep(0.05)
        with lock:
            seen.now -= 1
        if path == seen.failing:
            raise ValueError(path.name)
        return new_notebook()

    def load():
        seen.fetched += 1

    monkeypatch.setattr(refresh, "execute", execute)
    monkeypatch.setattr("vae_utils.data.load", load)
    monkeypatch.setattr(refresh, "write_page", lambda notebook, path: seen.written.append(path))
    monkeypatch.setattr(refresh.torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(refresh.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 << 30))
    return seen


def test_two_at_a_time_share_the_processors_and_fetch_the_data_once(fake):
    refresh.run(PATHS)
    assert sorted(fake.written) == PATHS and fake.order[:2] in (PATHS[:2], PATHS[1::-1])
    assert fake.most == 2 and fake.threads == {2} and fake.fetched == 1
    assert sorted(refresh.ORDER) == [path.name[:2] for path in refresh.find([])]


def test_one_after_the_other_each_has_the_machine_to_itself(fake):
    refresh.run(PATHS, jobs=1)
    assert fake.written == PATHS and fake.most == 1 and fake.threads == {None} and fake.fetched == 0


def test_when_one_fails_those_that_wait_are_not_started(fake):
    fake.failing = PATHS[0]
    with pytest.raises(ValueError, match="01_fake"):
        refresh.run(PATHS, jobs=2)
    assert PATHS[4] not in fake.order and PATHS[0] not in fake.written


@pytest.mark.parametrize(("processors", "gigabytes", "jobs"), [(1, 8, 1), (2, 8, 2), (16, 8, 2), (2, 3, 1)])
def test_how_many_fit_depends_on_processors_and_memory(fake, monkeypatch, processors, gigabytes, jobs):
    monkeypatch.setattr(refresh.torch, "get_num_threads", lambda: processors)
    monkeypatch.setattr(refresh.psutil, "virtual_memory", lambda: SimpleNamespace(available=gigabytes << 30))
    assert refresh.jobs_that_fit() == jobs


def test_a_run_from_the_top_forgets_what_this_notebook_measured_before(tmp_path):
    nbformat.write(new_notebook(cells=[]), tmp_path / "01_tiny.ipynb")
    folder = settings.results_dir() / "mnist"
    folder.mkdir(parents=True)
    for name in ("01_tiny.json", "02_other.json"):
        (folder / name).write_text("{}")
    refresh.execute(tmp_path / "01_tiny.ipynb")
    assert [path.name for path in folder.iterdir()] == ["02_other.json"]


def test_a_kernel_has_the_threads_it_was_given(tmp_path, capsys):
    source = f"import os\nprint(*(os.environ[name] for name in {refresh.THREADS}))"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "threads.ipynb")
    [cell] = refresh.execute(tmp_path / "threads.ipynb", threads=3).cells
    assert cell.outputs[0].text == "3 3 3\n" and "threads (" in capsys.readouterr().out


def test_asking_for_a_notebook_that_is_not_there_names_those_that_are():
    with pytest.raises(SystemExit, match=r"'99'.*01_theory_and_model"):
        refresh.main(["run", "99"])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one notebook, which runs well."""
    monkeypatch.setattr(refresh, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[]), tmp_path / "notebooks" / "01_tiny.ipynb")
    (tmp_path / "README.md").write_text("Read me.")
    monkeypatch.setattr(refresh, "execute", lambda path, threads: refresh.read(path))
    return tmp_path


def test_a_build_folder_that_takes_no_file_is_named_before_anything_runs(project, monkeypatch):
    monkeypatch.setattr(refresh, "execute", None)
    (project / "build").write_text("in the way")
    with pytest.raises(SystemExit, match="build"):
        refresh.main(["run"])


def test_a_damaged_notebook_or_one_without_its_tags_is_named(project):
    path = project / "notebooks" / "01_tiny.ipynb"
    with pytest.raises(SystemExit, match=r"01_tiny.* 0 cells tagged 'badges'"):
        refresh.main(["badges"])
    path.write_text('{"cells": [\n<<<<<<< HEAD\n')
    for action in ("run", "badges"):
        with pytest.raises(SystemExit, match=r"01_tiny\.ipynb is damaged"):
            refresh.main([action])


ENDS = {"--jobs 1": DeadKernelError("Kernel died"), "VAE": ValueError("VAE"), "Interrupted": KeyboardInterrupt()}


@pytest.mark.parametrize(("says", "error"), ENDS.items())
def test_what_is_not_the_programs_fault_is_told_in_a_sentence(project, monkeypatch, error, says):
    monkeypatch.setattr(refresh, "execute", lambda path, threads: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit, match=says):
        refresh.main(["run"])


def test_normalising_drops_bars_warnings_and_widget_state():
    bar = new_output("display_data", {refresh.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "0%"})
    warning, text = (new_output("stream", name=name, text="0.25\n") for name in ("stderr", "stdout"))
    metadata = {"tags": ["nbval-check-output"], "execution": {"iopub.status.busy": "2026"}}
    notebook = new_notebook(cells=[new_code_cell("1", outputs=[bar, warning, text], metadata=metadata)])
    notebook.metadata |= {"widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}}
    refresh.normalise(notebook)
    assert notebook.cells[0].outputs == [text] and notebook.cells[0].metadata == {"tags": ["nbval-check-output"]}
    assert "widgets" not in notebook.metadata and notebook.metadata.language_info == {"name": "python"}


def test_normalising_keeps_the_picture_that_stands_in_for_a_widget():
    metadata = {"image/png": {"alt": "A drawing and what becomes of it.", "panel": "code"}}
    data = {refresh.WIDGET_VIEW: {"model_id": "1"}, "image/png": PIXEL}
    notebook = new_notebook(cells=[new_code_cell("1", outputs=[new_output("display_data", data, metadata=metadata)])])
    [output] = refresh.normalise(notebook).cells[0].outputs
    assert output.data == {"image/png": PIXEL} and output.metadata == metadata


def test_figures_and_animations_with_a_name_are_found_for_the_readme(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **options: shown.append((data, options["metadata"])))
    for name in ("walk", None):
        plotting.show_animation(torch.rand(3, 1, 4, 4), alt="Three frames.", name=name)
    shown += [({"image/png": "AAAA"}, {"image/png": {"name": name}}) for name in ("line", None)]
    outputs = [new_output("display_data", data, metadata=metadata) for data, metadata in shown]
    found = refresh.named_figures(new_notebook(cells=[new_code_cell("1", outputs=outputs)]))
    assert list(found) == ["walk.gif", "line.png"] and found["walk.gif"].startswith(b"GIF89a")


# ---- pages ----


class Images(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.alts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt"))


def test_a_page_keeps_the_description_of_every_figure_and_links_to_pages():
    alts = ['a "curve" < 1', "two more curves"]
    figures = [new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": alt}}) for alt in alts]
    text = "# A title\n\n[next](02_compression.ipynb), [elsewhere](https://a.org/x.ipynb)"
    page = refresh.page(new_notebook(cells=[new_markdown_cell(text), new_code_cell("1", outputs=figures)]), "01_theory")
    assert Images(page).alts == alts and "<title>01_theory</title>" in page
    assert 'href="02_compression.html"' in page and 'href="https://a.org/x.ipynb"' in page


def test_formulas_are_typeset_in_the_page_and_nothing_is_fetched_for_them():
    text = "With $a < b$ and\n\n$$\\mathrm{KL} = \\tfrac{1}{2} \\log \\sigma, 3 \\log_2 p$$\n\nit costs `$5` and `$6`."
    page = refresh.page(new_notebook(cells=[new_markdown_cell(text)]), "formulas")
    assert page.count("<math") == 2 and page.count('display="block"') == 1
    assert "<mi>a</mi><mo>&lt;</mo><mi>b</mi>" in page.replace("&#x0003C;", "&lt;")
    assert '<mi>log</mi><mspace width="0.17em"></mspace><mi>\u03c3</mi>' in page
    base_two = "<msub><mi>log</mi><mn>2</mn></msub>"
    assert f'<mn>3</mn><mspace width="0.17em"></mspace>{base_two}<mspace width="0.17em"></mspace><mi>p</mi>' in page
    assert "<code>$5</code>" in page and "<code>$6</code>" in page
    assert "<script" not in page and not re.search(r'src="https?:', page)


@pytest.mark.parametrize("path", refresh.find([]), ids=lambda path: path.stem)
def test_every_formula_of_the_series_is_typeset(path):
    page = refresh.page(nbformat.read(path, as_version=4), path.stem)
    prose = re.sub(r"<(code|pre|math|style)\b.*?</\1>|<img[^>]*>", "", page, flags=re.DOTALL)
    assert "$" not in prose and "\\begin" not in prose
    assert re.findall(r"<m[iot][^>]*>\s*\\[^<]*", page) == []  # a command that was not understood stays as it is
