"""Run the notebooks, make their committed outputs, write their badges.

python tools/refresh.py run              # execute all, HTML pages into build/ (--jobs 1: one after the other)
python tools/refresh.py refresh 01       # execute in place on MNIST: the outputs that are committed
python tools/refresh.py badges           # badges and setup cells, from the git remote
"""

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path

import nbformat
import psutil
import torch
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

from vae_utils.cache import write_atomically
from vae_utils.claims import forget_results

ROOT = Path(__file__).resolve().parent.parent
# How they are started when two run at a time: the longest first, but 01, whose model others load, before all.
ORDER = ("01", "02", "06", "03", "04", "05")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
GIF_DATA = re.compile(r'src="data:image/gif;base64,([^"]*)"')

# --- the setup cell and the badges ---------------------------------------------------------------------------------------

# The first code cell of every notebook: here without an address on GitHub, below with one. Dependencies are lower bounds that
# Colab satisfies, so pip leaves torch, NumPy and ipywidgets there as they are.
SETUP = """\
# The helper package is installed by `make setup`, or by `pip install -e .` in the folder of the project.
from importlib.util import find_spec

if find_spec("vae_utils") is None:
    raise ModuleNotFoundError("vae_utils is not installed here: run `pip install -e .` in the project's folder.")"""
SETUP_ON_GITHUB = """\
# The helper package is installed by `make setup`; on Colab, which has this notebook alone, by this cell.
from importlib.util import find_spec

if find_spec("vae_utils") is None:
    get_ipython().run_line_magic("pip", "install --quiet git+https://github.com/{owner_and_name}")"""
BADGES = re.compile("(?<=<!-- badges -->\n).*(?=\n<!-- end of badges -->)", re.DOTALL)  # their place in the README
NO_ADDRESS = (
    "*Colab and Binder:* this copy of the series has no address on GitHub yet. Once it has (`git remote add origin <address>`, "
    "or `set-url` where there is an origin), `make refresh ARGS=badges` writes the links here; commit and push them."
)


def github_name(remote: str) -> str:
    """`owner/name` of a git remote on GitHub; empty for any other."""
    match = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?$", remote.strip())
    return match[1] if match else ""


def badges(name: str, notebook: str = "01_theory_and_model.ipynb") -> str:
    """The line of badges for a notebook of the GitHub repository `name`; when it is empty, how to get them."""
    if not name:
        return NO_ADDRESS
    colab = f"https://colab.research.google.com/github/{name}/blob/HEAD/notebooks/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{name}/HEAD?labpath=notebooks%2F{notebook}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def with_badges(name: str) -> dict[Path, str]:
    """README and notebooks, by path, with the badges and setup cells of the GitHub repository `name`.

    Raises ValueError for a notebook without one cell tagged `badges` and one tagged `setup`.
    """
    readme = ROOT / "README.md"
    contents = {readme: BADGES.sub(badges(name), readme.read_text(encoding="utf-8"))}
    setup = SETUP_ON_GITHUB.format(owner_and_name=name) if name else SETUP
    for path in find([]):
        notebook = read(path)
        for tag, content in {"badges": badges(name, path.name), "setup": setup}.items():
            cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
            if len(cells) != 1:
                raise ValueError(f"{path.name} has {len(cells)} cells tagged {tag!r}, not one; nothing is changed.")
            cells[0].source = content
        contents[path] = nbformat.writes(notebook) + "\n"
    return contents


