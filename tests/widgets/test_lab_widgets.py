import csv
import io
import json
import re
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

import uffdlab
from uffdlab.errors import LabClosed, UnknownKernel, UsageError
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import Feature
from uffdlab.widgets import CompareGrids, KernelPicker, LabPanel, kernel_picker
from uffdlab.widgets._base import event_loop

ABSENT, WP, WRITABLE = 0, 0x8000000000000465, 0x8000000000000867


class Lab:
    def __init__(self, kernel="6.1-series"):
        self.kernel, self.release, self.console = kernel, "6.1.0", "\n".join(f"line <{n}>" for n in range(40))
        self.witnesses = ("physical", "pagemap")
        self.closed, self.targets = False, 0
        self.timeline = Timeline()

    def ask(self, _request):
        if self.closed:
            raise LabClosed("this lab is closed")

    @property
    def capabilities(self):
        return SimpleNamespace(features=Feature.MISSING_SHMEM | Feature.MINOR_SHMEM, continue_wp=True)

    def restart_target(self):
        if self.closed:
            raise LabClosed("this lab is closed")
        self.targets += 1

    def close(self):
        self.closed = True
        self.timeline.add("lab", "the lab was closed", 1, None, LabClosed("this lab is closed"))


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def booting(monkeypatch):
    # A boot without a machine: records the kernels and labs, and waits for a gate.
    boots = SimpleNamespace(kernels=[], labs=[], gate=threading.Event(), error=None)
    boots.gate.set()

    def get(name, *, progress):
        boots.kernels.append(name)
        progress.start(name, "not here yet")
        progress.stage("compiling", 200, "objects")
        for done in range(201):
            progress.at(done)
        boots.gate.wait(10)
        if boots.error:
            raise boots.error

    def lab(name):
        boots.labs.append(Lab(name))
        return boots.labs[-1]

    monkeypatch.setattr(kernel_picker.kernels, "get", get)
    monkeypatch.setattr(kernel_picker, "Lab", lab)
    return boots


def finish(thread):
    thread.join(10)
    assert not thread.is_alive()
    event_loop.run_in_loop(lambda: None)  # runs the callbacks of the thread


def test_a_kernel_boots_on_a_thread_with_progress(booting):
    picker = KernelPicker("debian/trixie")
    assert "6.1-as-posted" in picker.kernel.options
    booting.gate.clear()
    thread = picker.boot()
    assert picker.boot() is thread
    assert picker.button.description == "boots …"
    assert picker.lab is None
    assert picker.bar.layout.visibility == "visible"
    assert "uffdlab-moving" in picker.bar._dom_classes
    booting.gate.set()
    finish(thread)
    assert booting.kernels == ["debian/trixie"]
    assert picker.lab is booting.labs[0]
    assert picker.status.text == "debian/trixie runs: Linux 6.1.0"
    assert picker.button.description == "boot"
    assert picker.bar.layout.visibility == "hidden"
    picker.close()


def test_the_bar_shows_the_fraction_or_moves_if_it_is_unknown(booting):
    states = []
    picker = KernelPicker("debian/trixie")
    picker.bar.observe(
        lambda _change: states.append((picker.bar.value, picker.bar._dom_classes)), ["value", "_dom_classes"]
    )
    finish(picker.boot())
    values = [value for value, _ in states]
    assert 1 in values
    assert len({value for value in values if 0 < value < 1}) > 10
    assert all(classes == () for value, classes in states if value > 0)
    assert states[-1] == (0, ("uffdlab-moving",))  # the kernel exists and boots


def test_a_failed_boot_is_reported(booting):
    booting.error = UnknownKernel("there is no kernel 'x'")
    picker = KernelPicker("x")
    finish(picker.boot())
    assert (picker.lab, picker.status.text) == (None, "there is no kernel 'x'")
    assert picker.button.description == "boot"


def test_a_lab_that_boots_after_its_picker_was_closed_is_closed(booting):
    picker = KernelPicker()
    booting.gate.clear()
    thread = picker.boot()
    picker.close()
    booting.gate.set()
    finish(thread)
    assert booting.labs[0].closed


def test_the_panel_shows_the_lab_and_restarts_it(booting):
    lab = Lab()
    panel = LabPanel(lab)
    text = panel.facts.value
    assert "MISSING_SHMEM, MINOR_SHMEM" in text
    assert "line &lt;39&gt;" in text
    assert "line &lt;3&gt;" not in text
    panel.target.click()
    assert lab.targets == 1
    assert "new target process" in panel.status.text
    panel.end.click()
    assert lab.closed
    assert "this lab is closed — boot starts a new lab" in panel.facts.value
    panel.target.click()
    assert panel.status.text == "this lab is closed — boot starts a new lab"
    finish(panel.picker.boot())
    assert panel.lab is booting.labs[0]
    assert "MISSING_SHMEM" in panel.facts.value
    panel.close()


