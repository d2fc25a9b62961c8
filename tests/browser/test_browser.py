"""Do the widgets of notebook 03 move when a hand moves them? JupyterLab and a headless Chromium find out."""

import shutil

import pytest

from conftest import ROOT, SCREENSHOTS, jupyterlab, run_all

NOTEBOOK = "03_generation.ipynb"
RUN_SECONDS, SLOWEST_MS = 600, 200


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A copy of the notebook, run from top to bottom in the browser."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    with jupyterlab(folder) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        try:
            run_all(page, address(NOTEBOOK), RUN_SECONDS)
            yield page
        finally:
            page.screenshot(path=SCREENSHOTS / "end.png")
            page.close()


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
