"""The bench as people use it: what they click, what it tells them, and what stays of their work."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(300)]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"
BENCH = "import uffdlab\nlab = uffdlab.Lab('6.1-series')\nbench = lab.bench()\nbench"


@pytest.fixture
def bench(run_cells, page):
    """Give the output of a cell with a bench; its lab ends with the test."""
    run_cells("bench", BENCH, "pass")
    output = page.locator(".jp-CodeCell").first
    expect(output.get_by_role("grid")).to_be_visible()
    yield output
    run(page, "lab.close(); print('the lab is closed')")
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)
    assert page.thrown == []


def run(page, code):
    # In the second cell of the notebook.
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").fill(code)
    page.keyboard.press("Control+Enter")


def told(page, code, answer):
    """Run `code` in the notebook; what it prints must match `answer`."""
    run(page, f"print({code})")
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_have_text(answer)


def top(locator):
    return locator.bounding_box()["y"]


def cell(bench, number):
    return bench.get_by_role("gridcell", name=re.compile(f"^page {number}: "))


def test_the_details_and_the_buttons_are_of_the_page_under_the_cursor(bench, page):
    read = bench.get_by_role("button", name=re.compile("^read "))
    details = bench.get_by_role("group", name="entry of the page under the cursor")
    told(page, "bench.region.alias.read(5).result(), bench.region.read(0).result()", "6 1")
    page.mouse.move(5, 5)
    expect(details.get_by_role("table", name=re.compile("page 0 "))).to_be_visible()
    before = top(read), top(details), top(cell(bench, 63))
    height = details.bounding_box()["height"]
    # The pointer only shows a tooltip, with the raw entry.
    cell(bench, 40).hover()
    expect(bench.locator(".uffdlab-tooltip")).to_contain_text("page 40: absent")
    expect(bench.locator(".uffdlab-tooltip code")).to_have_text(re.compile("^0x0{16}"))
    expect(details.get_by_role("table", name=re.compile("page 0 "))).to_be_visible()
    expect(read).to_have_text("read page 0")
    # A click and the arrow keys move the cursor: details and buttons go with it, and stay where they are.
    cell(bench, 5).click()
    expect(read).to_have_text("read page 5")
    expect(details.get_by_role("table", name=re.compile("page 5 "))).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(bench.get_by_role("button", name="write page 6", exact=True)).to_be_visible()
    expect(details.get_by_role("table", name=re.compile("page 6 "))).to_be_visible()
    expect(bench.get_by_role("gridcell", name=re.compile("^page 6: "))).to_have_attribute("aria-current", "true")
    assert (top(read), top(details), top(cell(bench, 63))) == before
    assert details.bounding_box()["height"] == height