# --- running -------------------------------------------------------------------------------------------------------------


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Inside the block, what is wrong with data, settings, disk or notebook ends the program with a sentence."""
    from vae_utils.data import DataError  # takes a second to import

    try:
        yield
    except CellExecutionError as error:
        sys.exit(f"\n{error}")
    except DeadKernelError as error:
        sys.exit(f"{error}, often because memory ran out: one notebook at a time (--jobs 1) needs less.")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Models that were trained are in the cache: the same line takes less time now.")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}." if error.filename else str(error))
    except (DataError, ValueError) as error:
        sys.exit(str(error))


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file. Raises ValueError, naming the file, when it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error!s:.100}; `git checkout` brings back the committed one.") from error


def find(prefixes: list[str]) -> list[Path]:
    """The notebooks whose names begin with one of `prefixes` (all when empty), in order. Exits when one matches none."""
    every = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in every):
            sys.exit(f"No notebook begins with {prefix!r}; there are: {', '.join(path.stem for path in every)}.")
    return [path for path in every if not prefixes or path.name.startswith(tuple(prefixes))]


def execute(path: Path, threads: int | None = None) -> nbformat.NotebookNode:
    """Run a notebook from the top in a fresh kernel, saying which cell is on; returns it with its outputs.

    With `threads` it has that many to itself, beside other notebooks, and is announced when it has ended.
    Raises nbclient's CellExecutionError when a cell fails.
    """
    notebook = read(path)
    code = [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def say(cell, cell_index):
        if cell.cell_type == "code" and threads is None:
            print(f"\r{path.stem}: cell {code.index(cell_index) + 1} of {len(code)}", end="", flush=True)

    forget_results(path.stem)  # else figures that the notebook no longer measures would be kept
    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=say,
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,  # on a busy machine a print arrives in parts, which GitHub shows as blocks, rows cut in two
        extra_arguments=["--log-level=40"],  # a kernel's own warnings are not the reader's business
    )
    try:
        client.execute(env=os.environ | ({} if threads is None else dict.fromkeys(THREADS, str(threads))))
    finally:
        print(f"{'' if threads is None else path.stem} ({time.perf_counter() - started:.0f} s)", flush=True)
    return notebook


def jobs_that_fit() -> int:
    """Two notebooks at a time, where there are two processors and 4 GB of free memory for them, else one.

    Small networks and most measuring hardly gain from a second processor: two notebooks with one each are done sooner.
    """
    return 2 if torch.get_num_threads() > 1 and psutil.virtual_memory().available > 4 << 30 else 1


def run(paths: list[Path], jobs: int | None = None) -> None:
    """Execute each notebook and write the result as an HTML page into build/, `jobs` at a time (default: as many as fit)."""
    jobs = min(jobs or jobs_that_fit(), len(paths))
    threads = None if jobs == 1 else max(1, torch.get_num_threads() // jobs)
    if jobs > 1:
        from vae_utils.data import load

        load()  # so that the data are fetched once, not by everybody
        paths = sorted(paths, key=lambda path: (*ORDER, path.name[:2]).index(path.name[:2]))
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(lambda path: write_page(normalise(execute(path, threads)), path), p) for p in paths]
        try:
            for ended in as_completed(started):
                ended.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def refresh(paths: list[Path]) -> None:
    """Execute each notebook on MNIST and put the outputs into the notebook, figures with a name into docs/figures/ too."""
    os.environ["VAE_DATASET"] = "mnist"  # committed outputs come from MNIST, or not at all
    for path in paths:
        notebook = normalise(execute(path))
        write_atomically(path, (nbformat.writes(notebook) + "\n").encode())
        for name, content in named_figures(notebook).items():
            write_atomically(ROOT / "docs" / "figures" / name, content)


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep what a reader needs: drops progress bars, warnings, widget state and everything that names one machine's Python."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in ("tags", "alt")})
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in shown:
                if "image/png" in output.get("data", {}):  # the picture that stands in for a widget
                    output.data.pop(WIDGET_VIEW, None)
            cell.outputs = [output for output in shown if WIDGET_VIEW not in output.get("data", {})]
    return notebook


def _outputs(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    return (output for cell in notebook.cells for output in cell.get("outputs", []))


def named_figures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The file of each figure (`<name>.png`) and animation (`<name>.gif`) that was shown with a name."""
    found = {}
    for output in _outputs(notebook):
        metadata = output.get("metadata", {})
        if name := metadata.get("image/png", {}).get("name"):
            found[f"{name}.png"] = base64.b64decode(output.data["image/png"])
        if name := metadata.get("text/html", {}).get("name"):
            found[f"{name}.gif"] = base64.b64decode(GIF_DATA.search(output.data["text/html"])[1])
    return found


