"""What the first cell of every notebook relies on: is everything installed, and nothing replaced?"""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from vae_utils import environment, settings


def requirements(tmp_path, *packages):
    path = tmp_path / "requirements.txt"
    path.write_text("\n".join(["# all", *packages, "# reading and running the notebooks", "jupyterlab>=99"]))
    return path


def test_the_packages_of_the_project_are_here_and_its_tools_are_not_asked_for():
    packages = [line.split(">")[0] for line in environment.needed()]
    assert {"torch", "constriction", "scikit-learn", "ipywidgets"} <= set(packages)
    assert not {"jupyterlab", "pytest", "nbval"} & set(packages)
    assert environment.missing() == []


def test_what_is_missing_is_found_whatever_its_version_is(tmp_path):
    path = requirements(tmp_path, "torch>=999  # old is not missing", "no-such-package[extra]>=1", "nor_this")
    assert environment.missing(path) == ["no-such-package[extra]>=1", "nor_this"]


def test_away_from_colab_nothing_is_installed_and_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(environment, "missing", lambda: ["constriction>=0.4"])
    monkeypatch.setattr(environment, "pip_install", lambda packages: pytest.fail("installed without being asked"))
    with pytest.raises(ModuleNotFoundError, match=r"constriction>=0\.4.*make lab.*pip install -r requirements\.txt"):
        environment.ready()


def test_on_colab_what_is_missing_is_installed_and_the_rest_keeps_its_version(monkeypatch, capsys):
    called = []

    def run(command, check):
        constraints = command[command.index("--constraint") + 1]
        called.append((command, Path(constraints).read_text()))

    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(environment, "missing", lambda: ["constriction>=0.4"])
    monkeypatch.setattr(subprocess, "run", run)
    environment.ready()
    [(command, constraints)] = called
    assert command[-1] == "constriction>=0.4" and "torch>=2.4" not in command
    for package in ("torch", "numpy", "ipywidgets"):
        assert f"{package}=={environment.installed(package)}\n" in constraints
    assert "constriction" in capsys.readouterr().out


def test_binder_pins_every_package_that_the_notebooks_import_and_brings_no_server_of_its_own():
    lines = (settings.project_root() / "binder" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert {re.split("[<>=]", line)[0].lower() for line in environment.needed()} <= {name.lower() for name in pins}
    assert pins["torch"].endswith("+cpu") and pins["torchvision"].endswith("+cpu")
    assert not {"jupyterlab", "notebook"} & set(pins)
