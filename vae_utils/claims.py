"""Claims: a notebook states each result beside the comparison that decides it, keeps the figures it measured, and ends
with the verdicts. They go to a results file, which a test compares with the reference figures.
"""

import json
import math
import warnings
from pathlib import Path

from vae_utils import settings
from vae_utils.cache import write_atomically


class Claims:
    """The claims and measured figures of one notebook on one data set.

    notebook: its file name without `.ipynb`; dataset: `ImageData.name`. Raises ValueError for a notebook in a folder.
    """

    def __init__(self, notebook: str, dataset: str):
        if Path(notebook).name != notebook or "\\" in notebook:
            raise ValueError(f"notebook is {notebook!r}; give a file name without a folder, such as '02_compression'.")
        self.notebook, self.dataset = notebook, dataset
        self._findings, self._mnist_only, self._sanity, self._measured = {}, {}, {}, {}

    def measure(self, **figures: float) -> None:
        """Keep figures for the results file. Raises ValueError for one that is not a finite number."""
        for name, value in figures.items():
            if not math.isfinite(value):
                raise ValueError(f"The figure {name!r} is {float(value)}; expected a finite number.")
            self._measured[name] = float(value)

    def check(self, text: str, passed: bool, *, mnist_only: bool = False) -> None:
        """Record a finding, which could have come out otherwise: a sentence without figures, and whether it came true.

        With `mnist_only` it is claimed of MNIST alone. Raises TypeError when `passed` is not one truth value.
        """
        (self._mnist_only if mnist_only else self._findings)[text] = _truth(text, passed)

    def sanity(self, text: str, passed: bool) -> None:
        """Record whether two ways to compute the same thing agree. Raises TypeError as `check` does."""
        self._sanity[text] = _truth(text, passed)

    def verdicts(self, *, mnist_only: bool = False) -> None:
        """Print each claim with ✓ or ✗, and write everything to `settings.results_dir()/<dataset>/<notebook>.json`.

        Raises RuntimeError when there is no finding to report, since that would pass every test.
        """
        if not (findings := self._mnist_only if mnist_only else self._findings):
            raise RuntimeError(f"{self.notebook} has made no claim; run the notebook from the top.")
        if mnist_only and self.dataset != "mnist":
            return print("These claims are made for MNIST alone; this run uses other images.")
        report = _section("Findings", findings) + ([] if mnist_only else _section("Sanity checks", self._sanity))
        try:
            print("\n".join(report))
        except UnicodeEncodeError:  # a console without ✓
            print("\n".join(report).replace("✓", "ok").replace("✗", "FAILED").encode("ascii", "replace").decode())
        self._write()

    def _write(self) -> None:
        path = settings.results_dir() / self.dataset / f"{self.notebook}.json"
        verdicts = self._findings | self._sanity | (self._mnist_only if self.dataset == "mnist" else {})
        content = {"seed": settings.seed(), "verdicts": verdicts, "measured": self._measured}
        try:
            old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else content
            missing = old["measured"].keys() - self._measured
            if missing and old["seed"] == content["seed"]:  # part of the notebook was run again after a restart
                why = f"it has figures that were not measured now, such as {min(missing)!r}"
                warnings.warn(f"{path} is kept: {why}. Run the notebook from the top.", stacklevel=3)
            else:
                write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
        except (OSError, ValueError, LookupError, TypeError) as error:  # verdicts do not hang on a file
            warnings.warn(f"The figures could not be written to {path} ({error!r}).", stacklevel=3)


def _truth(text: str, passed: object) -> bool:
    value = passed.item() if hasattr(passed, "item") else passed
    if not isinstance(value, bool):
        raise TypeError(f"The claim {text!r} was given {passed!r}; expected True or False, as a comparison gives.")
    return value


def _section(heading: str, claims: dict[str, bool]) -> list[str]:
    return [heading, *(f"{'✓' if passed else '✗'} {text}" for text, passed in claims.items())] if claims else []


def forget_results(notebook: str) -> None:
    """Remove what `notebook` measured before, on any data set, as it is about to run from the top. Raises OSError."""
    for dataset in settings.DATASETS:
        (settings.results_dir() / dataset / f"{notebook}.json").unlink(missing_ok=True)


def read_results(folder: Path) -> dict:
    """The results under `folder`, as `{(dataset, notebook): {"seed", "verdicts", "measured"}}`."""
    files = {(path.parent.name, path.stem): path for path in sorted(folder.glob("*/*.json"))}
    return {key: json.loads(path.read_text(encoding="utf-8")) for key, path in files.items()}
