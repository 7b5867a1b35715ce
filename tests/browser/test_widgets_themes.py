"""Every widget in every theme: no violation by axe-core, screenshots, and all controls reachable at 200 % zoom."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .jupyterlab_menus import choose_theme

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(600), pytest.mark.long]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser" / "themes"
LAB = """
import time, uffdlab
from uffdlab.widgets import *
lab = uffdlab.Lab("6.1-series")
bench = lab.bench(pages=32)
bench.uffd.register(bench.region, "minor", "wp")
before = bench.region.snapshot()
bench.uffd.continue_(bench.region[:8], wp=True, dontwake=True)
bench.uffd.continue_(bench.region[8:12])
touches = [bench.region.write(3), bench.region.read(20)]
time.sleep(0.5)
bench.grid.selection = [4, 3]
bench
"""
COMPARE = "CompareGrids({'before': before, 'after': bench.region.snapshot()})"
MILLION = "many = PageGrid(lab.map(pages=4096).snapshot())\nmany"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}
TABS = ("ioctl", "faults", "timeline", "page tables", "lab")
# Returns the controls of a widget that cannot be scrolled into view.
UNREACHABLE = """root => [...root.querySelectorAll('button, input, select, [role=gridcell], [role=option]')]
    .filter(control => control.checkVisibility() && control.getBoundingClientRect().width)
    .filter(control => {
        control.scrollIntoView({ block: 'center', inline: 'center' });
        const box = control.getBoundingClientRect();
        return box.left < -1 || box.left + Math.min(box.width, 24) > window.innerWidth + 1;
    })
    .map(control => control.outerHTML.slice(0, 120))"""


def open_tabs(output):
    for name in TABS:
        tab = output.get_by_role("tab", name=re.compile(rf"^{name}( \(\d+\))?$"))  # faults (1)
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        yield name


def test_every_widget_is_accessible_in_every_theme_and_at_200_percent(run_cells, page, axe):
    SHOTS.mkdir(parents=True, exist_ok=True)
    run_cells("themes", LAB, COMPARE, MILLION, "pass")
    bench, compare, many = (page.locator(".jp-CodeCell").nth(number) for number in range(3))
    expect(bench.get_by_role("grid")).to_be_visible()
    violations = {}

    def check_widgets(name):
        for part in open_tabs(bench):
            violations[name, part] = axe(page, ".jp-CodeCell:nth-of-type(1) .jp-OutputArea .uffdlab.widget-vbox")
            bench.locator(".uffdlab.widget-vbox").first.screenshot(
                path=SHOTS / f"bench-{part.replace(' ', '-')}-{name}.png"
            )
        for number, (stem, cell) in enumerate((("compare", compare), ("map", many)), start=2):
            violations[name, stem] = axe(page, f".jp-CodeCell:nth-of-type({number}) .jp-OutputArea .uffdlab")
            cell.locator(".uffdlab").first.screenshot(path=SHOTS / f"{stem}-{name}.png")

    for short, name in THEMES.items():
        choose_theme(page, name)
        page.mouse.move(700, 5)
        check_widgets(short)
    choose_theme(page, THEMES["light"])
    page.mouse.move(700, 5)
    page.emulate_media(forced_colors="active")
    check_widgets("forced")
    page.emulate_media(forced_colors="none")
    grey = page.add_style_tag(content=".jp-OutputArea { filter: grayscale(1) }")
    bench.screenshot(path=SHOTS / "bench-grey.png")
    compare.screenshot(path=SHOTS / "compare-grey.png")
    grey.evaluate("style => style.remove()")
    assert {key: found for key, found in violations.items() if found} == {}

    # At 200 % zoom a window of 1280 pixels has a width of 640.  A user would close JupyterLab's file browser.
    page.get_by_role("tab", name=re.compile("^File Browser")).click()
    page.set_viewport_size({"width": 640, "height": 800})
    page.wait_for_timeout(500)
    unreachable = {part: bench.locator(".jp-OutputArea").first.evaluate(UNREACHABLE) for part in open_tabs(bench)}
    unreachable |= {"compare": compare.locator(".jp-OutputArea").first.evaluate(UNREACHABLE)}
    unreachable |= {"map": many.locator(".jp-OutputArea").first.evaluate(UNREACHABLE)}
    bench.screenshot(path=SHOTS / "bench-200-percent.png")
    assert {key: found for key, found in unreachable.items() if found} == {}
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.locator(".jp-CodeCell").nth(3).locator(".cm-content").fill("lab.close(); print('the lab is closed')")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)
    assert page.thrown == []
