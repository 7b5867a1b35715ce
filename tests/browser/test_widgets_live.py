"""The widgets with a real machine, used by mouse, and by keyboard alone."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.long]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"

LAB = """
import uffdlab
from uffdlab.widgets import *
lab = uffdlab.Lab("6.1-series")
region = lab.map(pages=64)
region.alias.fill()
uffd = lab.userfaultfd()
uffd.register(region, "minor", "wp")
grid = PageGrid(region.snapshot()).follow(region)
"""
CLOSE = "lab.close(); print('the lab is closed')"


def run_again(page, cell):
    page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


@pytest.fixture
def close_lab(page):
    # A lab ends with its Jupyter kernel, but the kernels run until the server ends.
    yield
    run_again(page, page.locator(".jp-CodeCell").count() - 1)
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)


def test_an_ioctl_for_selected_pages_changes_their_cells(run_cells, page, axe, close_lab):
    run_cells("live", LAB, "grid", "panel = IoctlPanel(uffd, region, grid=grid)\npanel", "pass")
    page.locator(".jp-CodeCell").nth(3).locator(".cm-content").fill(CLOSE)
    pages = page.get_by_role("grid")
    output = page.locator(".jp-CodeCell").nth(2)
    pages.get_by_label("page 8: ").hover()
    page.mouse.down()
    pages.get_by_label("page 11: ").hover()
    page.mouse.up()
    expect(output.get_by_role("textbox", name="pages")).to_have_value("8-11")
    output.get_by_role("checkbox", name=re.compile("^WP ")).check()
    expect(output.get_by_text("uffd.continue_(region[8:12], wp=True)")).to_be_visible()
    output.get_by_role("button", name="send").click()
    expect(output.get_by_text(re.compile("done: 16,384 bytes"))).to_be_visible()
    expect(pages.get_by_label("page 9: present, not writable, uffd-wp")).to_be_visible()
    expect(pages.get_by_label("page 12: absent")).to_be_visible()
    output.get_by_role("button", name="send").click()
    expect(output.get_by_text(re.compile("EEXIST: a page of the range is mapped already"))).to_be_visible()
    output.get_by_role("combobox", name="ioctl").select_option(label="UFFDIO_REGISTER (Linux 4.3)")
    expect(output.get_by_role("checkbox")).to_have_count(4)
    assert axe(page, ".jp-CodeCell:nth-of-type(3) .uffdlab, .uffdlab.widget-vbox") == []
    output.locator(".uffdlab").first.screenshot(path=SHOTS / "ioctl-panel-light.png")
    assert page.thrown == []


def test_pages_can_be_selected_and_an_ioctl_sent_by_keyboard(run_cells, page, close_lab):
    run_cells("keys", LAB, "grid", "panel = IoctlPanel(uffd, region, grid=grid)\npanel", "pass")
    page.locator(".jp-CodeCell").nth(3).locator(".cm-content").fill(CLOSE)
    pages = page.get_by_role("grid")
    output = page.locator(".jp-CodeCell").nth(2)
    pages.get_by_label("page 0: ").focus()
    for key in ("ArrowDown", "Space", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    send = output.get_by_role("button", name="send")
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.closest('label')?.innerText || document.activeElement.title || ''")
        if name.startswith("WP "):
            page.keyboard.press("Space")
        if send.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(pages.get_by_label("page 11: present, not writable, uffd-wp")).to_be_visible()
    assert page.thrown == []


def test_a_waiting_fault_is_shown_and_resolved_by_the_log(run_cells, page, axe, close_lab):
    cells = ["touch = region.write(3)\nimport time; time.sleep(0.3)", "log = FaultLog(uffd, lab)\nlog"]
    run_cells("log", LAB, "grid", *cells, "pass")
    page.locator(".jp-CodeCell").nth(4).locator(".cm-content").fill(CLOSE)
    log = page.locator(".uffdlab-fault-log")
    expect(log.get_by_role("radio", name=re.compile(r"write to page 3 of region-1 \(minor, write\)"))).to_be_checked()
    expect(log.get_by_role("row", name=re.compile(r"Fault\(page=3, write, minor\)"))).to_be_visible()
    assert axe(page, ".uffdlab-fault-log") == []
    log.screenshot(path=SHOTS / "fault-log-light.png")
    # By keyboard, from the touch to the button.
    log.get_by_role("radio").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(log.get_by_role("button", name="continue WP")).to_be_focused()
    page.keyboard.press("Enter")
    # The page is mapped but protected, so the same write waits again.
    expect(page.get_by_role("grid").get_by_label("page 3: present, not writable, uffd-wp")).to_be_visible()
    expect(log.get_by_role("radio", name=re.compile(r"\(wp, write\)"))).to_be_checked()
    log.get_by_role("button", name="unprotect").click()
    expect(log.get_by_text("No touch waits.")).to_be_visible()
    expect(page.get_by_role("grid").get_by_label("page 3: present, writable")).to_be_visible()
    assert page.thrown == []


def test_the_grid_follows_steps_through_the_timeline(run_cells, page, axe, close_lab):
    cells = ["view = TimelineView(lab.timeline, grid)\nview", "uffd.continue_(region[:4], wp=True, dontwake=True)"]
    run_cells("timeline", LAB, "grid", *cells, "uffd.wake(region[:4])", "pass")
    page.locator(".jp-CodeCell").nth(5).locator(".cm-content").fill(CLOSE)
    view, pages = page.locator(".uffdlab-timeline"), page.get_by_role("grid")
    continued = view.get_by_role("option", name=re.compile(r"UFFDIO_CONTINUE.*DONTWAKE: woken later"))
    expect(continued).to_be_visible()
    expect(pages.get_by_label("page 3: present, not writable, uffd-wp")).to_be_visible()
    page.wait_for_timeout(1000)  # the last snapshot of the grid is an entry too
    assert axe(page, ".uffdlab-timeline") == []
    view.screenshot(path=SHOTS / "timeline-light.png")
    # By keyboard: to the first entry, then forward to the CONTINUE.
    view.get_by_role("listbox").focus()
    page.keyboard.press("Home")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
        if continued.get_attribute("aria-selected") == "true":
            break
    expect(view.get_by_role("status")).to_contain_text("UFFDIO_CONTINUE")
    expect(pages.get_by_label("page 3: absent")).to_be_visible()
    view.get_by_role("button", name="newest entry").click()
    expect(pages.get_by_label("page 3: present, not writable, uffd-wp")).to_be_visible()
    assert page.thrown == []


def test_the_inspector_shows_an_entry_and_its_page_walk(run_cells, page, axe, close_lab):
    cells = ["inspector = PteInspector(region, grid=grid, page=2)\ninspector", "uffd.continue_(region[:4], wp=True)"]
    run_cells("inspector", LAB, "grid", *cells, "pass")
    page.locator(".jp-CodeCell").nth(4).locator(".cm-content").fill(CLOSE)
    output = (
        page.locator(".jp-CodeCell").nth(2).locator(".uffdlab.widget-vbox")
    )  # the live one: its static form is hidden
    expect(output.get_by_text("The same page: all end at page frame")).to_be_visible()
    page.get_by_role("grid").get_by_label("page 3: ").focus()
    expect(output.get_by_role("table", name=re.compile("^page 3 of region-1: PTE 0x"))).to_be_visible()
    expect(output.get_by_role("rowheader", name="PGD")).to_be_visible()
    assert axe(page, ".uffdlab.widget-vbox") == []
    output.screenshot(path=SHOTS / "pte-inspector-light.png")
    page.get_by_role("grid").get_by_label("page 20: ").focus()
    expect(output.get_by_text("Mapped in one of them only")).to_be_visible()
    assert page.thrown == []


def test_a_picked_kernel_boots_and_its_snapshots_are_compared(run_cells, page, axe):
    cells = [
        "from uffdlab.widgets import *\npicker = KernelPicker('6.1-base')\npicker",
        "pass",
        "pass",
    ]
    run_cells("picker", *cells)
    page.get_by_role("button", name="boot").click()
    expect(page.get_by_text(re.compile("6.1-base runs: Linux 6.1"))).to_be_visible(timeout=60_000)
    second, third = (page.locator(".jp-CodeCell").nth(number).locator(".cm-content") for number in (1, 2))
    second.fill("panel = LabPanel(picker.lab)\npanel")
    run_again(page, 1)
    expect(page.get_by_role("row", name="UFFDIO_CONTINUE_MODE_WP no")).to_be_visible()
    third.fill(
        "region = picker.lab.map(pages=16)\none = region.snapshot()\nregion.write(3).result()\n"
        "grids = CompareGrids({'untouched': one, 'touched': region.snapshot()})\ngrids"
    )
    run_again(page, 2)
    expect(page.get_by_label("page 3: present, writable")).to_be_visible()
    expect(page.get_by_label("page 4: absent, unchanged")).to_be_visible()
    assert axe(page, ".uffdlab.widget-vbox") == []
    page.locator(".uffdlab.widget-vbox").nth(1).screenshot(path=SHOTS / "lab-panel-light.png")
    page.locator(".uffdlab.widget-vbox").last.screenshot(path=SHOTS / "compare-grids-light.png")
    page.get_by_role("button", name="close").click()
    expect(page.get_by_text("this lab is closed; boot starts a new one", exact=True)).to_be_visible()
    assert page.thrown == []


def test_the_bench_resolves_a_fault_and_has_no_accessibility_violation(run_cells, page, axe, close_lab):
    run_cells("bench", "import uffdlab\nlab = uffdlab.Lab('6.1-series')\nlab.bench()", "pass")
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").fill(CLOSE)
    output = page.locator(".jp-CodeCell").first
    output.get_by_role("checkbox", name=re.compile("^MINOR ")).check()
    output.get_by_role("button", name="send").click()
    expect(output.get_by_text(re.compile("MINOR.*→ done"))).to_be_visible()
    output.get_by_label("page 3: ").focus()
    output.get_by_role("button", name="read page 3").click()
    output.get_by_role("tab", name="faults").click()
    expect(output.get_by_role("radio", name=re.compile(r"page 3 of region-1 \(minor, read\)"))).to_be_checked()
    output.get_by_role("button", name="continue", exact=True).click()
    expect(output.get_by_text("No touch waits.")).to_be_visible()
    expect(output.get_by_label("page 3: present, writable")).to_be_visible()
    assert axe(page, ".uffdlab.widget-vbox") == []
    for name in ("timeline", "page tables", "lab"):
        output.get_by_role("tab", name=name).click()
        page.wait_for_timeout(500)
        output.screenshot(path=SHOTS / f"bench-{name.replace(' ', '-')}.png")
    assert page.thrown == []