def test_compare_grids_shows_each_kernel_and_its_differences(snapshot):
    grids = CompareGrids(
        {
            "6.1-series": snapshot((WP, 4), (ABSENT, 4)),
            "as posted": snapshot((WRITABLE, 4), (ABSENT, 4)),
            "trixie": snapshot((WP, 4), (ABSENT, 4)),
        }
    )
    assert len(grids.differences["as posted"]) == 4
    assert not grids.differences["trixie"]
    html = grids.static()
    assert "as posted against 6.1-series: 4 pages (0–3)" in html
    assert "trixie against 6.1-series: the same on 8 pages" in html
    assert html.count("<img alt=") == 3
    assert [grid.mode for grid in grids.grids] == ["side", "changed", "changed"]
    grids.mode.value = "flicker"
    assert [grid.mode for grid in grids.grids] == ["side", "flicker", "flicker"]
    assert [part["title"] for part in embedded(grids.to_html())] == ["6.1-series", "as posted", "trixie"]
    assert grids.to_svg().startswith("<?xml")
    assert grids.to_png().startswith(b"\x89PNG")
    assert "as posted: " in grids.picture().alt
    rows = list(csv.DictReader(io.StringIO(grids.to_csv())))
    assert [rows[index]["snapshot"] for index in (0, 8, 23)] == ["6.1-series", "as posted", "trixie"]
    grids.grids[0].cursor = 5
    assert [grid.cursor for grid in grids.grids] == [5, 5, 5]
    grids.close()


def test_addresses_and_page_frames_of_two_labs_are_no_difference(snapshot):
    # The region of another lab has another address and name, and its pages have other frames.
    one = snapshot((WP, 4), (ABSENT, 4))
    shifted = np.where(one.entries != 0, one.entries + np.uint64(0x77000), one.entries)
    other = replace(one, region="region-7", start=0x20_0000_0000, kernel="as posted", entries=shifted)
    grids = CompareGrids({"6.1-series": one, "as posted": other})
    assert not grids.differences["as posted"]
    assert "as posted against 6.1-series: the same on 8 pages" in grids.static()
    assert grids.grids[1]._codes == grids.grids[1]._before
    assert grids.grids[1].to_png().startswith(b"\x89PNG")
    assert str(uffdlab.compare(one, other)) == "no change on 8 pages"
    assert len(uffdlab.compare(one, replace(one, entries=shifted)).difference) == 4  # in one lab they are a difference
    grids.close()


def test_wrong_snapshots_and_keywords_are_refused(snapshot, booting):
    with pytest.raises(UsageError, match="at least two"):
        CompareGrids({"one": snapshot((WP, 4))})
    with pytest.raises(UsageError, match="different pages"):
        CompareGrids({"one": snapshot((WP, 4)), "two": snapshot((WP, 5))})
    for make in (lambda: KernelPicker(kernle="x"), lambda: LabPanel(Lab(), la=1)):
        with pytest.raises(TypeError, match="did you mean"):
            make()


def test_closing_a_widget_closes_all_its_parts(snapshot, booting):
    before = set(_instances)
    both = {"one": snapshot((WP, 4)), "two": snapshot((ABSENT, 4))}
    for make in (lambda: CompareGrids(both), KernelPicker, lambda: LabPanel(Lab())):
        widget = make()
        assert set(_instances) != before
        widget.close()
        assert set(_instances) == before


def test_the_static_forms_of_picker_and_panel_have_their_text(booting, tmp_path):
    picker, panel = KernelPicker("debian/trixie"), LabPanel(Lab())
    for widget, text in ((picker, "debian/trixie: not booted"), (panel, "MISSING_SHMEM, MINOR_SHMEM")):
        assert text in widget.static()
        assert text in widget.picture().alt
        assert widget.to_png(tmp_path / "a.png").startswith(b"\x89PNG")
        ET.fromstring(widget.to_svg(tmp_path / "a.svg"))
        assert text in [row["value"] for row in csv.DictReader(io.StringIO(widget.to_csv(tmp_path / "a.csv")))]
        assert text in widget.to_html(tmp_path / "a.html")
        widget.close()
    assert "line <39>" in panel.to_csv()
    assert "line <39>" in panel.picture().alt
