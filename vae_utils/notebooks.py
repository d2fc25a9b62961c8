"""How are the notebooks run, and how are their committed outputs made?

python -m vae_utils.notebooks run                 # execute all, HTML pages into build/ (--jobs 1: one after the other)
python -m vae_utils.notebooks refresh 01          # execute in place on MNIST: the outputs that are committed
python -m vae_utils.notebooks html                # pages of what is committed, nothing executed, into build/html/
"""

import argparse
import base64
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from html import escape, unescape
from pathlib import Path

import nbformat
import psutil
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from vae_utils import settings
from vae_utils.files import write_atomically

# How they are begun when two run at a time: the longest first, but 01, whose model others load, before all.
ORDER = ("01", "02", "06", "03", "04", "05")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# code is matched first, so that a dollar in it stays one
FORMULA = re.compile(r"<(code|pre)\b.*?</\1>|\$\$(?P<display>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)
_LOG = r"<msub><mi>log</mi><mn>\d+</mn></msub>|(?<!<msub>)<mi>(?:log|ln|tanh)</mi>"
NAMED = re.compile(rf"(?<=</m[in]>)(?={_LOG})|({_LOG})(?=<m[ifns])")
MATH_FONTS = """<style>
math { font-family: "Latin Modern Math", "Cambria Math", "STIX Two Math", "DejaVu Math TeX Gyre", math; }
</style>"""
GIF_DATA = re.compile(r'src="data:image/gif;base64,([^"]*)"')


def find(prefixes: list[str]) -> list[Path]:
    """The notebooks whose names begin with one of `prefixes` (all when empty), in order.

    Raises SystemExit when a prefix matches none.
    """
    every = sorted((settings.project_root() / "notebooks").glob("*.ipynb"))
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in every):
            sys.exit(f"No notebook begins with {prefix!r}; there are: {', '.join(path.stem for path in every)}.")
    return [path for path in every if not prefixes or path.name.startswith(tuple(prefixes))]


def execute(path: Path, cell_timeout: float = 600, threads: int | None = None) -> nbformat.NotebookNode:
    """Run a notebook from the top in a fresh kernel, saying which cell is on; returns it with its outputs.

    With `threads` it has that many to itself, beside other notebooks, and is announced when it has ended.
    Raises nbclient's CellExecutionError when a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    code_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def say(cell, cell_index):
        nonlocal done
        if cell.cell_type == "code" and threads is None:
            done += 1
            print(f"\r{path.stem}: cell {done} of {code_cells}", end="", flush=True)

    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=say,
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--log-level=40"],  # a kernel's own warnings are not the reader's business
    )
    try:
        client.execute(env=os.environ | ({} if threads is None else {"CPU_LIMIT": str(threads)}))
    finally:
        name = "" if threads is None else path.stem
        print(f"{name} ({time.perf_counter() - started:.0f} s)", flush=True)
    return notebook


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep what a reader needs: drops progress bars, warnings, widget state and everything that names one machine's Python."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in ("tags", "alt")})
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr" and WIDGET_VIEW not in output.get("data", {})
            ]
    return notebook


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
    return NAMED.sub(lambda name: f'{name[1] or ""}<mspace width="0.17em"/>', typeset)


def page(notebook: nbformat.NotebookNode, title: str) -> str:
    """A notebook as one HTML page that needs neither kernel nor network.

    Figures are inside, with their alt text; other notebooks' pages are linked.
    """
    text, _ = _Exporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)  # all of them fetch what is not used here
    text = text.replace("</head>", f"{MATH_FONTS}</head>", 1)
    descriptions = iter(_descriptions(notebook))  # nbconvert's own template drops them
    text = re.sub('alt="No description has been provided[^"]*"', lambda _: f'alt="{escape(next(descriptions))}"', text)
    return re.sub(r'href="([\w./-]*\d\d_\w+)\.ipynb', r'href="\1.html', text)


def _outputs(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    return (output for cell in notebook.cells for output in cell.get("outputs", []))


def _descriptions(notebook: nbformat.NotebookNode) -> list[str]:
    """The alt text of each figure, in order."""
    figures = (output for output in _outputs(notebook) if "image/png" in output.get("data", {}))
    return [output.metadata.get("image/png", {}).get("alt", "") for output in figures]


def _write_page(notebook: nbformat.NotebookNode, folder: str, path: Path) -> None:
    target = settings.project_root() / "build" / folder / f"{path.stem}.html"
    write_atomically(target, page(notebook, path.stem).encode())
    print(f"  -> {target.relative_to(settings.project_root())}")


def jobs_that_fit() -> int:
    """How many notebooks to run at a time: two, where there are two processors and 4 GB of free memory for them.

    Small networks and most measuring hardly gain from a second processor: two notebooks with one each are done sooner.
    """
    return 2 if settings.limit_threads() > 1 and psutil.virtual_memory().available > 4 << 30 else 1


def run(paths: list[Path], jobs: int | None = None) -> None:
    """Execute each notebook and write the result as an HTML page into build/, `jobs` at a time (default: as many as fit)."""
    jobs = min(jobs or jobs_that_fit(), len(paths))
    threads = None if jobs == 1 else max(1, settings.limit_threads() // jobs)

    def one(path: Path) -> None:
        _write_page(normalise(execute(path, threads=threads)), "", path)

    if jobs > 1:
        from vae_utils.data import load  # takes a second to import, and nothing else here needs it

        load()  # so that the data are fetched once, not by everybody
        paths = sorted(paths, key=lambda path: (*ORDER, path.name[:2]).index(path.name[:2]))
    with ThreadPoolExecutor(jobs) as pool:
        begun = [pool.submit(one, path) for path in paths]
        try:
            for ended in as_completed(begun):
                ended.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def html(paths: list[Path]) -> None:
    """Write each notebook as it is committed, nothing executed, as an HTML page into build/html/."""
    for path in paths:
        _write_page(nbformat.read(path, as_version=4), "html", path)


def refresh(paths: list[Path]) -> None:
    """Execute each notebook on MNIST and put the outputs into the notebook, figures with a name into docs/figures/ too."""
    for path in paths:
        notebook = normalise(execute(path))
        write_atomically(path, (nbformat.writes(notebook) + "\n").encode())
        for file_name, content in named_figures(notebook).items():
            write_atomically(settings.project_root() / "docs" / "figures" / file_name, content)


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vae_utils.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "refresh", "html"])
    parser.add_argument("notebooks", nargs="*", help="beginnings of names, such as 01; all when none is given")
    parser.add_argument("--jobs", type=int, help="run: how many at a time; as many as fit, two at most, if not given")
    arguments = parser.parse_args()
    if arguments.jobs is not None and (arguments.jobs < 1 or arguments.action != "run"):
        parser.error("--jobs wants a whole number of at least 1, and goes with run alone.")
    if arguments.action == "refresh":
        os.environ["VAE_DATASET"] = "mnist"  # committed outputs come from MNIST, or not at all
    try:
        action = {"run": partial(run, jobs=arguments.jobs), "refresh": refresh, "html": html}[arguments.action]
        action(find(arguments.notebooks))
    except CellExecutionError as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
