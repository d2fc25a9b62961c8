"""Training from the command line: one process, several, and one that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from vae_utils import train, training
from vae_utils.corruption import AnyOf, DropPixels, EraseBlock
from vae_utils.data import load
from vae_utils.model import VAE

LINE = ["-m", "vae_utils.train", "--latent-dim", "4", "--epochs", "1"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", *LINE]


@pytest.mark.parametrize("made", [DropPixels(0.5), AnyOf(DropPixels((0.0, 0.9)), EraseBlock(14))])
def test_a_corruption_is_read_as_it_is_written(made):
    assert repr(train.parse_corruption(repr(made))) == repr(made)


@pytest.mark.parametrize(
    "text", ["__import__('os').getcwd()", "DropPixels", "DropPixels(0.5", "0.5", "DropPixels(7)", "VAE(3)"]
)
def test_anything_else_is_refused_and_not_run(text):
    with pytest.raises(ValueError, match="DropPixels"):
        train.parse_corruption(text)


def test_bad_input_ends_with_a_sentence(monkeypatch):
    monkeypatch.setenv("VAE_DATASET", "digits")
    with pytest.raises(SystemExit, match="latent_dim is 0"):
        train.main(["--latent-dim", "0"])


def test_the_model_is_the_one_that_a_notebook_would_find(monkeypatch, capsys):
    monkeypatch.setenv("VAE_DATASET", "digits")
    monkeypatch.setattr(train, "epochs_for", lambda images, epochs: epochs)
    train.main(["--latent-dim", "4", "--epochs", "1", "--validate"])
    assert "1 epochs, 1 process(es): test loss" in capsys.readouterr().out
    monkeypatch.setattr(training, "_Loss", lambda model: pytest.fail("trained again"))
    data = load()
    training.fit_or_load(
        lambda: VAE(latent_dim=4), data.train_images, name="vae-4", epochs=1, val_images=data.val_images
    )


@pytest.fixture
def images():
    return torch.rand(96, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def fresh():
    torch.manual_seed(0)
    return VAE(latent_dim=3)


def stop_after_two_epochs(monkeypatch):
    evaluate, calls = training.evaluate, []

    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the power went")
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", stop)


def test_a_run_that_ended_early_goes_on_as_if_nothing_had_been(images, monkeypatch, tmp_path):
    path, options = (
        tmp_path / "model.checkpoint",
        {"epochs": 4, "batch_size": 32, "val_images": images[:8], "progress": False},
    )
    whole, resumed = fresh(), fresh()
    expected = training.fit(whole, images, **options)
    with monkeypatch.context() as patch:
        stop_after_two_epochs(patch)
        with pytest.raises(RuntimeError, match="the power went"):
            training.fit(fresh(), images, checkpoint=path, **options)
    history = training.fit(resumed, images, checkpoint=path, **options)
    assert history.epochs == expected.epochs
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert not path.exists()


def test_a_damaged_checkpoint_is_named_and_not_used(images, tmp_path, capsys):
    path, options = tmp_path / "model.checkpoint", {"epochs": 1, "batch_size": 32, "progress": False}
    path.write_bytes(b"half of a file")
    model, expected = fresh(), fresh()
    training.fit(expected, images, **options)
    training.fit(model, images, checkpoint=path, **options)
    assert "model.checkpoint is damaged" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


# --- several processes --------------------------------------------------------------------------------------------------


def environment(cache):
    return os.environ | {"VAE_DATASET": "digits", "VAE_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}


def run(command, cache):
    root = Path(train.__file__).parent.parent
    return subprocess.run(
        [sys.executable, *command], env=environment(cache), cwd=root, capture_output=True, text=True, timeout=240
    )


def loss_of(run):
    return float(run.stdout.split("test loss ")[1].split()[0])


def test_two_processes_learn_what_one_does_and_only_the_first_writes(tmp_path):
    # no noise and small steps, so that the same batches must lead to the same place
    one, two = (
        run([*line, "--autoencoder", "--peak-lr", "2e-3"], tmp_path / name)
        for line, name in ((LINE, "one"), (TORCHRUN, "two"))
    )
    assert "1 process(es)" in one.stdout and "2 process(es)" in two.stdout, two.stderr[-2000:]
    assert two.stdout.count("test loss") == 1
    assert abs(loss_of(one) - loss_of(two)) < 0.5
    [file] = (tmp_path / "two").iterdir()
    assert file.name == next((tmp_path / "one").iterdir()).name
    assert safetensors.torch.load_file(file)["fc21.weight"].shape == (4, 400)


def test_a_batch_that_cannot_be_shared_out_is_named(tmp_path):
    refused = run([*TORCHRUN, "--batch-size", "33"], tmp_path)
    assert refused.returncode != 0 and "batch_size is 33; give a multiple of the 2 processes" in refused.stderr


def process_of_rank(rank, marker):
    """The process that torchrun started as `rank`, found by its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in variables and marker.encode() in variables:
            return int(folder.name)
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process to kill in /proc")
def test_a_killed_process_ends_the_job_with_a_usable_checkpoint(tmp_path):
    root, line = Path(train.__file__).parent.parent, [*TORCHRUN, "--epochs", "3"]
    options = {
        "env": environment(tmp_path),
        "cwd": root,
        "stderr": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen([sys.executable, *line], **options) as job:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*.checkpoint")):
            assert time.monotonic() < deadline and job.poll() is None, "no checkpoint was written"
            time.sleep(0.05)
        os.kill(process_of_rank(1, f"VAE_CACHE_DIR={tmp_path}"), signal.SIGKILL)
        _, said = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "another process of this training ended" in said and "give the same line again" in said
    assert not list(tmp_path.glob("*.safetensors"))
    [checkpoint] = tmp_path.glob("*.checkpoint")
    done = len(torch.load(checkpoint, weights_only=True)["epochs"])
    again = run([*LINE, "--epochs", "3"], tmp_path)
    assert 1 <= done < 36 and "36 epochs, 1 process(es)" in again.stdout, again.stderr[-2000:]
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
