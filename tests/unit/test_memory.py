"""Is memory that is no longer needed given back?"""

import subprocess
import sys

import pytest

from vae_utils import memory, settings

glibc = pytest.mark.skipif(not memory.give_back_after_every_cell(), reason="the C library is not glibc")

HOLD_AND_FREE = """
import torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before, small = resident(), []
torch.empty(5_000_000)  # freed at once: 20 MB, which raises glibc's own threshold
for _ in range(20):
    small.append(torch.ones(20_000))  # stays, above what is freed
    small.append(torch.ones(SIZE))
del small[1::2]
"""


def kept(first, size, last=""):
    """MiB that a process still holds after it has freed twenty tensors of `size` numbers."""
    code = first + HOLD_AND_FREE.replace("SIZE", str(size)) + last + "\nprint(resident() - before)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=settings.project_root(), check=True)
    return float(run.stdout)


@glibc
def test_large_tensors_are_given_back_at_once():
    start = "from vae_utils import memory; memory.give_back_after_every_cell()"
    assert kept(start, 4_500_000) < 40 < 80 < kept("", 4_500_000)


@glibc
def test_smaller_ones_are_given_back_on_request():
    start = "from vae_utils import memory; memory.give_back_after_every_cell()"
    assert kept(start, 1_000_000, "memory.give_back()") < 20 < 40 < kept(start, 1_000_000)


@glibc
def test_a_kernel_gives_back_after_every_cell_however_often_it_was_told_to():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from vae_utils import memory
memory.give_back_after_every_cell()
memory.give_back_after_every_cell()
calls, memory.ctypes.CDLL = [], lambda name: type("C", (), {"malloc_trim": lambda self, pad: calls.append(pad)})()
shell.run_cell("1 + 1")
print(len(calls))
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=settings.project_root())
    assert run.stdout.splitlines()[-1:] == ["1"], run.stderr


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.give_back_after_every_cell() is False
