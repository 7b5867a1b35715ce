"""The widgets in a page without a kernel: a notebook converted by nbconvert, and each widget as a file."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.long]

SHOTS = Path(__file__).resolve().parent.parent.parent / "build" / "browser"
LAB = """
import time, uffdlab
from uffdlab.widgets import *
lab = uffdlab.Lab("6.1-series")
bench = lab.bench(pages=16)
bench.ioctls.check("MINOR", "WP")
bench.ioctls.send_ioctl()
before = bench.region.snapshot()
bench.uffd.continue_(bench.region[:4], wp=True, dontwake=True)
bench.touch("write")
time.sleep(0.5)
bench.faults.refresh(), bench.timeline.refresh(), bench.inspector.refresh()
"""
# Each widget, and a text of its data.
WIDGETS = {
    "bench.grid": "pages 0–3: present, not writable, uffd-wp",
    "bench.ioctls": "UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR",
    "bench.faults": "Fault(page=0, write, wp)",
    "bench.timeline": "UFFDIO_CONTINUE(pages 0–3",
    "bench.inspector": "page 0 of region-1: PTE 0x",
    "bench.panel": "UFFDIO_CONTINUE_MODE_WP",
    "KernelPicker()": "6.1-series: not booted",
    "CompareGrids({'before': before, 'after': bench.region.snapshot()})": "after against before: 4 pages (0–3)",
    "bench": "Lab 6.1-series: Linux 6.1",
}
FILES = """
parts = {name: getattr(bench, name) for name in ("grid", "faults", "timeline", "inspector", "ioctls", "panel")}
parts |= {"bench": bench, "picker": KernelPicker()}
parts |= {"compare": CompareGrids({"before": before, "after": bench.region.snapshot()})}
for name, part in parts.items():
    for form in ("svg", "png", "csv", "html"):
        getattr(part, f"to_{form}")(f"{name}.{form}")
lab.close()
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    cells = [LAB, *WIDGETS, FILES]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", store_widget_state=False, resources={"metadata": {"path": folder}}
    )
    client.execute()
    nbformat.write(notebook, folder / "notebook.ipynb")
    text, _ = HTMLExporter().from_notebook_node(notebook)
    (folder / "notebook.html").write_text(text)
    return folder


def open_file(page, path):
    # Block the network: the page must contain all that it shows.
    page.route(re.compile("^https?:"), lambda route: route.abort())
    page.goto(path.as_uri(), wait_until="domcontentloaded")


def test_a_converted_notebook_shows_each_widget_with_its_data(exported, page):
    open_file(page, exported / "notebook.html")
    outputs = page.locator(".jp-Cell-outputWrapper, .jp-OutputArea")
    expect(outputs.first).to_be_attached()
    cells = page.locator(".jp-CodeCell")
    missing = {}
    for number, (name, text) in enumerate(WIDGETS.items(), start=1):
        cell = cells.nth(number)
        shown = cell.locator(".jp-OutputArea").first.evaluate(
            "area => area.innerText + ' ' + [...area.querySelectorAll('img')].map(image => image.alt).join(' ')"
        )
        if text not in " ".join(shown.split()):
            missing[name] = shown
        for picture in cell.locator("img").all():
            assert picture.evaluate("img => img.complete && img.naturalWidth > 0"), name
    assert missing == {}
    page.screenshot(path=SHOTS / "static-notebook.png", full_page=True)
    page.pdf(path=SHOTS / "static-notebook.pdf")


def test_every_exported_file_has_its_format_and_data(exported):
    beginnings = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}
    parts = {path.stem for path in exported.glob("*.csv")}
    assert parts == {"grid", "faults", "timeline", "inspector", "ioctls", "panel", "bench", "picker", "compare"}
    for part in parts:
        for suffix, beginning in beginnings.items():
            assert (exported / f"{part}.{suffix}").read_bytes().startswith(beginning), (part, suffix)
        ET.parse(exported / f"{part}.svg")
    assert "uffd-wp" in (exported / "inspector.csv").read_text()
    assert "Fault(page=0, write, wp)" in (exported / "faults.csv").read_text()
    assert "UFFDIO_REGISTER_MODE_MINOR" in (exported / "ioctls.csv").read_text()
    assert "FaultLog," in (exported / "bench.csv").read_text()


def test_each_widget_can_be_read_without_styles_and_scripts(exported, page):
    # GitHub shows a notebook like this: without scripts and styles, and only with the MIME types that it knows.
    notebook = nbformat.read(exported / "notebook.ipynb", as_version=4)
    shown = [cell.outputs[-1].data["text/html"] for cell in notebook.cells[1 : 1 + len(WIDGETS)]]
    shown = [re.sub(r"<style>.*?</style>", "", text) for text in shown]
    for name, text in zip(WIDGETS, shown, strict=True):
        assert not re.search(r"<(script|style|link|iframe)\b|\bon\w+=|src=\"(?!data:image/png)", text), name
    plain = [re.sub(r' (style|class)="[^"]*"', "", text) for text in shown]
    open_file(page, exported / "bench.html")  # its content is replaced below
    page.set_content("<body style='font: 14px sans-serif; max-width: 800px'>" + "<hr>".join(plain))
    text = page.evaluate(
        "document.body.innerText + ' ' + [...document.images].map(image => image.alt).join(' ')",
    )
    assert {name: text for name, text in WIDGETS.items() if text not in " ".join(text.split())} == {}
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.screenshot(path=SHOTS / "static-github.png", full_page=True)


def test_nothing_is_cut_off_in_a_printed_page(exported, page):
    # The width of an A4 page without margins.
    page.set_viewport_size({"width": 718, "height": 1000})
    open_file(page, exported / "notebook.html")
    page.emulate_media(media="print")
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.jp-OutputArea-output table, .jp-OutputArea-output img')]
            .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
            .map(element => element.innerText?.slice(0, 80) || element.alt)"""
    )
    assert cut == []


def test_an_exported_bench_shows_entries_and_steps_through_its_timeline(exported, page, axe):
    open_file(page, exported / "bench.html")
    expect(page.locator("html[data-ready=yes]")).to_be_attached()
    page.get_by_role("grid").get_by_label("page 2: ").click()
    expect(page.get_by_text(re.compile(r"Address 0x1000002000, page frame 0x"))).to_be_visible()
    view = page.locator(".uffdlab-timeline")
    view.get_by_role("listbox").focus()
    page.keyboard.press("Home")
    expect(view.get_by_role("status")).to_contain_text("entry 1 of ")
    assert axe(page, "body") == []
    page.screenshot(path=SHOTS / "static-bench.png", full_page=True)
    # At 200 % zoom, which is half the width, the page does not scroll sideways.
    page.set_viewport_size({"width": 640, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.thrown == []
