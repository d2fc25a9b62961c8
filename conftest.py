"""What pytest needs to know about the notebooks."""

import os

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # a share of the processors for each, before torch counts them
    share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(share))
# For the kernels: what a training step frees stays with its process. To fetch it again takes a tenth of the step and more.
# (The GNU C library reads these when a process starts; elsewhere nothing does. Blocks above 64 MiB are still given back.)
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(64 << 20))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(512 << 20))

import hypothesis
import pytest

from vae_utils import settings
from vae_utils.claims import forget_results

# the same examples every time: a test must not fail for one reader in a hundred
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker has all tests of a module, or all cells of a notebook and then the comparison of its figures."""
    from xdist.scheduler import LoadScopeScheduling

    class InOrder(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, test = nodeid.partition("::")
            return f"notebooks/{test.split('[')[1][:-1]}.ipynb" if path.startswith("tests/results") else path

    return InOrder(config, log)


def pytest_collection_modifyitems(items):
    for item in [item for item in items if type(item).__name__ == "IPyNbCell"]:
        item.output_timeout = 120  # nbval gives up on a busy machine after 5 s
        if "mnist-only" in item.cell.metadata.get("tags", []) and settings.dataset() != "mnist":
            item.options["check"] = False  # the outputs that are committed come from MNIST


def pytest_runtest_setup(item):
    """Before a notebook runs, its old figures go, or its first cell fails: the last tests must see this run's."""
    if type(item).__name__ == "IPyNbCell" and item.cell_num == 0:
        forget_results(item.path.stem)


@pytest.fixture(autouse=True)
def _own_folders(request, tmp_path, monkeypatch):
    """Unit tests neither see nor touch the reader's cache, data or results."""
    if "tests/unit" in request.node.nodeid:
        for variable in ("VAE_CACHE_DIR", "VAE_DATA_DIR", "VAE_RESULTS_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
        for variable in ("VAE_DATASET", "VAE_SEED"):
            monkeypatch.delenv(variable, raising=False)
