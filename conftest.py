"""What pytest needs to know about the notebooks."""

import shutil

import hypothesis
import pytest

from vae_utils import settings

# The same examples every time: a test must not fail for one reader in a hundred. --hypothesis-profile=search looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.register_profile("search", max_examples=1000)
hypothesis.settings.load_profile("repeatable")


def _loaded_mnist() -> bool:
    """Whether notebooks run on MNIST in this session: the outputs that are committed come from there."""
    from vae_utils import data

    return data.load().name == "mnist"


def pytest_collection_modifyitems(items):
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    if not cells:
        return
    shutil.rmtree(settings.results_dir(), ignore_errors=True)  # so that the last tests see this session's figures
    on_mnist = _loaded_mnist()
    for item in cells:
        item.output_timeout = 120  # nbval gives up on a busy machine after 5 s
        if "mnist-only" in item.cell.metadata.get("tags", []) and not on_mnist:
            item.options["check"] = False


@pytest.fixture(autouse=True)
def _own_folders(request, tmp_path, monkeypatch):
    """Unit tests neither see nor touch the reader's cache, data or results."""
    if "tests/unit" in request.node.nodeid:
        for variable in ("VAE_CACHE_DIR", "VAE_DATA_DIR", "VAE_RESULTS_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
        for variable in ("VAE_DATASET", "VAE_SEED"):
            monkeypatch.delenv(variable, raising=False)
