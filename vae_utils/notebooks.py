"""How are the notebooks run, and how are their committed outputs made?

python -m vae_utils.notebooks run                 # execute all, HTML pages into build/
python -m vae_utils.notebooks refresh 01          # execute in place on MNIST: the outputs that are committed
"""

import argparse
import base64
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from vae_utils import settings
from vae_utils.files import write_atomically

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def find(prefixes: list[str]) -> list[Path]:
    """The notebooks whose names begin with one of `prefixes` (all when empty), in order.

    Raises SystemExit when a prefix matches none.
    """
    every = sorted((settings.project_root() / "notebooks").glob("*.ipynb"))
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in every):
            sys.exit(f"No notebook begins with {prefix!r}; there are: {', '.join(path.stem for path in every)}.")
    return [path for path in every if not prefixes or path.name.startswith(tuple(prefixes))]


def execute(path: Path, cell_timeout: float = 600) -> nbformat.NotebookNode:
    """Run a notebook from the top in a fresh kernel, saying which cell is on; returns it with its outputs.

    Raises nbclient's CellExecutionError when a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    code_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def say(cell, cell_index):
        nonlocal done
        if cell.cell_type == "code":
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
        client.execute()
    finally:
        print(f" ({time.perf_counter() - started:.0f} s)", flush=True)
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


def run(paths: list[Path]) -> None:
    """Execute each notebook and write the result as an HTML page into build/."""
    exporter = HTMLExporter()
    for path in paths:
        page, _ = exporter.from_notebook_node(normalise(execute(path)))
        target = settings.project_root() / "build" / f"{path.stem}.html"
        write_atomically(target, page.encode())
        print(f"  -> {target.relative_to(settings.project_root())}")


def refresh(paths: list[Path]) -> None:
    """Execute each notebook on MNIST and put the outputs into the notebook, figures with a name into docs/figures/ too."""
    for path in paths:
        notebook = normalise(execute(path))
        write_atomically(path, (nbformat.writes(notebook) + "\n").encode())
        for name, png in named_figures(notebook).items():
            write_atomically(settings.project_root() / "docs" / "figures" / f"{name}.png", png)


def named_figures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The PNG of each figure that was shown with a name."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return {
        output.metadata["image/png"]["name"]: base64.b64decode(output.data["image/png"])
        for output in outputs
        if output.get("metadata", {}).get("image/png", {}).get("name")
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vae_utils.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "refresh"])
    parser.add_argument("notebooks", nargs="*", help="beginnings of names, such as 01; all when none is given")
    arguments = parser.parse_args()
    if arguments.action == "refresh":
        os.environ["VAE_DATASET"] = "mnist"  # committed outputs come from MNIST, or not at all
    try:
        {"run": run, "refresh": refresh}[arguments.action](find(arguments.notebooks))
    except CellExecutionError as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
