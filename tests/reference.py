"""Measure the reference results: every notebook under several seeds on both data sets (`make reference`).

    python tests/reference.py            # all notebooks
    python tests/reference.py 01 04      # some

Stops at the first claim that does not come true. The tolerance of a figure comes from its standard deviation over the seeds
and has a floor, a share of its size (one, for a count), which covers other processors and thread counts. The digits get
more seeds and more room: trained on 1,300 images, a model may use one latent number more or less.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

from vae_utils import notebooks
from vae_utils.claims import read_results
from vae_utils.files import write_atomically

SEEDS = {"digits": range(5), "mnist": range(3)}
DEVIATIONS = {"digits": 6, "mnist": 4}  # standard deviations that a run may lie from the mean
FLOOR = {"digits": 0.1, "mnist": 0.02}
REFERENCE = Path(__file__).parent / "reference"


def measure(path: Path, dataset: str) -> list[dict[str, float]]:
    """The figures of a notebook, one dict a seed. Exits when a claim fails."""
    figures = []
    for seed in SEEDS[dataset]:
        folder = Path("build/reference").resolve() / f"seed{seed}"
        os.environ |= {"VAE_DATASET": dataset, "VAE_SEED": str(seed), "VAE_RESULTS_DIR": str(folder)}
        started = time.perf_counter()
        notebooks.execute(path)
        result = read_results(folder)[dataset, path.stem]
        failed = [text for text, passed in result["verdicts"].items() if not passed]
        print(
            f"  {dataset}, seed {seed}: {time.perf_counter() - started:.0f} s, {len(failed)} claims failed", flush=True
        )
        if failed:
            sys.exit(f"{path.stem} on {dataset} with seed {seed}: ✗ " + "; ✗ ".join(failed))
        figures.append(result["measured"])
    return figures


def with_tolerance(runs: list[dict[str, float]], dataset: str) -> dict[str, dict[str, float]]:
    """Each figure's mean over the seeds, and how far from it a run may lie."""
    reference = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        mean = statistics.mean(values)
        tolerance = max(DEVIATIONS[dataset] * statistics.stdev(values), FLOOR[dataset] * abs(mean))
        if all(value.is_integer() for value in values):
            tolerance = max(tolerance, 1)  # of a count, one more or less
        reference[name] = {"mean": float(f"{mean:.6g}"), "tolerance": float(f"{tolerance:.3g}")}
    return reference


def write(dataset: str, notebook: str, runs: list[dict[str, float]]) -> None:
    content = json.dumps(with_tolerance(runs, dataset), indent=1) + "\n"
    write_atomically(REFERENCE / dataset / f"{notebook}.json", content.encode())


def main() -> None:
    for path in notebooks.find(sys.argv[1:]):
        for dataset in SEEDS:
            write(dataset, path.stem, measure(path, dataset))


if __name__ == "__main__":
    main()
