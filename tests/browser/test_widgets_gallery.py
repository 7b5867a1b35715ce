"""Screenshots of every live widget in build/browser/gallery; docs/make-gallery copies them into the docs."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

import uffdlab.widgets

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.long]

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "browser" / "gallery"

LAB = """
import time, uffdlab
from uffdlab.widgets import *
lab = uffdlab.Lab("6.1-series")
region = lab.map(pages=64)
region.alias.fill()
uffd = lab.userfaultfd()
uffd.register(region, "minor", "wp")
before = region.snapshot()
uffd.continue_(region[:32], wp=True)
uffd.continue_(region[32:48], dontwake=True)
uffd.wake(region[32:48])
after = region.snapshot()
touch = region.write(3)
time.sleep(0.3)
"""
# The name of each widget, and the cell that shows it.
CELLS = {
    "PageGrid": "grid = PageGrid(after, before)\ngrid.selection = [8, 4]\ngrid",
    "IoctlPanel": "panel = IoctlPanel(uffd, region, grid=grid)\npanel.check('WP')\npanel",
    "FaultLog": "FaultLog(uffd, lab)",
    "TimelineView": "TimelineView(lab.timeline)",
    "PteInspector": "PteInspector(region, page=3)",
    "CompareGrids": "CompareGrids({'before': before, 'after': after})",
    "KernelPicker": "KernelPicker()",
    "LabPanel": "LabPanel(lab)",
    "Bench": "lab.bench()",
}


def test_every_widget_has_its_picture(run_cells, page):
    assert sorted(CELLS) == sorted(uffdlab.widgets.__all__)
    FOLDER.mkdir(parents=True, exist_ok=True)
    run_cells("gallery", LAB, *CELLS.values(), "pass")
    for number, name in enumerate(CELLS, start=1):
        shown = page.locator(".jp-CodeCell").nth(number).locator(".uffdlab").first
        expect(shown).to_be_visible(timeout=20_000)
        shown.scroll_into_view_if_needed()
        page.wait_for_timeout(400)
        shown.screenshot(path=FOLDER / f"{name}.png")
    last = page.locator(".jp-CodeCell").nth(len(CELLS) + 1).locator(".cm-content")
    last.fill("lab.close(); print('the lab is closed')")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)
    assert page.thrown == []
