"""The bench with a real machine: clicks, messages, and the static form that a notebook keeps."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import expect

from uffdlab.cli.notebook import export

from .jupyterlab_menus import choose_theme

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(300)]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"
BENCH = "import uffdlab\nlab = uffdlab.Lab('6.1-series')\nbench = lab.bench()\nbench"


# Widgets outside of the bench, and a text of the static form of each.
OTHER_WIDGETS = """
from uffdlab.widgets import *
display(IoctlPanel(bench.uffd, bench.region), PteInspector(bench.region, page=5), LabPanel(lab), KernelPicker())
display(CompareGrids({"one": bench.region.snapshot(), "two": bench.region.alias.snapshot()}))
display(uffdlab.compare(bench.region.snapshot(), bench.region.snapshot("pagemap")))
lab.close(); print('the lab is closed')
"""
STATIC_TEXTS = (
    "uffd.continue_(region[0:64])",
    "page 5 of region-1: PTE 0x",
    "Lab 6.1-series",
    "chosen",
    "two against one",
)


@pytest.fixture
def bench(run_cells, page):
    """Return the output of a cell with a bench; its lab ends with the test."""
    run_cells("bench", BENCH, "pass")
    output = page.locator(".jp-CodeCell").first
    expect(output.get_by_role("grid")).to_be_visible()
    yield output
    expect(page.locator(".uffdlab-error")).to_have_count(0)
    run(page, "'lab' in dir() and lab.close(); print('the lab is closed')")
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)
    assert page.thrown == []


def run(page, code):
    # In the second cell of the notebook.
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").fill(code)
    page.keyboard.press("Control+Enter")


def run_and_expect(page, code, answer):
    """Run `code` in the notebook; its output must match `answer`."""
    run(page, f"print({code})")
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_have_text(answer)


def top(locator):
    return locator.bounding_box()["y"]


def cell(bench, number):
    return bench.get_by_role("gridcell", name=re.compile(f"^page {number}: "))


def test_details_and_buttons_are_those_of_the_page_under_the_cursor(bench, page):
    read = bench.get_by_role("button", name=re.compile("^read "))
    details = bench.get_by_role("group", name="entry of the page under the cursor")
    run_and_expect(page, "bench.region.alias.read(5).result(), bench.region.read(0).result()", "6 1")
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
    # A click and the arrow keys move the cursor.  Details and buttons change, but do not move.
    cell(bench, 5).click()
    expect(read).to_have_text("read page 5")
    expect(details.get_by_role("table", name=re.compile("page 5 "))).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(bench.get_by_role("button", name="write page 6", exact=True)).to_be_visible()
    expect(details.get_by_role("table", name=re.compile("page 6 "))).to_be_visible()
    expect(bench.get_by_role("gridcell", name=re.compile("^page 6: "))).to_have_attribute("aria-current", "true")
    assert (top(read), top(details), top(cell(bench, 63))) == before
    assert details.bounding_box()["height"] == height


def register(bench, *modes):
    for mode in modes:
        bench.get_by_role("checkbox", name=re.compile(f"^{mode} ")).check()
    bench.get_by_role("button", name=re.compile("^send")).click()
    expect(bench.get_by_text(re.compile("^UFFDIO_REGISTER.*→ done"))).to_be_visible()


def test_a_read_before_a_registration_needs_a_confirmation(bench, page):
    status = bench.locator(".uffdlab-touch-status").get_by_role("status")
    expect(status).to_contain_text("nothing is registered yet")
    bench.get_by_role("button", name="read page 0", exact=True).click()
    expect(status).to_contain_text("up to 15 pages around it (fault-around)")
    expect(cell(bench, 0)).to_have_attribute("aria-label", "page 0: absent")
    bench.get_by_role("button", name="read page 0 anyway").click()
    expect(cell(bench, 15)).to_have_attribute("aria-label", re.compile("^page 15: present"))
    expect(status).to_have_text("page 0 was read: it holds 1")
    bench.get_by_role("button", name="start over").click()
    expect(cell(bench, 15)).to_have_attribute("aria-label", "page 15: absent")
    expect(status).to_contain_text("nothing is registered yet")
    # A click selects one page as the range.  The form says so, and a button selects all pages again.
    cell(bench, 5).click()
    expect(bench.get_by_text("only 1 of 64 pages, those selected in the grid")).to_be_visible()
    expect(bench.get_by_role("button", name="send for page 5", exact=True)).to_be_visible()
    bench.get_by_role("button", name="all 64 pages", exact=True).click()
    expect(bench.get_by_role("button", name="send for all 64 pages")).to_be_visible()
    register(bench, "MINOR", "WP")
    expect(cell(bench, 63)).to_have_attribute("aria-label", "page 63: absent, registered for minor, wp")
    expect(bench.get_by_role("list", name="legend")).to_contain_text("registered for minor, wp: 64")


# Counts the clicks of a user: Playwright's are trusted, those of a script are not.
COUNT_CLICKS = "window.clicks = 0; document.addEventListener('click', event => window.clicks += event.isTrusted, true)"


def test_the_task_without_code_takes_nine_clicks_and_says_what_comes_next(bench, page):
    """Register, hold a read, resolve it with CONTINUE|WP, write, unprotect; see the timeline and the bits."""
    status = bench.locator(".uffdlab-touch-status").get_by_role("status")
    bits = bench.get_by_role("group", name="entry of the page under the cursor").get_by_role("row")

    def press(name):
        bench.get_by_role("button", name=name, exact=True).click()

    page.evaluate(COUNT_CLICKS)
    expect(status).to_contain_text("its pages are in the page cache, not mapped; nothing is registered yet")
    for mode in ("MINOR", "WP"):
        bench.get_by_role("checkbox", name=re.compile(f"^{mode} ")).click()
    press("send for all 64 pages")
    expect(status).to_have_text(
        re.compile("^registered for minor, wp: pages 0–63. Choose a page .* then read or write")
    )
    cell(bench, 5).click()
    press("read page 5")
    expect(bench.get_by_role("tab", name="faults (1)", exact=True)).to_have_attribute("aria-selected", "true")
    press("continue WP")
    expect(status).to_have_text("page 5 was read: it holds 6")
    expect(bits.nth(1)).to_have_text(re.compile("uffd-wp.*1.*protected by userfaultfd"))
    expect(bits.nth(2)).to_have_text(re.compile("writable.*0.*a write faults"))
    press("write page 5")
    expect(status).to_contain_text("the write to page 5 of region-1 waits (wp, write)")
    press("unprotect")
    expect(status).to_have_text("page 5 was written")
    bench.get_by_role("tab", name="timeline", exact=True).click()
    # The newest entry is in view, although the timeline was drawn while its tab was closed.
    newest = bench.locator('.uffdlab-timeline [aria-selected="true"]')
    expect(newest).to_be_visible()
    expect(newest).to_be_in_viewport()
    expect(bits.nth(1)).to_have_text(re.compile("uffd-wp.*0.*not protected by userfaultfd"))
    expect(bits.nth(2)).to_have_text(re.compile("writable.*1.*writes are allowed"))
    assert page.evaluate("window.clicks") == 9


def test_every_part_of_the_bench_shows_a_waiting_fault(bench, page):
    status = bench.locator(".uffdlab-touch-status").get_by_role("status")
    register(bench, "MINOR", "WP")
    cell(bench, 5).click()
    bench.get_by_role("button", name="read page 5", exact=True).click()
    expect(cell(bench, 5)).to_have_attribute("aria-label", re.compile("a read waits$"))
    expect(status).to_contain_text("read of page 5 of region")
    expect(status).to_contain_text("waits (minor, read)")
    bench.get_by_role("tab", name="faults (1)", exact=True).click()
    # All widgets show the page tables of the same time.
    time_shown = bench.locator(".uffdlab-when").inner_text()
    assert re.fullmatch(r"as of [\d.]+ (µs|ms|s)", time_shown)
    expect(bench.get_by_role("group", name="entry of the page under the cursor")).to_contain_text(
        "in a PMD: the PTE table that would hold this page's entry is not there yet"
    )
    bench.get_by_role("tab", name="page tables", exact=True).click()
    walk = bench.get_by_role("group", name="page tables")
    expect(walk).to_be_visible()
    times = bench.get_by_text(re.compile("^as of")).locator("visible=true")
    expect(times).to_have_count(2)
    assert len(set(times.all_inner_texts())) == 1
    bench.get_by_role("tab", name="faults (1)", exact=True).click()
    bench.get_by_role("button", name="continue", exact=True).click()
    expect(status).to_have_text("page 5 was read: it holds 6")
    expect(bench.get_by_role("tab", name="faults", exact=True)).to_be_visible()
    expect(cell(bench, 5)).to_have_attribute("aria-label", "page 5: present, writable, registered for minor, wp")


def test_the_timeline_shows_entries_by_their_start_on_a_time_axis(bench, page):
    register(bench, "MINOR", "WP")
    run_and_expect(page, "bench.region.read(5) and ''", "")
    bench.get_by_role("tab", name="timeline", exact=True).click()
    view = bench.locator(".uffdlab-timeline")
    running = view.get_by_role("option", name=re.compile("has not ended: read of page 5"))
    fault = view.get_by_role("option", name=re.compile(r"Fault\(page=5"))
    # A waiting touch is an open span, which began before its message.
    expect(running).to_be_visible()
    assert int(running.get_attribute("data-at")) < int(fault.get_attribute("data-at"))
    run_and_expect(page, "bench.uffd.continue_(bench.region[5]) and ''", "")
    ended = view.get_by_role("option", name=re.compile(r"took [\d.]+ m?s: read of page 5 .*done"))
    expect(ended).to_be_visible()
    numbers = [int(option.get_attribute("data-at")) for option in (ended, fault)]
    assert numbers == sorted(numbers)
    # A time without events is compressed and marked with its duration.
    expect(view.locator(".uffdlab-break").last).to_have_attribute("title", re.compile("without anything"))
    width = [entry.evaluate("entry => entry.getBoundingClientRect().width") for entry in (fault, ended)]
    assert width[1] > width[0]
    view.get_by_role("button", name="zoom in").click()
    view.get_by_role("button", name="reset the zoom").click()
    # After a step back, the grid shows its time, and new entries do not change it.
    expect(cell(bench, 5)).to_have_attribute("aria-label", re.compile("^page 5: present"))
    view.get_by_role("listbox").focus()
    page.keyboard.press("Home")
    page.keyboard.press("End")
    fault.click()
    expect(bench.locator(".uffdlab-when")).to_have_text(re.compile("^as of .*, stepped back in the timeline$"))
    expect(cell(bench, 5)).to_have_attribute("aria-label", "page 5: absent")
    expect(bench.get_by_role("list", name="legend")).to_contain_text("registered then, and waiting then: not shown")
    # The page tables are of that moment too.
    cell(bench, 5).click()
    bench.get_by_role("tab", name="page tables", exact=True).click()
    times = bench.get_by_text(re.compile("^as of .*, stepped back in the timeline$")).locator("visible=true")
    expect(times).to_have_count(2)
    assert len(set(times.all_inner_texts())) == 1
    expect(bench.get_by_text(re.compile("^page 5 of region-1, seen by physical: 0x0{16}$"))).to_be_visible()
    bench.get_by_role("tab", name="timeline", exact=True).click()
    run_and_expect(page, "bench.region.write(7) and ''", "")
    expect(bench.get_by_role("tab", name="faults (1)", exact=True)).to_be_visible()
    expect(bench.locator(".uffdlab-when")).to_have_text(re.compile("stepped back in the timeline$"))
    view.get_by_role("button", name="newest entry").click()
    expect(bench.locator(".uffdlab-when")).not_to_have_text(re.compile("stepped back"))
    expect(cell(bench, 7)).to_have_attribute("aria-label", re.compile("a write waits$"))


def test_the_end_of_the_kernel_is_reported_once(run_cells, page):
    run_cells("dead", BENCH)
    bench = page.locator(".jp-CodeCell").first
    expect(bench.get_by_role("grid")).to_be_visible()

    def expect_one_message():
        expect(
            bench.get_by_text(re.compile("Run the cells again, from the first one")).locator("visible=true")
        ).to_have_count(1)
        link = "document.querySelectorAll('.uffdlab, .uffdlab *')"
        icons = (
            f"[...{link}].filter(element => getComputedStyle(element, '::before').content.includes('\\uf127')).length"
        )
        assert page.evaluate(icons) == 0

    menu = page.get_by_role("menuitem", name="Kernel", exact=True)
    menu.click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    expect_one_message()
    # The tabs show the last state of each part, and every button looks disabled.
    bench.get_by_role("tab", name="timeline", exact=True).click()
    expect(bench.get_by_role("option", name=re.compile("filling 64 pages")).first).to_be_visible()
    expect(bench.get_by_role("button", name="read page 0", exact=True)).to_have_css("opacity", "0.55")
    page.screenshot(path=SHOTS / "bench-restarted.png")
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
    page.locator(".jp-CodeCell").first.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(bench.get_by_role("button", name="read page 0", exact=True)).to_be_visible(timeout=60_000)
    expect(bench.get_by_text(re.compile("Run the cells again"))).to_have_count(0)
    menu.click()
    page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    expect_one_message()
    assert page.thrown == []


# Returns the tabs whose names are cut off.
CUT_OFF = """root => [...root.querySelectorAll('.lm-TabBar-tabLabel')]
    .filter(each => each.scrollWidth > each.clientWidth).map(each => each.textContent)"""
# Returns how bright the background of each element is that a selector finds: 255 is white.
BRIGHTNESS = """elements => elements.map(each => {
    const [red, green, blue, alpha] = (getComputedStyle(each).backgroundColor.match(/[\\d.]+/g) || []).map(Number);
    return alpha === 0 ? 0 : (red + green + blue) / 3;
})"""


def test_nothing_glows_in_the_dark_theme_and_no_tab_is_cut_off_in_a_narrow_window(bench, page):
    register(bench, "MINOR", "WP")
    cell(bench, 5).click()
    bench.get_by_role("button", name="read page 5", exact=True).click()
    expect(bench.get_by_role("list", name="legend")).to_contain_text("a touch waits: read of page 5")
    choose_theme(page, "JupyterLab Dark")
    page.set_viewport_size({"width": 820, "height": 1180})
    expect(bench.get_by_role("tab", name="faults (1)", exact=True)).to_be_visible()
    page.wait_for_timeout(500)
    assert bench.evaluate(CUT_OFF) == []
    page.screenshot(path=SHOTS / "bench-820-dark.png")
    button = bench.get_by_role("button", name="continue", exact=True).bounding_box()
    content = bench.get_by_label("content of a copy:").bounding_box()
    assert content["y"] > button["y"] + button["height"]
    assert max(bench.locator(".uffdlab-plain").evaluate_all(BRIGHTNESS)) < 80
    bench.get_by_role("button", name="continue", exact=True).click()
    bench.get_by_role("tab", name="page tables", exact=True).click()
    entry = bench.get_by_role("group", name=re.compile("^page 5 of region-1: PTE"))
    expect(entry).to_be_visible()
    values = entry.locator("td").filter(has_text=re.compile("^0$"))
    assert values.count() >= 8
    assert max(values.evaluate_all(BRIGHTNESS)) < 80
    bench.get_by_role("tab", name="ioctl", exact=True).click()
    arrow = bench.locator("select").first.evaluate("select => getComputedStyle(select).backgroundImage")
    assert arrow.startswith("linear-gradient")  # of the colour of the text
    page.set_viewport_size({"width": 1280, "height": 1600})
    choose_theme(page, "JupyterLab Light")


def static_form(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {}))


def test_a_notebook_keeps_the_last_state_of_the_bench(bench, page, jupyterlab):
    file = jupyterlab.folder / "bench.ipynb"
    pictures = bench.locator(".uffdlab-static-form img")
    expect(pictures.first).to_be_hidden()
    register(bench, "MINOR", "WP")
    run_and_expect(page, "bench.region.write(5) and ''", "")
    bench.get_by_role("tab", name="faults (1)", exact=True).click()
    bench.get_by_role("button", name="continue", exact=True).click()
    expect(cell(bench, 5)).to_have_attribute("aria-label", re.compile("^page 5: present, writable"))
    # The static form follows within seconds, and is saved with the notebook.
    expect(bench.locator(".uffdlab-static-form img[alt*='page 5: present']")).to_have_count(1, timeout=60_000)
    run_and_expect(page, "bench.keep('handed-in.html').name", "handed-in.html")
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-DocumentWidget-dirty, .jp-mod-dirty")).to_have_count(0, timeout=30_000)
    assert "page 5: present" in static_form(file)
    assert "<h2>Lab 6.1-series: Linux 6.1." in static_form(file)
    # After Python has ended and the notebook is opened again, the last state of each widget is shown.
    run(page, OTHER_WIDGETS)
    tables = page.locator(".jp-CodeCell").nth(1).locator(".uffdlab-static-form")
    expect(tables).to_have_count(6, timeout=60_000)
    expect(tables.first).to_be_hidden()
    expect(page.get_by_text("the lab is closed", exact=True)).to_be_visible(timeout=30_000)
    page.keyboard.press("Control+s")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    page.wait_for_timeout(1000)
    page.goto(jupyterlab.address("bench.ipynb"))
    expect(page.locator(".uffdlab-static-form img[alt*='page 5: present']").first).to_be_visible(timeout=60_000)
    for number, text in enumerate(STATIC_TEXTS):
        expect(tables.nth(number)).to_be_visible()
        expect(tables.nth(number)).to_contain_text(text)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
    missing = page.locator(".jp-OutputArea-output").filter(has_text=re.compile("^(Error displaying|Loading) widget"))
    expect(missing).to_have_count(1 + 6)
    for output in missing.all():
        expect(output).to_be_hidden()
    # In each theme the pictures have its background and legible text.
    for theme, replaced in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        for picture in tables.locator("img").all():
            content = picture.evaluate("img => getComputedStyle(img).content")
            assert content.startswith("url(") is replaced
        page.screenshot(path=SHOTS / f"bench-opened-again-{theme.split()[1].lower()}.png")
    # The notebook and the bench are each exported to one file, which needs no Python and no network.
    exported = CliRunner().invoke(export, [str(file)])
    assert exported.exit_code == 0, exported.output
    requested = []
    page.route(re.compile("^https?:"), lambda route: requested.append(route.request.url) or route.abort())
    for name, shown in (
        ("bench.html", page.locator("img[alt*='page 5: present']").first),
        ("handed-in.html", page.get_by_role("gridcell", name=re.compile("^page 5: present"))),
    ):
        page.goto((jupyterlab.folder / name).as_uri(), wait_until="load")
        expect(shown).to_be_visible()
        page.screenshot(path=SHOTS / f"{name.removesuffix('.html')}-exported.png", full_page=True)
    assert requested == []
    page.unroute(re.compile("^https?:"))
    page.goto(jupyterlab.address("bench.ipynb"))
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
