"""Verdicts and results files."""

import json

import numpy as np
import pytest
import torch

from vae_utils import settings
from vae_utils.claims import Claims, read_results


def test_verdicts_print_what_came_true_and_what_did_not_and_write_the_figures(capsys):
    claims = Claims("02_compression", "mnist")
    claims.measure(vae=0.026, pca=torch.tensor(0.035))
    claims.check("the VAE is smaller", np.float64(0.026) < 0.035)
    claims.check("the moon is cheese", torch.tensor(1.0) > 2)
    claims.check("only large data show this", True, mnist_only=True)
    claims.verdicts()
    assert capsys.readouterr().out == "✓ the VAE is smaller\n✗ the moon is cheese\n"
    claims.verdicts(mnist_only=True)
    assert capsys.readouterr().out == "✓ only large data show this\n"
    result = json.loads((settings.results_dir() / "mnist" / "02_compression.json").read_text())
    assert result["measured"] == {"vae": 0.026, "pca": pytest.approx(0.035)}
    assert result["verdicts"]["the moon is cheese"] is False
    assert read_results(settings.results_dir()) == {("mnist", "02_compression"): result}


def test_claims_for_mnist_alone_are_neither_judged_nor_kept_elsewhere(capsys):
    claims = Claims("n", "digits")
    claims.check("always", True)
    claims.check("large data only", False, mnist_only=True)
    claims.verdicts()
    claims.verdicts(mnist_only=True)
    assert "✗" not in capsys.readouterr().out
    assert read_results(settings.results_dir())["digits", "n"]["verdicts"] == {"always": True}


@pytest.mark.parametrize("passed", [[], [False], "no", 1, None, torch.tensor([True, False]), np.array([])])
def test_only_a_truth_value_decides_a_claim(passed):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        Claims("n", "mnist").check("claim", passed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="'loss'"):
        Claims("n", "mnist").measure(loss=value)


def test_no_claims_is_an_error_not_a_pass():
    with pytest.raises(RuntimeError, match="no claim"):
        Claims("n", "mnist").verdicts()


def test_running_a_cell_again_replaces_its_claim(capsys):
    claims = Claims("n", "mnist")
    claims.check("claim", False)
    claims.check("claim", True)
    claims.verdicts()
    assert capsys.readouterr().out == "✓ claim\n"


def test_a_folder_that_cannot_be_written_costs_the_file_not_the_verdicts(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VAE_RESULTS_DIR", str(tmp_path / "file" / "results"))
    claims = Claims("n", "mnist")
    claims.check("claim", True)
    with pytest.warns(UserWarning, match="could not be written"):
        claims.verdicts()
    assert capsys.readouterr().out == "✓ claim\n"
