"""PageGrid in JupyterLab, by mouse and by keyboard, and as a file without a kernel."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .jupyterlab_menus import choose_theme

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"

DEFINITIONS = """
import numpy as np
from uffdlab.observations.snapshot import Snapshot
from uffdlab.widgets import PageGrid

def snap(*runs):
    entries = np.concatenate([np.full(count, entry, np.uint64) for entry, count in runs])
    frames = (np.arange(entries.size, dtype=np.uint64) + np.uint64(0x100)) * 4096
    entries = np.where(entries > 0, entries + frames, entries)
    return Snapshot(region="region-1", start=0x10_0000_0000, page_size=4096, witness="physical", kernel="6.1-series",
                    entries=entries, levels=np.ones(entries.size, np.uint8))

ABSENT, WP, WRITABLE = 0, 0x8000000000000465, 0x8000000000000867
before, after = snap((ABSENT, 64)), snap((WP, 32), (WRITABLE, 16), (ABSENT, 16))
"""
COMPARE = "import uffdlab\nuffdlab.compare(before, after)"
PRINT = "print('selection', grid.selection, 'cursor', grid.cursor)"


def run_again(page, cell):
    # Run one cell of the notebook again: click into it and press Ctrl+Enter.
    page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def take_screenshots(page, element, stem):
    for name, short in (("JupyterLab Dark", "dark"), ("JupyterLab Light", "light")):
        choose_theme(page, name)
        element.scroll_into_view_if_needed()
        element.screenshot(path=SHOTS / f"{stem}-{short}.png")
    page.add_style_tag(content=".jp-OutputArea { filter: grayscale(1) }")
    element.screenshot(path=SHOTS / f"{stem}-grey.png")


def test_the_grid_works_by_mouse_and_by_keyboard(run_cells, page, axe):
    show = "grid = PageGrid(after, before)\ngrid"
    run_cells(
        "page_grid", DEFINITIONS, show, PRINT, "grid.show(snap((WRITABLE, 32), (ABSENT, 32)), before)", "grid", COMPARE
    )
    grid = page.locator(".jp-CodeCell").nth(1).locator(".uffdlab-page-grid")
    later = grid.get_by_role("grid", name=re.compile("^after")).first
    expect(later.get_by_label("page 3: present, writable")).to_be_visible()
    expect(grid.get_by_role("status")).to_have_text(re.compile("present, writable, not uffd-wp"))

    # compare() is live too; its figure is hidden, and shown in a page without Python.
    compared = page.locator(".jp-CodeCell").nth(5)
    compared.get_by_role("grid").nth(1).get_by_label("page 33: ").hover()
    expect(compared.locator(".uffdlab-tooltip code:visible")).to_have_text("0x8000000000121867 in a PTE")
    expect(compared.get_by_text(re.compile("after against before: .*; 16 pages \\(32–47\\)"))).to_be_visible()
    expect(compared.locator(".uffdlab-static-form img[alt*='Before: pages 0–63: absent']")).to_be_hidden()
    for form in page.locator(".uffdlab-static-form").all():
        expect(form).to_be_hidden()

    # By mouse: drag from page 8 to page 11.  The details are those of page 8; the pointer has a tooltip.
    later.get_by_label("page 8: ").hover()
    page.mouse.down()
    later.get_by_label("page 11: ").hover()
    page.mouse.up()
    expect(grid.get_by_text("selected: pages 8–11")).to_be_visible()
    expect(grid.get_by_role("row", name="1 writable 1 writes are allowed")).to_be_visible()
    expect(grid.get_by_text("page frame 0x108")).to_be_visible()
    rows = grid.locator(".uffdlab-entry tbody tr")
    expect(rows.nth(0)).to_contain_text("uffd-wp")
    expect(rows.nth(1)).to_contain_text("writable")
    witness = grid.get_by_title(re.compile("the host walked the page tables"))
    expect(witness).to_have_text("seen by physical")
    expect(grid.locator(".uffdlab-tooltip")).to_contain_text("page 11: present, writable")
    expect(grid.locator(".uffdlab-tooltip code")).to_have_text("0x800000000010b867 in a PTE")
    run_again(page, 2)
    expect(page.get_by_text("selection [8, 4] cursor")).to_be_visible()
    # The other view of the same widget has the same selection.
    other = page.locator(".jp-CodeCell").nth(4)
    expect(other.get_by_text("selected: pages 8–11")).to_be_visible()

    # By keyboard: down, right, then three more with shift.
    later.get_by_label("page 0: ").focus()
    for key in ("ArrowDown", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(later.get_by_label("page 12: ")).to_be_focused()
    run_again(page, 2)
    expect(page.get_by_text("selection [9, 4] cursor 12")).to_be_visible()

    assert axe(page, ".uffdlab-page-grid") == []
    for mode in ("only what changed", "flicker", "after alone", "side by side"):
        grid.get_by_role("radio", name=mode).check()
        expect(grid.get_by_role("radio", name=mode)).to_be_focused()
    grid.get_by_role("radio", name="only what changed").check()
    expect(grid.get_by_label("page 40: absent, unchanged")).to_be_visible()
    grid.get_by_role("radio", name="side by side").check()
    take_screenshots(page, grid, "page-grid")

    # After a reload of the tab the kernel still has the widget; running its cell shows it again.
    page.keyboard.press("Control+s")
    page.reload()
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
    run_again(page, 4)
    expect(page.locator(".jp-CodeCell").nth(4).get_by_text("selected: pages 9–12")).to_be_visible(timeout=30_000)
    assert page.thrown == []


def test_a_grid_of_a_million_pages_can_be_zoomed_and_selected(run_cells, page, axe):
    cells = [
        "many = snap((WP, 300_000), (WRITABLE, 300_000), (ABSENT, (1 << 20) - 600_000))",
        "grid = PageGrid(many)\ngrid",
        PRINT,
        "grid.show(snap((WRITABLE, 10), (WP, 299_990), (WRITABLE, 300_000), (ABSENT, (1 << 20) - 600_000)))",
    ]
    run_cells("million", DEFINITIONS, *cells)
    grid = page.locator(".uffdlab-page-grid")
    cell = grid.get_by_role("gridcell")
    expect(cell).to_have_attribute(
        "aria-label", "pages 0–511: 502 present, not writable, uffd-wp; 10 present, writable"
    )
    assert axe(page, ".uffdlab-page-grid") == []
    # The wheel scrolls the page, unless the map has the focus.
    panel = page.locator(".jp-WindowedPanel-outer")
    page.set_viewport_size({"width": 1280, "height": 700})
    grid.locator("canvas").hover()
    before = panel.evaluate("element => element.scrollTop")
    page.mouse.wheel(0, -120)
    page.mouse.wheel(0, 240)
    page.wait_for_function("before => document.querySelector('.jp-WindowedPanel-outer').scrollTop > before", arg=before)
    expect(grid.get_by_text("a cell is 512 pages; pages 0–1,048,575 are shown")).to_be_visible()
    cell.focus()
    grid.locator("canvas").hover()
    page.mouse.wheel(0, -120)
    expect(grid.get_by_text(re.compile("^a cell is 256 pages"))).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.keyboard.press("0")
    page.keyboard.press("Home")
    for _ in range(9):
        page.keyboard.press("+")
    expect(grid.get_by_text(re.compile("^a cell is one page; pages 0–"))).to_be_visible()
    expect(cell).to_have_attribute("aria-label", "page 0: present, writable")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(cell).to_have_attribute("aria-label", "page 10: present, not writable, uffd-wp")
    expect(grid.get_by_role("row", name="10 uffd-wp 1 protected by userfaultfd")).to_be_visible()
    page.keyboard.press("Shift+ArrowDown")
    run_again(page, 3)
    expect(page.get_by_text("selection [10, 65] cursor 74")).to_be_visible()
    grid.get_by_role("button", name="show all pages").click()
    expect(grid.get_by_text("a cell is 512 pages; pages 0–1,048,575 are shown")).to_be_visible()
    grid.locator("canvas").screenshot(path=SHOTS / "page-grid-million.png")
    assert page.thrown == []


def test_a_closed_lab_is_shown(run_cells, page):
    closed = """
