"""Measure the reference figures: every notebook under several seeds on both data sets.

python tools/reference.py                   # all notebooks
python tools/reference.py 01 04             # some
python tools/reference.py --widen FOLDER    # make room for figures that another processor or other seeds left in FOLDER

Stops at the first claim that does not come true. The tolerance of a figure comes from its standard deviation over the seeds
and has a floor, a share of its size (one, for a count), which covers other processors and thread counts. The digits get
more seeds and more room: trained on 1,300 images, a model may use one latent dimension more or less.
"""

import argparse
import json
import os
import statistics
import sys
import time
from itertools import product
from pathlib import Path

from vae_utils.cache import write_atomically
from vae_utils.claims import read_results

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for its neighbour, when this file is run as a script
from tools import refresh  # noqa: E402

SEEDS = {"digits": range(5), "mnist": range(3)}
DEVIATIONS = {"digits": 6, "mnist": 4}  # standard deviations that a run may lie from the mean
FLOOR = {"digits": 0.1, "mnist": 0.02}


def measure(path: Path, dataset: str) -> list[dict[str, float]]:
    """The figures of a notebook, one dict per seed. Exits when a claim fails."""
    figures = []
    for seed in SEEDS[dataset]:
        folder = ROOT / "build" / "reference" / f"seed{seed}"
        os.environ |= {"VAE_DATASET": dataset, "VAE_SEED": str(seed), "VAE_RESULTS_DIR": str(folder)}
        started = time.perf_counter()
        refresh.execute(path)
        result = read_results(folder)[dataset, path.stem]
        failed = [text for text, passed in result["verdicts"].items() if not passed]
        seconds = time.perf_counter() - started
        print(f"  {dataset}, seed {seed}: {seconds:.0f} s, {len(failed)} claims failed", flush=True)
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


def widen(folder: Path) -> None:
    """Give every figure room for twice the distance of the run in `folder`: of another processor, say, or another seed."""
    for (dataset, name), result in read_results(folder).items():
        path = ROOT / "tests" / "reference" / dataset / f"{name}.json"
        reference = json.loads(path.read_text(encoding="utf-8"))
        for figure, expected in reference.items():
            distance = 2 * abs(result["measured"][figure] - expected["mean"])
            if distance > expected["tolerance"]:
                expected["tolerance"] = float(f"{distance:.3g}")
        write_atomically(path, (json.dumps(reference, indent=1) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(prog="reference.py", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="beginnings of names, such as 01; all when none is given")
    parser.add_argument("--widen", type=Path, metavar="FOLDER", help="measure nothing; make room for these figures")
    asked = parser.parse_args()
    if asked.widen:
        return widen(asked.widen)
    paths = refresh.find(asked.notebooks)
    with refresh.in_plain_words():
        for path, dataset in product(paths, SEEDS):
            content = json.dumps(with_tolerance(measure(path, dataset), dataset), indent=1) + "\n"
            write_atomically(ROOT / "tests" / "reference" / dataset / f"{path.stem}.json", content.encode())


if __name__ == "__main__":
    main()
