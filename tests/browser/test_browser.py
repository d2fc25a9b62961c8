"""Do the widgets of notebook 03 move when a hand moves them? JupyterLab and a headless Chromium find out.

pytest tests/browser          # not among the default tests: needs `pip install playwright` and a Chromium

The notebook is run from a copy, with the reader's own data and cache (`VAE_DATA_DIR`, `VAE_CACHE_DIR`), so run it once before.
`CHROMIUM` names the browser if it is not found by itself. Screenshots go to build/browser/.
"""

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
RUN_SECONDS = 600
SLOWEST_MS = 200


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium found: install one, or name it in CHROMIUM")
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a free port, in a folder that holds a copy of the notebook; gives the address of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    # all cells in the page at once, else those out of sight are taken out of it; and no question about news
    settings = {"notebook-extension/tracker": '{"windowingMode": "none"}'}
    settings["apputils-extension/notification"] = '{"fetchNews": "false"}'
    for name, text in settings.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "VAE_RESULTS_DIR")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.user_settings_dir={folder / 'settings'}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | own | {"PYTHONPATH": paths}, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not start:\n{(folder / 'log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def page(lab):
    """The notebook, run from top to bottom in the browser."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(lab)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        wait_until_idle(page)
        page.locator(".lm-MenuBar-item", has_text="Run").first.click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        wait_until_run(page)
        yield page
        page.screenshot(path=SCREENSHOTS / "end.png")
        browser.close()


def wait_until_idle(page) -> None:
    """Until the kernel has started; a question which kernel to take is answered with the one proposed."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        accept = page.locator(".jp-Dialog .jp-mod-accept")
        if accept.count():
            accept.first.click()
        elif page.locator(".jp-StatusBar-Widget, #jp-bottom-panel", has_text="Idle").count():
            return
        page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / "no-kernel.png")
    pytest.fail("The kernel did not start within 120 s")


def wait_until_run(page) -> None:
    """Until the last code cell has a number, and none a star."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        if prompts and not any("*" in text for text in prompts) and any(digit.isdigit() for digit in prompts[-1]):
            return
        page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / "timeout.png")
    pytest.fail(f"The notebook did not finish within {RUN_SECONDS} s")


def bring(page, css_class):
    """The widget's box, scrolled into view."""
    box = page.locator(f".{css_class}").first
    box.wait_for(state="attached", timeout=20_000)
    box.scroll_into_view_if_needed()
    return box


def milliseconds(page, box, act) -> float:
    """From `act()` to another picture: an observer in the page notes when the image's source changes."""
    picture = box.locator("img.vae-picture, .vae-picture img").first
    picture.evaluate(
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


def test_the_notebook_runs_without_errors_and_every_widget_is_drawn(page):
    seen = set()
    for css_class in ("vae-plane", "vae-morph", "vae-latents"):
        bring(page, css_class).screenshot(path=SCREENSHOTS / f"{css_class}.png")
        seen.add(css_class)
        assert page.locator("text=Error displaying widget").count() == 0
        assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    assert len(seen) == 3


@pytest.mark.parametrize("css_class", ["vae-plane", "vae-morph", "vae-latents"])
def test_every_slider_changes_the_picture_at_once(page, css_class):
    box = bring(page, css_class)
    handles = box.locator(".noUi-handle")
    assert handles.count() > 0
    times = []
    for number in range(handles.count()):
        handle = handles.nth(number)
        handle.scroll_into_view_if_needed()
        handle.focus()
        for key in ("End", "Home"):
            times.append(milliseconds(page, box, lambda key=key: page.keyboard.press(key)))
    times.sort()
    print(f"{css_class}: median {times[len(times) // 2]:.0f} ms, slowest {times[-1]:.0f} ms, {len(times)} moves")
    assert times[len(times) // 2] < SLOWEST_MS
    assert page.locator(".vae-error", has_text="Error").count() == 0


def test_both_buttons_change_the_picture(page):
    box = bring(page, "vae-latents")
    for text in ("random", "encode a test digit"):
        button = box.locator("button", has_text=text)
        assert milliseconds(page, box, button.click) < 5 * SLOWEST_MS
