"""Did what we said come true?

A notebook states each result as a claim beside the comparison that decides it, keeps the figures it measured, and ends with
the verdicts:

    claims = Claims("02_compression", data.name)
    claims.measure(vae_mse=0.026, pca_mse=0.035)
    claims.check("10 latent numbers beat 10 principal components", vae_mse < pca_mse)
    claims.verdicts()
"""

import json
import math
import warnings
from pathlib import Path

from vae_utils import settings
from vae_utils.files import write_atomically


class Claims:
    """The claims and measured figures of one notebook on one data set.

    Args: notebook: its file name without `.ipynb`; dataset: `ImageData.name`.
    """

    def __init__(self, notebook: str, dataset: str):
        self.notebook, self.dataset = notebook, dataset
        self._verdicts: dict[str, bool] = {}
        self._mnist_only: dict[str, bool] = {}
        self._measured: dict[str, float] = {}

    def measure(self, **figures: float) -> None:
        """Keep figures for the results file. Raises ValueError for one that is not a finite number."""
        for name, value in figures.items():
            number = float(value)
            if not math.isfinite(number):
                raise ValueError(f"The figure {name!r} is {number}; a measured figure is a finite number.")
            self._measured[name] = number

    def check(self, text: str, passed: bool, *, mnist_only: bool = False) -> None:
        """Record whether a claim came true.

        Args:
            text: the claim, a sentence a reader understands by itself, without the figures (they differ in the last digit).
            passed: the comparison that decides it, a single truth value.
            mnist_only: the claim is made for MNIST alone: 1,500 small images cannot carry it.

        Raises TypeError when `passed` is not a truth value (a list, say, is always "true").
        """
        value = passed.item() if hasattr(passed, "item") and getattr(passed, "size", None) != 0 else passed
        if not isinstance(value, bool):
            raise TypeError(f"The claim {text!r} was given {passed!r}; expected True or False, as a comparison gives.")
        (self._mnist_only if mnist_only else self._verdicts)[text] = value

    def verdicts(self, *, mnist_only: bool = False) -> None:
        """Print one line a claim, ✓ or ✗, and write verdicts and figures to `settings.results_dir()/<dataset>/<notebook>.json`.

        Raises RuntimeError when there is nothing to report, since that would pass every test.
        """
        claims = self._mnist_only if mnist_only else self._verdicts
        if not claims:
            raise RuntimeError(f"{self.notebook} has made no claim; run the notebook from the top.")
        if mnist_only and self.dataset != "mnist":
            print("These claims are made for MNIST alone; this run uses other images.")
            return
        for text, passed in claims.items():
            print("✓" if passed else "✗", text)
        self._write()

    def _write(self) -> None:
        path = settings.results_dir() / self.dataset / f"{self.notebook}.json"
        verdicts = self._verdicts | (self._mnist_only if self.dataset == "mnist" else {})
        content = {"seed": settings.seed(), "verdicts": verdicts, "measured": self._measured}
        try:
            write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
        except OSError as error:  # a learner's verdicts do not hang on a writable folder
            warnings.warn(f"The figures could not be written to {path} ({error.strerror}).", stacklevel=3)


def read_results(folder: Path) -> dict:
    """The results under `folder`, as `{(dataset, notebook): {"seed", "verdicts", "measured"}}`."""
    return {
        (path.parent.name, path.stem): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/*.json"))
    }