# --- pages ---------------------------------------------------------------------------------------------------------------

# code is matched first, so that a dollar in it stays one
FORMULA = re.compile(r"<(code|pre)\b.*?</\1>|\$\$(?P<display>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)
_LOG = r"<msub><mi>log</mi><mn>\d+</mn></msub>|(?<!<msub>)<mi>(?:log|ln|tanh)</mi>"
OPERATOR = re.compile(rf"(?<=</m[in]>)(?={_LOG})|({_LOG})(?=<m[ifns])")
MATH_FONTS = '<style>math { font-family: "Latin Modern Math", "Cambria Math", "STIX Two Math", math; }</style>'


class _Exporter(HTMLExporter):
    """nbconvert's pages with formulas in MathML, which browsers typeset themselves, where nbconvert's fetch MathJax."""

    @pass_context
    def markdown2html(self, context, source):
        return FORMULA.sub(_typeset, super().markdown2html(context, source))


def _typeset(found: re.Match) -> str:
    formula = found["display"] or found["inline"]
    if formula is None:
        return found[0]
    typeset = mathml(unescape(formula), display="block" if found["display"] else "inline")
    # MathML alone writes "2 log p" as "2logp"
    return OPERATOR.sub(lambda name: f'{name[1] or ""}<mspace width="0.17em"/>', typeset)


def page(notebook: nbformat.NotebookNode, title: str) -> str:
    """A notebook as one HTML page that needs neither kernel nor network, with every figure's alt text; other notebooks'
    pages are linked."""
    text, _ = _Exporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)  # all of them fetch what is not used here
    text = text.replace("</head>", f"{MATH_FONTS}</head>", 1)
    figures = (output for output in _outputs(notebook) if "image/png" in output.get("data", {}))
    alts = (escape(output.metadata.get("image/png", {}).get("alt", "")) for output in figures)
    # nbconvert's own template drops them
    text = re.sub('alt="No description has been provided[^"]*"', lambda _: f'alt="{next(alts)}"', text)
    return re.sub(r'href="([\w./-]*\d\d_\w+)\.ipynb', r'href="\1.html', text)


def write_page(notebook: nbformat.NotebookNode, path: Path) -> None:
    target = ROOT / "build" / f"{path.stem}.html"
    write_atomically(target, page(notebook, path.stem).encode())
    print(f"  -> {target.relative_to(ROOT)}")


def main(arguments: list[str] | None = None) -> None:
    first, _, rest = __doc__.partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/refresh.py", description=first, epilog=rest, formatter_class=style)
    parser.add_argument("action", choices=["run", "refresh", "badges"])
    parser.add_argument("notebooks", nargs="*", help="beginnings of names, such as 01; all when none is given")
    parser.add_argument("--jobs", type=int, choices=[1, 2], help="run: how many at a time (default: as many as fit)")
    asked = parser.parse_args(arguments)
    paths = find(asked.notebooks)
    with in_plain_words():
        if asked.action == "run":
            (ROOT / "build").mkdir(exist_ok=True)
            tempfile.TemporaryFile(
                dir=ROOT / "build"
            ).close()  # a folder that takes no file: noticed now, not in minutes
            run(paths, asked.jobs)
        elif asked.action == "refresh":
            refresh(paths)
        else:
            command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
            name = github_name(subprocess.run(command, capture_output=True, text=True).stdout)
            for path, content in with_badges(name).items():
                write_atomically(path, content.encode())
            print(f"On GitHub: {name or 'not yet (git remote add origin ...)'}")


if __name__ == "__main__":
    main()
