"""JupyterLab on a free port and a headless Chromium, for the tests in this folder.

They are not among the default tests: `pytest tests/browser` needs `pip install playwright` and a Chromium (named in `CHROMIUM`
if it is not found). They use the reader's data and cache. Screenshots go to build/browser/.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "browser"


def wait_for(what: str, condition, seconds: float, pause: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s; see {SCREENSHOTS}")
        time.sleep(pause)


def judged(box) -> tuple[float, float]:
    """Score and threshold that the panel states; its verdict has to agree with them."""
    said = box.locator(".vae-verdict").inner_text()
    score, limit = map(float, re.search(r"Score ([\d.]+).*threshold of ([\d.]+)", said).groups())
    assert ("not strange, below" in said) == (score <= limit), said
    return score, limit


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium found: install one, or name it in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyterlab(folder: Path):
    """JupyterLab on a free port, serving `folder`; gives a function from a notebook's name to its address."""
    port, token = free_port(), secrets.token_hex(16)
    # all cells in the page at once, else those out of sight are taken out of it; and no question about news
    news = ("apputils-extension/notification", "fetchNews", "false")
    for name, key, value in (("notebook-extension/tracker", "windowingMode", "none"), news):
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({key: value}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.user_settings_dir={folder / 'settings'}"]
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "VAE_RESULTS_DIR")}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with (SCREENSHOTS / "lab.log").open("a") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
        except OSError:
            return None

    try:
        wait_for("JupyterLab", answers, 60)
        yield lambda notebook: f"http://127.0.0.1:{port}/lab/tree/{notebook}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


def run_all(page, address: str, seconds: float) -> None:
    """Open a notebook of JupyterLab and run it from top to bottom."""
    page.goto(address)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)

    def idle():
        accept = page.locator(".jp-Dialog .jp-mod-accept")  # asks which kernel to take: the one proposed
        if accept.count():
            accept.first.click()
        return page.locator(".jp-StatusBar-Widget, #jp-bottom-panel", has_text="Idle").count()

    def finished():
        """Whether the last code cell has a number, and none a star."""
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        return prompts and "*" not in "".join(prompts) and any(map(str.isdigit, prompts[-1]))

    wait_for("the kernel", idle, 120)
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    page.wait_for_timeout(2000)  # the numbers of the committed outputs go
    wait_for("the notebook", finished, seconds, pause=1)


def draw(page, canvas, strokes, shift=(0, 0), scale=1.0) -> None:
    """Draw strokes (points in [0, 1]) on a canvas with the mouse, as a hand would."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(
                box["x"] + box["width"] * (scale * x + shift[0]), box["y"] + box["height"] * (scale * y + shift[1])
            )
            if i == 0:
                page.mouse.down()
        page.mouse.up()


SCRIBBLE = [[[0.1 + 0.8 * (i * 0.618 % 1), 0.1 + 0.8 * (i * 0.414 % 1)] for i in range(16)]]


def reaction(box) -> float:
    """Milliseconds from a key that changes the drawing to the last panel's answer."""
    box.locator(".vae-canvas").focus()
    box.evaluate(
        """root => {
          window.vaeTook = null;
          root.addEventListener("keydown", () => { window.vaeActed = performance.now(); }, { capture: true, once: true });
          root.addEventListener("vae-settled", () => { window.vaeTook = performance.now() - window.vaeActed; }, { once: true });
        }"""
    )
    box.page.keyboard.press("e")
    box.page.wait_for_function("() => window.vaeTook !== null", timeout=10_000)
    return box.page.evaluate("() => window.vaeTook")
