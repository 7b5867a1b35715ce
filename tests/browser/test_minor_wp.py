"""The notebook as a reader has it: JupyterLab in a browser, Run All Cells, pictures."""

import json
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(480)]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"
NOTEBOOK = "minor_wp.ipynb"
RUN_SECONDS = 240  # 20 on two idle cores; a machine that has more to do still passes

# What a cell's prompt says: [ ] not run, [*] waiting or running, [5] done. Cells without source stay [ ].
PROMPTS = """() => [...document.querySelectorAll('.jp-CodeCell')]
    .filter(cell => cell.querySelector('.jp-InputArea-editor .cm-content').innerText.trim())
    .map(cell => cell.querySelector('.jp-InputArea-prompt').innerText.replace(/[^0-9*]/g, ''))"""
# An <img> with alt text, or an inline SVG that says what it shows.
# Those of static forms are for a page without Python: they are hidden, and the live widget is seen.
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img, .jp-OutputArea-output svg[role="img"]')]
    .filter(each => !each.closest('.uffdlab-static-form'))
    .map(each => ({
        alt: (each.getAttribute('alt') || each.getAttribute('aria-label') || '').trim(),
        loaded: each.tagName.toLowerCase() === 'img' ? each.complete && each.naturalWidth > 0 : true,
        width: each.getBoundingClientRect().width,
    }))"""


def wait_until(page, what, met, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if met():
            return
        page.wait_for_timeout(200)
    pytest.fail(f"{what}: not within {seconds} s (see build/browser/last.png); JavaScript errors: {page.thrown}")


def open_notebook(page, server, notebook):
    page.goto(server.address(notebook))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    # The status bar says so only once the kernel has answered; before, Run All Cells would ask for a kernel.
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)


def run_all_cells(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end = f"Run All Cells ends within {RUN_SECONDS} s"
    wait_until(page, "a cell starts", lambda: any(page.evaluate(PROMPTS)), 20)
    wait_until(page, end, lambda: "*" not in page.evaluate(PROMPTS), RUN_SECONDS)


def choose_theme(page, name):
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    labels = page.locator(".lm-Menu-itemLabel")
    labels.get_by_text("Theme", exact=True).hover()
    labels.get_by_text(name, exact=True).click()
    page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached", timeout=20_000)


def screenshots(page, stem):
    # One of the top of the page and one with the first picture in sight.
    page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{stem}-top.png")
    page.locator(".jp-OutputArea-output img, .jp-OutputArea-output svg[role=img]").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{stem}-picture.png")


def saved_outputs(page, path):
    page.keyboard.press("Control+s")

    def outputs():
        cells = json.loads(path.read_text())["cells"]
        return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]

    wait_until(page, "the notebook is saved", outputs, 30)
    return outputs()


def test_run_all_cells_shows_pictures(jupyterlab, page):
    open_notebook(page, jupyterlab, NOTEBOOK)
    run_all_cells(page)

    outputs = saved_outputs(page, jupyterlab.folder / NOTEBOOK)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    prompts = page.evaluate(PROMPTS)
    assert prompts == [str(number) for number in range(1, len(prompts) + 1)]

    pictures = page.evaluate(PICTURES)
    live = page.get_by_role("grid").locator("visible=true")
    assert live.count() == 2 * page.locator(".uffdlab-static-form img[alt*='Before: ']").count() >= 4
    for picture in pictures:
        assert picture["alt"], "a picture without alt text"
        assert picture["loaded"], f"not loaded: {picture['alt']}"
        assert picture["width"] > 0, f"not shown: {picture['alt']}"

    for theme, stem in (("JupyterLab Light", "light"), ("JupyterLab Dark", "dark")):
        choose_theme(page, theme)
        screenshots(page, stem)
    assert page.thrown == []
