"""A folder for workshops without a network: data, trained models, the series and, if asked for, its packages.

python tools/bundle.py make FOLDER      # on the machine that has everything (--wheels: with the packages)
python tools/bundle.py use FOLDER       # on each of the others: puts data and models in place
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

from vae_utils import data, settings
from vae_utils.cache import write_atomically

ROOT = Path(__file__).resolve().parent.parent
CONTENTS = "CONTENTS.json"
PROJECT = (
    *("README.md", "LICENSE", "Makefile", "requirements.txt", "pyproject.toml", "conftest.py"),
    *("notebooks", "vae_utils", "tools", "docs", "tests", "binder"),
)
START = """\
Variational autoencoders: six notebooks, their data and their trained models.

1. Copy the folder "project" to your disk. STICK below stands for the folder that this file lies in.
2. In a terminal, in that copy:    make setup WHEELS="STICK/wheels"
3.                                 .venv/bin/python tools/bundle.py use "STICK"
4.                                 make lab

Without make (Windows), in the copy:

    py -m venv .venv
    .venv\\Scripts\\python -m pip install --no-index --find-links "STICK\\wheels" -r requirements.txt
    .venv\\Scripts\\python tools\\bundle.py use "STICK"
    .venv\\Scripts\\python -m jupyterlab --notebook-dir=notebooks

If there is no folder "wheels" here, pip needs a network: leave out WHEELS, and --no-index and --find-links.
"""


class BundleError(RuntimeError):
    """What stands in the way of making or using a bundle: names the file or folder and the way out."""


def make(folder: Path, *, wheels: bool = False) -> None:
    """Fill `folder`, which must be new or empty.

    `data/` (MNIST, checked), `cache/` (trained models), `project/` (the series) and with `wheels` also `wheels/` (all packages
    for this machine's system and Python). CONTENTS.json holds the SHA-256 of each file. Raises BundleError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} is not empty; name a new folder, nothing is overwritten.")
    try:
        files = {f"data/MNIST/raw/{path.name}": path for path in data.sound_files("mnist")}
    except data.DataError as error:
        raise BundleError(f"There is no sound MNIST to copy: {error}; run a notebook once with a network.") from error
    models = sorted(settings.cache_dir().glob("*.safetensors"))
    if not models:
        print(f"There is no trained model in {settings.cache_dir()}: everybody will train. `make run` makes them.")
    files |= {f"cache/{path.name}": path for path in models}
    files |= {f"project/{path.relative_to(ROOT).as_posix()}": path for path in _project_files()}
    for name, source in files.items():
        _write(source.read_bytes(), folder / name)
    _write(START.encode(), folder / "START.txt")
    if wheels:
        _download_wheels(folder.resolve() / "wheels")
    written = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    digests = {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in written}
    _write(json.dumps({"sha256": digests}, indent=1).encode(), folder / CONTENTS)
    size = sum(path.stat().st_size for path in written) / 1e6
    print(
        f"{folder}: MNIST, {len(models)} trained models, the series; {size:.0f} MB. START.txt says what to do with it."
    )


def use(folder: Path) -> None:
    """Put data and trained models of a bundle into `VAE_DATA_DIR` and `VAE_CACHE_DIR`, all checked before the first is copied.

    A file that is there already is never overwritten: a differing model of yours is kept, and said so. Raises BundleError
    when `folder` is no bundle, when a file of it is missing or damaged, and for a differing data file.
    """
    places = {"data": settings.data_dir(), "cache": settings.cache_dir()}
    new, present, differing = {}, 0, []
    for name, digest in _contents(folder).items():
        source, (place, *rest) = _inside(folder, name), PurePosixPath(name).parts
        if place not in places:
            continue
        target, content = _inside(places[place], "/".join(rest)), _checked(source, digest)
        if not target.exists():
            new[target] = content
        elif target.is_file() and _digest(target.read_bytes()) == digest:
            present += 1
        elif place == "data":
            raise BundleError(f"{target} differs from the file of the bundle; move yours away, it is not overwritten.")
        else:
            differing.append(target)
    for target, content in new.items():
        _write(content, target)
    print(f"{len(new)} files put in place, {present} were there already.")
    if differing:
        print(f"{len(differing)} trained models of yours differ from the bundle's and were kept.")


def _project_files() -> list[Path]:
    """The files of the series, without what Python and editors leave behind."""
    found = (
        path for name in PROJECT for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    )
    return sorted(
        path
        for path in found
        if path.is_file() and path.suffix != ".pyc" and not any(part[0] == "." for part in path.relative_to(ROOT).parts)
    )


def _download_wheels(folder: Path) -> None:
    """All packages of requirements.txt, and what installs them; torch from the index `TORCH_INDEX`, if one is named."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    requirements = ["-r", "requirements.txt", "setuptools"]  # setuptools builds the package itself
    index = os.environ.get("TORCH_INDEX", "").strip()
    try:
        if index:
            subprocess.run([*download, "--index-url", index, "torch", "torchvision"], check=True)
            # else pip would take a newer torch from the other index, and several GB with it
            names = (re.match(r"(torch(?:vision)?)-([^-]+)-", path.name) for path in sorted(folder.glob("*.whl")))
            requirements += [f"{match[1]}=={match[2]}" for match in names if match]
        subprocess.run([*download, "--find-links", str(folder), *requirements], check=True, cwd=ROOT)
    except subprocess.CalledProcessError as error:
        raise BundleError(f"The packages could not be downloaded: pip ended with {error.returncode}.") from error


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of the bundle, by its name below `folder`."""
    try:
        digests = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["sha256"]
        return {str(name): str(digest) for name, digest in digests.items()}
    except OSError as error:
        raise BundleError(
            f"{folder} is no bundle: {CONTENTS}: {error.strerror}; name the folder of START.txt."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / CONTENTS} is damaged ({error!r}); copy the bundle again.") from error


def _inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`; raises BundleError for a name that leads out of it, on whatever system."""
    path = (folder / name).resolve()
    if "\\" in name or not path.is_relative_to(folder.resolve()):
        raise BundleError(f"The bundle names {name!r}, a place outside of its folder; do not use it.")
    return path


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); copy the bundle again.") from error
    if _digest(content) != digest:
        raise BundleError(f"{path} is damaged; copy the bundle again.")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(content: bytes, target: Path) -> None:
    try:
        write_atomically(target, content)
    except OSError as error:
        raise BundleError(f"{target} could not be written: {error.strerror}.") from error


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bundle.py", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["make", "use"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheels", action="store_true", help="make: all packages, too, for this system and Python")
    asked = parser.parse_args(arguments)
    try:
        if asked.action == "make":
            make(asked.folder, wheels=asked.wheels)
        else:
            use(asked.folder)
    except BundleError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
