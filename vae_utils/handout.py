"""How does a workshop start without a network? One folder to hand round: data, trained models, the series, its packages.

python -m vae_utils.handout make FOLDER             # on the machine that has everything (--wheels: packages, too)
python -m vae_utils.handout use FOLDER              # on each of the others: puts data and models in place
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

from vae_utils import cache, data, settings
from vae_utils.files import write_atomically

CONTENTS = "CONTENTS.json"
PROJECT = [
    "README.md",
    "LICENSE",
    "Makefile",
    "requirements.txt",
    "pyproject.toml",
    "conftest.py",
    "notebooks",
    "vae_utils",
    "docs",
    "tests",
    "binder",
]
START = """\
Variational autoencoders: six notebooks, their data and their trained models.

1. Copy the folder "project" to your disk.
2. In a terminal, in that copy:    make from-stick STICK="the folder this file lies in"
3. Then:                           make lab

Without make (Windows), in the copy, with the folder this file lies in as STICK:

    python -m venv .venv
    .venv\\Scripts\\activate
    pip install --no-index --find-links STICK\\wheels -r requirements.txt
    python -m vae_utils.handout use STICK
    jupyter lab --notebook-dir=notebooks

If there is no folder "wheels" here, pip needs a network; leave out --no-index and --find-links.
"""


class HandoutError(RuntimeError):
    """What stands in the way of making or using a handout: names the file or folder and the way out."""


def make(folder: Path, *, wheels: bool = False) -> None:
    """Fill `folder`, which must be new or empty, with what a workshop hands round.

    `data/` (MNIST, checked), `cache/` (trained models), `project/` (the series) and with `wheels` also `wheels/` (all packages
    for this machine's system and Python). CONTENTS.json holds the SHA-256 of each file. Raises HandoutError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HandoutError(f"{folder} is not empty; name a new folder, nothing is overwritten.")
    try:
        files = {f"data/MNIST/raw/{path.name}": path for path in data.sound_files("mnist")}
    except data.DataError as error:
        raise HandoutError(
            f"There is no sound MNIST to hand round: {error}; run a notebook once with a network."
        ) from error
    models = sorted(settings.cache_dir().glob("*.safetensors"))
    files |= {f"cache/{path.name}": path for path in models}
    files |= {f"project/{path.relative_to(settings.project_root()).as_posix()}": path for path in _project_files()}
    if not models:
        print(
            f"There is no trained model in {settings.cache_dir()}: everybody will have to train. Run `make run` first."
        )
    for name, source in files.items():
        _copy(source.read_bytes(), folder / name)
    (folder / "START.txt").write_text(START, encoding="utf-8")
    if wheels:
        _download_wheels(folder / "wheels")
    digests = {
        path.relative_to(folder).as_posix(): cache.digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_atomically(folder / CONTENTS, json.dumps({"sha256": digests}, indent=1).encode())
    size = sum((folder / name).stat().st_size for name in digests) / 1e6
    print(
        f"{folder}: MNIST, {len(models)} trained models and the series, {size:.0f} MB. START.txt says what to do with it."
    )


def use(folder: Path) -> None:
    """Put data and trained models from a handout into `VAE_DATA_DIR` and `VAE_CACHE_DIR`, each file checked or not at all.

    A file that is there already is never overwritten: a differing model of yours is kept, and said so. Raises HandoutError
    when `folder` is no handout, when a file of it is missing or damaged, and for a differing data file; nothing is copied then.
    """
    digests = _contents(folder)
    targets = {"data": settings.data_dir(), "cache": settings.cache_dir()}
    new, present, differing = {}, [], []
    for name, digest in digests.items():
        place, *rest = PurePosixPath(name).parts
        if place not in targets:
            continue
        source, target = folder / name, targets[place].joinpath(*rest)
        content = _checked(source, digest)
        if not target.exists():
            new[target] = content
        else:
            same = target.is_file() and cache.digest(target.read_bytes()) == digest
            (present if same else differing).append(target)
    if damaged := [path for path in differing if targets["data"] in path.parents]:
        raise HandoutError(
            f"{damaged[0]} differs from the file of the handout; move yours away, it is not overwritten."
        )
    for target, content in new.items():
        _copy(content, target)
    print(f"{len(new)} files put in place, {len(present)} were there already.")
    if differing:
        print(f"{len(differing)} trained models of yours differ from the handout's and were kept.")
    try:
        data.sound_files("mnist")
    except data.DataError as error:
        raise HandoutError(f"The copy is not what MNIST should be: {error}; make the handout again.") from error


def _project_files() -> list[Path]:
    """The files of the series, without what Python and editors leave behind."""
    root = settings.project_root()
    found = (
        path for name in PROJECT for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
    )
    tidy = (path for path in found if path.is_file() and not path.name.endswith(".pyc"))
    return sorted(path for path in tidy if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _download_wheels(folder: Path) -> None:
    """All packages of requirements.txt; torch from the index named by `TORCH_INDEX`, if one is. Raises HandoutError."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    requirements = ["-r", str(settings.project_root() / "requirements.txt")]
    index = os.environ.get("TORCH_INDEX", "").strip()
    try:
        if index:
            subprocess.run([*download, "--index-url", index, "torch", "torchvision"], check=True)
            # else pip would take a newer torch from the other index, and several GB with it
            names = (re.match(r"(torch(?:vision)?)-([^-]+)-", path.name) for path in sorted(folder.glob("*.whl")))
            requirements += [f"{match[1]}=={match[2]}" for match in names if match]
        subprocess.run([*download, "--find-links", str(folder), *requirements], check=True)
    except subprocess.CalledProcessError as error:
        raise HandoutError(
            f"The packages could not be downloaded: pip ended with status {error.returncode}."
        ) from error


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of the handout, by its name below `folder`."""
    try:
        digests = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["sha256"]
        outside = [name for name in digests if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute()]
    except FileNotFoundError:
        raise HandoutError(
            f"{folder} is no handout: it holds no {CONTENTS}. Name the folder that START.txt lies in."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise HandoutError(f"{folder / CONTENTS} is damaged ({error!r}); copy the handout again.") from error
    if outside:
        raise HandoutError(f"{folder / CONTENTS} names {outside[0]!r}, a place outside of the handout; do not use it.")
    return digests


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HandoutError(f"{path} cannot be read ({error.strerror}); copy the handout again.") from error
    if cache.digest(content) != digest:
        raise HandoutError(f"{path} is damaged; copy the handout again.")
    return content


def _copy(content: bytes, target: Path) -> None:
    try:
        write_atomically(target, content)
    except OSError as error:
        raise HandoutError(f"{target} could not be written: {error.strerror}.") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vae_utils.handout", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make", help="fill a new folder with data, trained models and the series")
    making.add_argument("--wheels", action="store_true", help="and all packages, for this system and Python")
    using = actions.add_parser("use", help="put data and trained models from such a folder in place")
    for action in (making, using):
        action.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.action == "make":
            make(arguments.folder, wheels=arguments.wheels)
        else:
            use(arguments.folder)
    except HandoutError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
