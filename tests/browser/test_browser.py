"""Do the widgets of notebook 03 move when a hand moves them? JupyterLab and a headless Chromium find out.

Not among the default tests: `pytest tests/browser` needs `pip install playwright` and a Chromium (named in `CHROMIUM` if it is
not found). It uses the reader's data and cache, so run the notebook once before. Screenshots go to build/browser/.
"""

import json
import os
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
NOTEBOOK = "03_generation.ipynb"
RUN_SECONDS, SLOWEST_MS = 600, 200


def wait_for(what: str, condition, seconds: float, pause: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s; see {SCREENSHOTS}")
        time.sleep(pause)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a free port, in a folder that holds a copy of the notebook; gives the address of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # all cells in the page at once, else those out of sight are taken out of it; and no question about news
    news = ("apputils-extension/notification", "fetchNews", "false")
    for name, key, value in (("notebook-extension/tracker", "windowingMode", "none"), news):
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({key: value}))
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.user_settings_dir={folder / 'settings'}"]
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "VAE_RESULTS_DIR")}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with (SCREENSHOTS / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
        except OSError:
            return None

    try:
        wait_for("JupyterLab", answers, 60)
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def page(lab):
    """The notebook, run from top to bottom in the browser."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser_path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if browser_path is None:
        pytest.skip("no Chromium found: install one, or name it in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(lab)
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

        try:
            wait_for("the kernel", idle, 120)
            page.locator(".lm-MenuBar-item", has_text="Run").first.click()
            page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
            page.wait_for_timeout(2000)  # the numbers of the committed outputs go
            wait_for("the notebook", finished, RUN_SECONDS, pause=1)
            yield page
        finally:
            page.screenshot(path=SCREENSHOTS / "end.png")
            browser.close()


def milliseconds(page, box, act) -> float:
    """From `act()` to another picture: an observer in the page notes when the image's source changes."""
    box.locator("img.vae-picture, .vae-picture img").first.evaluate(
        """picture => {
          const before = picture.src;
          window.vaeChanged = null;
          const watch = new MutationObserver(() => {
            if (picture.src !== before) { watch.disconnect(); window.vaeChanged = performance.now(); }
          });
          watch.observe(picture, { attributes: true, attributeFilter: ['src'] });
          for (const kind of ['keydown', 'click']) {
            document.addEventListener(kind, () => { window.vaeActed = performance.now(); }, { capture: true, once: true });
          }
        }"""
    )
    act()
    page.wait_for_function("() => window.vaeChanged !== null", timeout=5000)
    return page.evaluate("() => window.vaeChanged - window.vaeActed")


@pytest.mark.parametrize("css_class", ["vae-plane", "vae-morph", "vae-latents"])
def test_every_control_changes_the_picture_at_once_and_nothing_fails(page, css_class):
    box = page.locator(f".{css_class}").first
    box.wait_for(state="attached", timeout=20_000)
    box.scroll_into_view_if_needed()
    box.screenshot(path=SCREENSHOTS / f"{css_class}.png")
    times = []
    for handle in box.locator(".noUi-handle").all():
        handle.scroll_into_view_if_needed()
        handle.focus()
        times += [milliseconds(page, box, lambda key=key: page.keyboard.press(key)) for key in ("End", "Home")]
    times.sort()
    print(f"{css_class}: median {times[len(times) // 2]:.0f} ms, slowest {times[-1]:.0f} ms, {len(times)} moves")
    assert times[len(times) // 2] < SLOWEST_MS
    for text in ("random", "encode a test digit") if css_class == "vae-latents" else ():
        assert milliseconds(page, box, box.locator("button", has_text=text).click) < 5 * SLOWEST_MS
    errors = page.locator(
        '.vae-error:has-text("Error"), :text("Error displaying widget"), '
        '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
    )
    assert errors.count() == 0
