"""The widgets on a page without a kernel: a notebook that nbconvert made a page of, and each widget as a file."""

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
# What each shows: a piece of its data.
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
def made(tmp_path_factory):
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
    # Nothing may be fetched: the page has to hold all that it shows.
    page.route(re.compile("^https?:"), lambda route: route.abort())
    page.goto(path.as_uri(), wait_until="domcontentloaded")


def test_a_converted_notebook_shows_each_widget_with_its_data(made, page):
    open_file(page, made / "notebook.html")
    outputs = page.locator(".jp-Cell-outputWrapper, .jp-OutputArea")
    expect(outputs.first).to_be_attached()
    cells = page.locator(".jp-CodeCell")
    missing = {}
    for number, (name, text) in enumerate(WIDGETS.items(), start=1):
        cell = cells.nth(number)
        shown = cell.locator(".jp-OutputArea").first.evaluate(
            "area => area.innerText + ' ' + [...area.querySelectorAll('img')].map(each => each.alt).join(' ')"
        )
        if text not in " ".join(shown.split()):
            missing[name] = shown
        for picture in cell.locator("img").all():
            assert picture.evaluate("img => img.complete && img.naturalWidth > 0"), name
    assert missing == {}
    page.screenshot(path=SHOTS / "static-notebook.png", full_page=True)
    page.pdf(path=SHOTS / "static-notebook.pdf")


def test_every_file_is_what_it_says(made):
    beginnings = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}
    parts = {path.stem for path in made.glob("*.csv")}
    assert parts == {"grid", "faults", "timeline", "inspector", "ioctls", "panel", "bench", "picker", "compare"}
    for part in parts:
        for suffix, beginning in beginnings.items():
            assert (made / f"{part}.{suffix}").read_bytes().startswith(beginning), (part, suffix)
        ET.parse(made / f"{part}.svg")
    assert "uffd-wp" in (made / "inspector.csv").read_text()
    assert "Fault(page=0, write, wp)" in (made / "faults.csv").read_text()
    assert "UFFDIO_REGISTER_MODE_MINOR" in (made / "ioctls.csv").read_text()
    assert "FaultLog," in (made / "bench.csv").read_text()


def test_without_styles_and_scripts_each_widget_can_be_read(made, page):
    # So GitHub shows a notebook: no script, no style, of the MIME types what it knows.  It takes styles out.
    notebook = nbformat.read(made / "notebook.ipynb", as_version=4)
    shown = [cell.outputs[-1].data["text/html"] for cell in notebook.cells[1 : 1 + len(WIDGETS)]]
    shown = [re.sub(r"<style>.*?</style>", "", text) for text in shown]
    for name, text in zip(WIDGETS, shown, strict=True):
        assert not re.search(r"<(script|style|link|iframe)\b|\bon\w+=|src=\"(?!data:image/png)", text), name
    plain = [re.sub(r' (style|class)="[^"]*"', "", text) for text in shown]
    open_file(page, made / "bench.html")  # any page; its content is replaced
    page.set_content("<body style='font: 14px sans-serif; max-width: 800px'>" + "<hr>".join(plain))
    text = page.evaluate(
        "document.body.innerText + ' ' + [...document.images].map(each => each.alt).join(' ')",
    )
    assert {name: text for name, text in WIDGETS.items() if text not in " ".join(text.split())} == {}
    assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    page.screenshot(path=SHOTS / "static-github.png", full_page=True)


def test_a_printed_page_shows_everything(made, page):
    # An A4 page between its margins: no table runs out of it.
    page.set_viewport_size({"width": 718, "height": 1000})
    open_file(page, made / "notebook.html")
    page.emulate_media(media="print")
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.jp-OutputArea-output table, .jp-OutputArea-output img')]
            .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
            .map(each => each.innerText?.slice(0, 80) || each.alt)"""
    )
    assert cut == []


def test_a_bench_as_a_file_hovers_and_steps(made, page, axe):
    open_file(page, made / "bench.html")
    expect(page.locator("html[data-ready=yes]")).to_be_attached()
    page.get_by_role("grid").get_by_label("page 2: ").click()
    expect(page.get_by_text(re.compile(r"Address 0x1000002000, page frame 0x"))).to_be_visible()
    view = page.locator(".uffdlab-timeline")
    view.get_by_role("listbox").focus()
    page.keyboard.press("Home")
    expect(view.get_by_role("status")).to_contain_text("entry 1 of ")
    assert axe(page, "body") == []
    page.screenshot(path=SHOTS / "static-bench.png", full_page=True)
    # At 200 % zoom, that is on half the width, the page itself need not be scrolled sideways.
    page.set_viewport_size({"width": 640, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.thrown == []
