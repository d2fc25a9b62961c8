"""How do many learners fare on one machine? (`make bench PARTS=learners`)

Several kernels run notebook 03 up to its last widget at the same time, each as if somebody sat before it, and then all
move their sliders at once.
"""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nbformat
from jupyter_client import BlockingKernelClient, KernelManager

SECONDS = 600  # the longest that a cell may take
LAST_WIDGET = "LatentExplorer("

# Runs in every kernel: a hand that moves a slider twenty times a second, and what the process holds meanwhile.
MOVE_SLIDERS = """
import json, time
from pathlib import Path
explorer, milliseconds = LatentExplorer(vae, data.test_images, order), []
for move in range(200):
    started = time.perf_counter()
    explorer.sliders[move % len(explorer.sliders)].value = -2 + 0.02 * move
    milliseconds.append(1000 * (time.perf_counter() - started))
    time.sleep(0.05)
assert not explorer.error.value, explorer.error.value
memory = Path("/proc/self/smaps_rollup")
lines = memory.read_text().splitlines()[1:] if memory.exists() else []
mib = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
print(json.dumps({"milliseconds": sorted(milliseconds), "resident": mib.get("Rss", 0), "own_share": mib.get("Pss", 0)}))
"""


def interactive_part(path: Path) -> list[str]:
    """The code cells of a notebook, up to the last one with a widget. Raises ValueError when there is none."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = max((number for number, source in enumerate(code) if source.startswith(LAST_WIDGET)), default=None)
    if last is None:
        raise ValueError(f"{path.name} has no cell that begins with {LAST_WIDGET}...); give notebook 03.")
    return code[: last + 1]


@contextmanager
def kernel(folder: Path, variables: dict[str, str]) -> Iterator[BlockingKernelClient]:
    """A kernel that works in `folder`, as JupyterLab would start it."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env=os.environ | variables, extra_arguments=["--log-level=40"])
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> str:
    """What `code` prints in the kernel. Raises RuntimeError, with the kernel's words, when it fails."""
    printed: list[str] = []

    def listen(message: dict) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, allow_stdin=False, timeout=SECONDS, output_hook=listen)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"A cell failed with {reply['ename']}: {reply['evalue']}")
    return "".join(printed)


def at_once(learners: int, path: Path, variables: dict[str, str] | None = None) -> list[dict]:
    """Let `learners` kernels run the interactive part of `path` together, then all move sliders, with `variables` in their
    environment.

    Returns one dict a learner: `opened` (seconds for the cells), `milliseconds` (each of 200 moves of a slider, sorted: from
    the new value to the new picture's bytes), `resident` and `own_share` (MiB: all that the process holds, and the same
    with what several share counted in parts; 0 where the system does not tell).
    """
    cells = interactive_part(path)

    def open_notebook(client: BlockingKernelClient) -> float:
        started = time.perf_counter()
        for source in cells:
            run(client, source)
        return time.perf_counter() - started

    def move(client: BlockingKernelClient) -> dict:
        return json.loads(run(client, MOVE_SLIDERS).splitlines()[-1])

    with ExitStack() as stack, ThreadPoolExecutor(learners) as pool:
        clients = [stack.enter_context(kernel(path.parent, variables or {})) for _ in range(learners)]
        opened = list(pool.map(open_notebook, clients))
        return [{"opened": s} | figures for s, figures in zip(opened, pool.map(move, clients), strict=True)]
