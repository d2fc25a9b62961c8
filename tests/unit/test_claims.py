"""Verdicts and results files."""

import io
import json

import numpy as np
import pytest
import torch

from vae_utils import settings
from vae_utils.claims import Claims, read_results


def test_verdicts_print_findings_apart_from_sanity_checks_and_write_everything(capsys):
    claims = Claims("02_compression", "mnist")
    claims.measure(vae=0.026, pca=torch.tensor(0.035))
    claims.check("it is small", np.float64(0.026) < 0.035)
    claims.check("the moon is cheese", True)
    claims.check("the moon is cheese", torch.tensor(1.0) > 2)  # the cell was run again
    claims.check("only large data show this", True, mnist_only=True)
    claims.sanity("2 is 2", True)
    claims.verdicts()
    assert capsys.readouterr().out == "Findings\n✓ it is small\n✗ the moon is cheese\nSanity checks\n✓ 2 is 2\n"
    claims.verdicts(mnist_only=True)
    assert capsys.readouterr().out == "Findings\n✓ only large data show this\n"
    result = json.loads((settings.results_dir() / "mnist" / "02_compression.json").read_text(encoding="utf-8"))
    assert result["seed"] == 0 and result["measured"] == {"vae": 0.026, "pca": pytest.approx(0.035)}
    assert list(result["verdicts"].values()) == [True, False, True, True]
    assert read_results(settings.results_dir()) == {("mnist", "02_compression"): result}


def test_claims_for_mnist_alone_are_neither_judged_nor_kept_elsewhere(capsys):
    claims = Claims("n", "digits")
    claims.check("always", True)
    claims.check("large data only", False, mnist_only=True)
    claims.verdicts()
    claims.verdicts(mnist_only=True)
    assert "✗" not in capsys.readouterr().out
    assert read_results(settings.results_dir())["digits", "n"]["verdicts"] == {"always": True}


@pytest.mark.parametrize("passed", [[False], "no", 1, None, torch.tensor([True, False]), np.array([])])
def test_only_a_truth_value_decides_a_claim(passed):
    for decide in (Claims("n", "mnist").check, Claims("n", "mnist").sanity):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            decide("claim", passed)


def test_names_with_a_folder_figures_that_are_no_numbers_and_reports_of_nothing_are_refused():
    for name in ("../../x", "a/b", "..\\x"):
        with pytest.raises(ValueError, match="notebook is"):
            Claims(name, "mnist")
    with pytest.raises(ValueError, match="'loss'"):
        Claims("n", "mnist").measure(loss=float("nan"))
    with pytest.raises(RuntimeError):
        Claims("n", "mnist").verdicts()


def test_part_of_a_notebook_run_again_does_not_replace_the_figures_of_all(monkeypatch):
    def run(**figures):
        claims = Claims("n", "mnist")
        claims.measure(**figures)
        claims.check("claim", True)
        claims.verdicts()
        return read_results(settings.results_dir())["mnist", "n"]["measured"]

    assert run(a=1, b=2) == {"a": 1, "b": 2}
    with pytest.warns(UserWarning, match="'b'"):
        assert run(a=3) == {"a": 1, "b": 2}
    assert run(a=3, b=4, c=5) == {"a": 3, "b": 4, "c": 5}
    monkeypatch.setenv("VAE_SEED", "1")
    assert run(a=6) == {"a": 6}


def test_a_folder_that_cannot_be_written_costs_the_file_not_the_verdicts(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VAE_RESULTS_DIR", str(tmp_path / "file" / "results"))
    claims = Claims("n", "mnist")
    claims.check("claim", True)
    with pytest.warns(UserWarning, match="results"):
        claims.verdicts()
    assert "✓ claim" in capsys.readouterr().out


@pytest.mark.parametrize("old", ["", "{}", "[]", '{"seed": 0, "verd'])
def test_old_figures_that_cannot_be_read_cost_the_file_not_the_verdicts(capsys, old):
    file = settings.results_dir() / "mnist" / "n.json"
    file.parent.mkdir(parents=True)
    file.write_text(old)
    claims = Claims("n", "mnist")
    claims.check("claim", True)
    with pytest.warns(UserWarning, match=r"n\.json"):
        claims.verdicts()
    assert "✓ claim" in capsys.readouterr().out and file.read_text() == old


def test_a_console_without_check_marks_shows_words(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    monkeypatch.setattr("sys.stdout", console)
    claims = Claims("n", "mnist")
    claims.check("β is small", True)
    claims.check("the moon is cheese", False)
    claims.verdicts()
    console.flush()
    assert console.buffer.getvalue() == b"Findings\nok ? is small\nFAILED the moon is cheese\n"