from uffdlab.errors import LabClosed
from uffdlab.target.timeline import Timeline
class Closed:
    timeline, regions = Timeline(), ()
    lab = property(lambda self: self)
    def snapshot(self):
        raise LabClosed("this lab is closed; make a new one")
"""
    run_cells("gone", DEFINITIONS + closed, "grid = PageGrid(after)\ngrid", "grid.follow(Closed())\npass")
    bar = page.get_by_role("alert")
    expect(bar).to_contain_text("No longer live: this lab is closed; make a new one")
    bar.get_by_role("button", name="start again").click()
    expect(bar).to_contain_text("this lab does not exist any more; make a new one: uffdlab.Lab(…)")
    assert page.thrown == []


def test_a_javascript_error_reaches_the_notebook(run_cells, page):
    cells = ["grid = PageGrid(after)\ngrid", "grid._kinds = [{}]", "print('errors', grid.errors)"]
    run_cells("broken", DEFINITIONS, *cells)
    expect(page.get_by_role("alert").get_by_text("An error in this widget's JavaScript")).to_be_visible()
    run_again(page, 3)
    expect(page.get_by_text(re.compile(r"errors \['.*TypeError|errors \[.Cannot read"))).to_be_visible()


def test_a_saved_page_works_without_python(page, tmp_path, axe):
    names = {}
    exec(DEFINITIONS, names)
    path = tmp_path / "grid.html"
    names["PageGrid"](names["after"], names["before"]).to_html(path)
    page.goto(path.as_uri())
    later = page.get_by_role("grid", name=re.compile("^after"))
    later.get_by_label("page 33: ").hover()
    expect(page.locator(".uffdlab-tooltip code")).to_have_text("0x8000000000121867 in a PTE")
    later.get_by_label("page 33: ").click()
    expect(page.get_by_text("Address 0x1000021000, page frame 0x121.")).to_be_visible()
    expect(page.get_by_role("row", name="51–12 frame 0x121 4 KiB page at frame 0x121")).to_be_visible()
    expect(page.get_by_text("selected: page 33")).to_be_visible()
    assert axe(page, "body") == []
    # At 200 % zoom, which is half the width, the page does not scroll sideways.
    page.set_viewport_size({"width": 640, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.thrown == []


# The colours that VS Code sets in a notebook's page: text, background, border, scheme.  VS Code itself is not used.
VSCODE = {
    "light": ("#3b3b3b", "#ffffff", "#e5e5e5", "light"),
    "dark": ("#cccccc", "#1f1f1f", "#2b2b2b", "dark"),
    "contrast": ("#ffffff", "#000000", "#6fc3df", "dark"),
}


def test_the_grid_takes_the_colours_of_vs_code(page, tmp_path, axe):
    names = {}
    exec(DEFINITIONS, names)
    path = tmp_path / "grid.html"
    names["PageGrid"](names["after"], names["before"]).to_html(path)
    page.goto(path.as_uri())
    for name, (text, background, border, scheme) in VSCODE.items():
        page.evaluate(
            """([text, background, border, scheme]) => {
            const { style } = document.documentElement;
            style.setProperty("--vscode-editor-foreground", text);
            style.setProperty("--vscode-editor-background", background);
            style.setProperty("--vscode-panel-border", border);
            style.colorScheme = scheme;
            document.body.style.background = background;
            // VS Code also sets these, in every theme.
            style.setProperty("--jp-ui-font-color1", "rgba(0, 0, 0, 0.87)");
            style.setProperty("--jp-layout-color1", "white");
            document.body.className = `vscode-body vscode-${scheme}`;
        }""",
            [text, background, border, scheme],
        )
        computed = page.locator(".uffdlab-page-grid").evaluate("grid => getComputedStyle(grid).backgroundColor")
        assert computed == "rgb({}, {}, {})".format(*bytes.fromhex(background[1:]))
        assert axe(page, "#widgets") == []
        page.screenshot(path=SHOTS / f"page-grid-vscode-{name}.png")
    assert page.thrown == []
