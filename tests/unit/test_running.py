"""Several notebooks at a time: how many, with how many threads each, and what happens when one fails."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from vae_utils import notebooks

PATHS = [Path(f"{number:02}_fake.ipynb") for number in range(1, 6)]


@pytest.fixture
def fake(monkeypatch):
    """Notebooks that take a moment each, on four processors with much memory; what was run, and how many at most at once."""
    seen = SimpleNamespace(order=[], threads=set(), most=0, now=0, written=[], fetched=0, failing=None)
    lock = threading.Lock()

    def execute(path, threads=None):
        with lock:
            seen.now += 1
            seen.most = max(seen.most, seen.now)
            seen.order.append(path)
            seen.threads.add(threads)
        time.sleep(0.05)
        with lock:
            seen.now -= 1
        if path == seen.failing:
            raise ValueError(path.name)
        return nbformat.v4.new_notebook()

    def load():
        seen.fetched += 1

    monkeypatch.setattr(notebooks, "execute", execute)
    monkeypatch.setattr("vae_utils.data.load", load)
    monkeypatch.setattr(notebooks, "_write_page", lambda notebook, folder, path: seen.written.append(path))
    monkeypatch.setattr(notebooks.settings, "limit_threads", lambda: 4)
    monkeypatch.setattr(notebooks.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 << 30))
    return seen


def test_two_at_a_time_share_the_processors_and_fetch_the_data_once(fake):
    notebooks.run(PATHS)
    assert sorted(fake.written) == PATHS
    assert fake.order[:2] in (PATHS[:2], PATHS[1::-1])
    assert fake.most == 2 and fake.threads == {2} and fake.fetched == 1


def test_every_notebook_has_its_place_in_the_order():
    assert sorted(notebooks.ORDER) == [path.name[:2] for path in notebooks.find([])]


def test_one_after_the_other_each_has_the_machine_to_itself(fake):
    notebooks.run(PATHS, jobs=1)
    assert fake.written == PATHS
    assert fake.most == 1 and fake.threads == {None} and fake.fetched == 0


def test_a_single_notebook_has_the_machine_to_itself(fake):
    notebooks.run(PATHS[:1])
    assert fake.threads == {None}


def test_when_one_fails_those_that_wait_are_not_begun(fake):
    fake.failing = PATHS[0]
    with pytest.raises(ValueError, match="01_fake"):
        notebooks.run(PATHS, jobs=2)
    assert PATHS[4] not in fake.order and PATHS[0] not in fake.written


@pytest.mark.parametrize(("processors", "gigabytes", "jobs"), [(1, 8, 1), (2, 8, 2), (16, 8, 2), (2, 3, 1)])
def test_how_many_fit_depends_on_processors_and_memory(fake, monkeypatch, processors, gigabytes, jobs):
    monkeypatch.setattr(notebooks.settings, "limit_threads", lambda: processors)
    monkeypatch.setattr(notebooks.psutil, "virtual_memory", lambda: SimpleNamespace(available=gigabytes << 30))
    assert notebooks.jobs_that_fit() == jobs


@pytest.mark.parametrize("line", [["run", "--jobs", "0"], ["html", "--jobs", "2"]])
def test_jobs_that_make_no_sense_are_refused(line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["notebooks", *line])
    with pytest.raises(SystemExit):
        notebooks.main()
    assert "--jobs wants a whole number of at least 1" in capsys.readouterr().err
