"""Training by several processes: the same weights as `fit`, whatever ends it on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from tools import train_ddp
from vae_utils import settings
from vae_utils.corruption import AnyOf, DropPixels, EraseBlock
from vae_utils.model import VAE
from vae_utils.training import fit, seeded

SCRIPT = [train_ddp.__file__, "--latent-dim", "4", "--epochs", "1"]


@pytest.fixture
def images():
    return torch.rand(96, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def training(images, checkpoint, *line):
    asked = train_ddp.parser().parse_args(["--latent-dim", "3", "--epochs", "1", "--batch-size", "32", *line])
    with train_ddp.processes():
        made = train_ddp.Training(asked, images, "recipe", checkpoint)
        made.run(images[:8])
    return made


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_one_process_finds_the_weights_of_fit(images, tmp_path):
    with seeded(0):
        model = VAE(latent_dim=3)
    history = fit(model, images, val_images=images[:8], epochs=4, batch_size=8, corrupt=DropPixels(0.2), seed=0)
    made = training(images, tmp_path / "one.checkpoint", "--corrupt", "DropPixels(0.2)")
    assert same(made.model, model)
    assert [epoch["val_loss"] for epoch in made.history] == history.column("val_loss")
    assert made.history[-1]["loss"] == pytest.approx(history.column("loss")[-1], rel=1e-6)


@pytest.mark.parametrize("ended", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_ended_early_goes_on_as_if_nothing_had_been(images, monkeypatch, tmp_path, ended):
    whole = training(images, tmp_path / "whole.checkpoint")
    keep = train_ddp.Training.keep

    def stop_in_the_third(self):
        keep(self)
        if len(self.history) == 3:
            raise ended

    with monkeypatch.context() as patch:
        patch.setattr(train_ddp.Training, "keep", stop_in_the_third)
        with pytest.raises(ended):
            training(images, tmp_path / "some.checkpoint")
    resumed = training(images, tmp_path / "some.checkpoint")
    assert same(resumed.model, whole.model) and resumed.history == whole.history


@pytest.mark.parametrize("kind", ["half a file", "another's", "of another shape"])
def test_a_checkpoint_that_cannot_be_used_is_named_and_set_aside(images, tmp_path, capsys, kind):
    path = tmp_path / "some.checkpoint"
    expected = training(images, path)
    state = torch.load(path, weights_only=True)
    if kind == "of another shape":
        state["model"]["fc21.weight"] = torch.zeros(7, 400)
    torch.save(state | {"recipe": "other" if kind == "another's" else "recipe"}, path)
    if kind == "half a file":
        path.write_bytes(path.read_bytes()[:1000])
    content = path.read_bytes()
    assert same(training(images, path).model, expected.model)
    assert (tmp_path / "some.set-aside").read_bytes() == content
    assert "some.checkpoint" in capsys.readouterr().out


def test_a_full_cache_costs_the_cache_and_not_the_run(images, monkeypatch, tmp_path, capsys):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train_ddp, "write_atomically", full)
    monkeypatch.setattr(train_ddp, "pace", lambda images, epochs, size: {"epochs": 1, "batch_size": size})
    monkeypatch.setenv("VAE_DATASET", "digits")
    train_ddp.main(["--latent-dim", "2"])
    said = capsys.readouterr().out
    assert said.count("No space left on device") == 2 and "test loss" in said


def test_after_ctrl_c_the_status_is_not_0_and_the_way_on_is_named(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_ddp, "train", interrupted)
    monkeypatch.setenv("VAE_DATASET", "digits")
    with pytest.raises(SystemExit) as end:
        train_ddp.main([])
    assert end.value.code == 130 and "same line goes on" in capsys.readouterr().err


@pytest.mark.parametrize("made", [DropPixels(0.5), AnyOf(DropPixels((0.0, 0.9)), EraseBlock(14))])
def test_a_corruption_is_read_as_it_is_written(made):
    assert repr(train_ddp.corruption_of(repr(made))) == repr(made)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "DropPixels", "DropPixels(0.5", "0.5", "VAE(3)", "math()", "EraseBlock(40)", ""],
)
def test_anything_else_is_refused_and_not_run(text):
    with pytest.raises(SystemExit):
        train_ddp.parser().parse_args(["--corrupt", text])


BAD = [["--latent-dim", "0"], ["--beta", "nan"], ["--beta", "-1"], ["--peak-lr", "inf"], ["--epochs", "1.5"]]


@pytest.mark.parametrize("line", [*BAD, ["--seed", "9" * 20], ["--seed", "-1"]])
def test_settings_out_of_range_are_refused(line, capsys):
    with pytest.raises(SystemExit):
        train_ddp.parser().parse_args(line)
    assert line[1] in capsys.readouterr().err


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda"])
def test_a_device_that_cannot_be_had_is_named_and_not_replaced(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("VAE_DEVICE", device)
    with pytest.raises(SystemExit, match=device):
        train_ddp.main([])
    assert os.environ["VAE_DEVICE"] == device


def test_hosts_talk_over_the_interface_that_leads_to_the_master_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29400")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    train_ddp.use_interface_of_master()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    train_ddp.use_interface_of_master()
    chosen = psutil.net_if_addrs()[os.environ["GLOO_SOCKET_IFNAME"]]
    assert "127.0.0.1" in {entry.address for entry in chosen}


def test_hosts_that_were_given_other_data_are_told_so(monkeypatch):
    def gather(box, mine):
        box[:] = [mine, mine.replace('"seed": "0"', '"seed": "3"')]

    monkeypatch.setenv("VAE_DATASET", "digits")
    monkeypatch.setattr(train_ddp.dist, "all_gather_object", gather)
    with pytest.raises(SystemExit) as end:
        train_ddp.main([])
    assert "Process 1 has other options or other data" in str(end.value) and '"seed": "3"' in str(end.value)


def test_hosts_that_do_not_reach_each_other_are_told_which_setting_to_try(monkeypatch):
    def refused(*arguments, **settings):
        raise RuntimeError("Connection refused, remote=[127.0.0.1]:21422")

    monkeypatch.setattr(train_ddp.dist, "init_process_group", refused)
    with pytest.raises(SystemExit) as end:
        train_ddp.main([])
    assert "127.0.0.1" in str(end.value) and "GLOO_SOCKET_IFNAME" in str(end.value)


# --- two processes -------------------------------------------------------------------------------------------------------


def environment(cache):
    paths = os.pathsep.join([str(settings.project_root()), os.environ.get("PYTHONPATH", "")])
    return os.environ | {
        "VAE_DATASET": "digits",
        "VAE_CACHE_DIR": str(cache),
        "VAE_SEED": "0",  # whatever the suite runs with: the run in this process has it
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": paths,
    }


def run(command, cache, **variables):
    line = [sys.executable, *command]
    return subprocess.run(
        line, env=environment(cache) | variables, cwd="/", capture_output=True, text=True, timeout=240
    )


# no noise and small steps, so that the same batches must lead to the same place
LINE = [*SCRIPT, "--autoencoder", "--peak-lr", "2e-3", "--batch-size", "640"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *LINE]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    cache = tmp_path_factory.mktemp("two")
    return run(TWO, cache), cache


def test_two_processes_learn_what_one_does_and_only_the_first_writes(two_processes, tmp_path, monkeypatch, capsys):
    two, cache = two_processes
    monkeypatch.setenv("VAE_DATASET", "digits")
    monkeypatch.setenv("VAE_CACHE_DIR", str(tmp_path))
    train_ddp.main(LINE[1:])
    one = capsys.readouterr().out
    assert "1 process(es)" in one and "2 process(es)" in two.stdout, two.stderr[-2000:]
    losses = [float(said.split("test loss ")[1].split()[0]) for said in (one, two.stdout)]
    assert abs(losses[0] - losses[1]) < 0.5 and two.stdout.count("test loss") == 1
    [file], [other] = cache.iterdir(), tmp_path.glob("*.safetensors")
    assert file.name == other.name and safetensors.torch.load_file(file)["fc21.weight"].shape == (4, 400)


def test_several_processes_are_started_by_torchrun_and_not_by_hand(tmp_path):
    refused = run(SCRIPT, tmp_path, WORLD_SIZE="2")
    assert refused.returncode == 1 and "torchrun" in refused.stderr and "Traceback" not in refused.stderr


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
def test_a_killed_process_ends_the_job_with_a_checkpoint_and_the_same_line_ends_at_the_same_weights(
    two_processes, tmp_path
):
    options = {
        "env": environment(tmp_path / "killed"),
        "cwd": "/",
        "stderr": subprocess.PIPE,
        "stdout": subprocess.PIPE,
    }
    with subprocess.Popen([sys.executable, *TWO], text=True, **options) as job:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed").glob("*.checkpoint")):
            assert time.monotonic() < deadline and job.poll() is None, "no checkpoint was written"
            time.sleep(0.02)
        os.kill(process_of_rank(1, f"VAE_CACHE_DIR={tmp_path / 'killed'}"), signal.SIGKILL)
        _, said = job.communicate(timeout=120)
    assert job.returncode != 0 and "another process of this training ended" in said
    [checkpoint] = (tmp_path / "killed").iterdir()
    assert 1 <= len(torch.load(checkpoint, weights_only=True)["history"]) < 4
    again = run(TWO, tmp_path / "killed")
    assert "Going on after epoch" in again.stdout, again.stderr[-2000:]
    [expected], [found] = two_processes[1].iterdir(), (tmp_path / "killed").iterdir()
    assert found.name == expected.name
    expected, found = map(safetensors.torch.load_file, (expected, found))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
