"""Where does the series live? Writes badges and the address to clone from, taken from the git remote.

python -m vae_utils.address            # write them into the README and the notebooks
python -m vae_utils.address --check    # say what is out of date, and change nothing
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from vae_utils.files import write_atomically
from vae_utils.settings import project_root

BEGIN, END = "<!-- badges -->", "<!-- end of badges -->"
NO_ADDRESS = (
    "*Colab and Binder:* this copy of the series has no public address yet. After `git remote add origin <address>`, "
    "`make badges` writes the links here."
)
SETUP = """\
# Finds the helper package beside this notebook; on Colab, which has the notebook alone, fetches it first.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ADDRESS = "{address}"
if "google.colab" in sys.modules and ADDRESS and not Path("/content/series").is_dir():
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ADDRESS, "/content/series"], check=True)
found = [p for p in (Path.cwd(), *Path.cwd().parents, Path("/content/series")) if (p / "vae_utils").is_dir()]
sys.path[:0] = [str(p) for p in found[:1]]
if find_spec("vae_utils") is None:
    raise ModuleNotFoundError(f"There is no folder vae_utils near this notebook; get the whole series. {{ADDRESS}}")

from vae_utils import environment

environment.ready()"""


def https_address(remote: str) -> str:
    """A git remote as the address a browser can open: `git@github.com:a/b.git` -> `https://github.com/a/b`.

    Raises ValueError for a remote that is no address on the web (a folder, say).
    """
    remote = remote.strip().removesuffix("/").removesuffix(".git")
    if match := re.fullmatch(r"(?:ssh://)?git@([\w.-]+)[:/](.+)", remote):
        return f"https://{match[1]}/{match[2]}"
    if match := re.fullmatch(r"https?://(?:[^@/]+@)?([\w.-]+/.+)", remote):
        return f"https://{match[1]}"
    raise ValueError(f"The remote is {remote!r}; expected an address such as https://github.com/OWNER/NAME.")


def remote_address(folder: Path | None = None) -> str:
    """The https address of the remote `origin` of the checkout in `folder` (default: the project); empty when it has none."""
    command = ["git", "-C", str(folder or project_root()), "remote", "get-url", "origin"]
    answer = subprocess.run(command, capture_output=True, text=True)
    try:
        return https_address(answer.stdout) if answer.returncode == 0 else ""
    except ValueError:
        return ""


def badges(address: str, notebook: str | None = None) -> str:
    """The line of badges for a notebook's file name (None: for the README); for an empty address, how to get one.

    Colab and Binder open what is on GitHub; for another host the line is a plain link.
    """
    if not address:
        return NO_ADDRESS
    if not (match := re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", address)):
        return f"[Get the series]({address})"
    where = f"notebooks/{notebook}" if notebook else "notebooks/01_theory_and_model.ipynb"
    colab = f"https://colab.research.google.com/github/{match[1]}/blob/HEAD/{where}"
    binder = f"https://mybinder.org/v2/gh/{match[1]}/HEAD?labpath={where.replace('/', '%2F')}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def readme_with(text: str, address: str) -> str:
    """The README with its badges for `address`. Raises ValueError when the place for them is gone."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md has no place for badges; put {BEGIN} and {END} around one.")
    return re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{badges(address)}\n{END}", text, flags=re.DOTALL)


def notebook_with(notebook: nbformat.NotebookNode, name: str, address: str) -> nbformat.NotebookNode:
    """The notebook with its badges and its setup cell for `address`, in place.

    They are the cells tagged `badges` and `setup`. Raises ValueError when a notebook has not just one of each.
    """
    contents = {"badges": badges(address, name), "setup": SETUP.format(address=address)}
    for tag, content in contents.items():
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ValueError(f"{name} has {len(cells)} cells tagged {tag!r}; expected one.")
        cells[0].source = content
    return notebook


def write(address: str, *, check: bool = False) -> list[str]:
    """Bring README and notebooks up to date; returns the names of those that were not. With `check`, changes nothing."""
    root, stale = project_root(), []
    readme = root / "README.md"
    contents = {readme: readme_with(readme.read_text(encoding="utf-8"), address)}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        contents[path] = nbformat.writes(notebook_with(nbformat.read(path, as_version=4), path.name, address)) + "\n"
    for path, content in contents.items():
        if path.read_text(encoding="utf-8") != content:
            stale.append(path.name)
            if not check:
                write_atomically(path, content.encode())
    return stale


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vae_utils.address", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say what is out of date, and change nothing")
    parser.add_argument("--address", help="instead of the remote's, such as https://github.com/OWNER/NAME")
    arguments = parser.parse_args()
    address = remote_address() if arguments.address is None else arguments.address
    stale = write(address, check=arguments.check)
    print(f"Address: {address or 'none (git remote add origin ...)'}")
    if arguments.check and stale:
        sys.exit(f"Out of date: {', '.join(stale)}; run `make badges`.")


if __name__ == "__main__":
    main()
