import csv
import io
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from uffdlab.target.results import IoctlResult
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import FaultFlag
from uffdlab.uapi.messages import Fault
from uffdlab.widgets import PageGrid, TimelineView

ABSENT, WP = 0, 0x8000000000000465
START = 0x10_0000_0000


def ioctl(timeline, name, mode, page, pages, at, errno=0):
    values = {"start": START + page * 4096, "len": pages * 4096, "mode": mode}
    result = IoctlResult(f"{name}(pages)", errno, 1000, 0, None, {}, name, values)
    timeline.add("ioctl", f"{name} → {'ok' if not errno else 'EINVAL'}", at, at + 1000, result)


@pytest.fixture
def timeline(snapshot):
    timeline = Timeline()
    for kind, at, what in (
        ("map", 0, None),
        ("snapshot", 1000, snapshot((ABSENT, 8))),
    ):
        timeline.add(kind, kind, at, None, what)
    ioctl(timeline, "UFFDIO_CONTINUE", 3, 0, 4, 2000)  # 2: WP|DONTWAKE
    timeline.add("snapshot", "snapshot", 4000, None, snapshot((WP, 4), (ABSENT, 4)))
    ioctl(timeline, "UFFDIO_WAKE", 0, 6, 2, 5000)  # 4: wakes other pages
    ioctl(timeline, "UFFDIO_WAKE", 0, 2, 2, 6000)  # 5: wakes some of them
    return timeline


@pytest.fixture
def view(timeline):
    view = TimelineView(timeline)
    yield view
    view.close()


def test_each_entry_has_its_lane_times_and_change(view):
    assert [event["lane"] for event in view.events] == ["other", "snapshot", "ioctl", "snapshot", "ioctl", "ioctl"]
    assert (view.events[2]["at"], view.events[2]["took"]) == (2.0, 1.0)
    assert view.events[1]["change"] == "first snapshot"
    assert view.events[3]["change"].startswith("4 pages (0–3): absent → present, not writable, uffd-wp")
    assert view.position == 5


def test_a_dontwake_gap_lasts_until_its_pages_are_woken(view):
    assert [event["gap"] for event in view.events] == [None, None, 5, None, None, None]


def test_a_failed_dontwake_has_no_gap_and_one_without_a_wake_is_open(timeline):
    ioctl(timeline, "UFFDIO_CONTINUE", 1, 0, 4, 7000, errno=22)
    ioctl(timeline, "UFFDIO_WRITEPROTECT", 2, 0, 4, 8000)
    ioctl(timeline, "UFFDIO_WRITEPROTECT", 1, 0, 4, 9000)  # protecting never wakes
    assert [event["gap"] for event in TimelineView(timeline).events[-3:]] == [None, -1, None]


def test_the_grid_follows_the_steps(timeline, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8)))
    view = TimelineView(timeline, grid)
    assert grid.snapshot is timeline[3].what
    view.step(-3)
    assert view.position == 2
    assert grid.snapshot is timeline[1].what
    view.step(100)
    assert view.position == 5
    assert grid.snapshot is timeline[3].what
    view.step(-100)
    assert view.position == 0


def test_position_minus_one_selects_the_newest_entry(timeline, snapshot):
    view = TimelineView(timeline, PageGrid(snapshot((ABSENT, 8))))
    view.step(-3)
    timeline.add("snapshot", "snapshot", 7000, None, snapshot((WP, 4), (ABSENT, 4)))
    view.refresh()
    assert view.position == 2
    view.set_state({"position": -1})  # like the button
    assert view.position == 6
    timeline.add("snapshot", "snapshot", 8000, None, snapshot((WP, 4), (ABSENT, 4)))
    view.refresh()
    assert view.position == 7


def test_a_touch_is_listed_by_its_start(timeline, view):
    # A touch is recorded when it ends, after its fault, but began before it.
    timeline.add("message", "Fault", 7000)
    timeline.add("touch", "read of page 3: done", 6500, 9000)
    assert [event["n"] for event in view.events[-3:]] == [5, 7, 6]
    assert (view.events[-2]["at"], view.events[-2]["took"]) == (6.5, 2.5)
    rows = list(csv.DictReader(io.StringIO(view.to_csv())))
    assert [row["number"] for row in rows[-3:]] == ["5", "7", "6"]
    table = view.fallback()["text/html"].partition("<table")[2]
    assert table.index("read of page 3: done") < table.index("Fault")


def test_a_running_touch_is_an_open_span_and_stays_selected_when_it_ends(snapshot):
    lab = Lab(touches=(SimpleNamespace(number=4, what="read of page 3", started_ns=2000, address=0x3008),))
    timeline = Timeline(lab)
    timeline.add("map", "map", 0)
    timeline.add("message", "Fault", 2000, None, Fault(3, "region-1", 0x3000, FaultFlag(0), 0, 2000))
    view = TimelineView(timeline)
    assert [(event["n"], event["took"]) for event in view.events] == [(0, 0.0), (-6, -1.0), (1, 0.0)]
    view.step(-1)
    touch, lab.touches = lab.touches[0], ()
    timeline.add("touch", "read of page 3: done", 1500, 9000, touch)
    assert view.position == 2
    assert [event["n"] for event in view.events] == [0, 2, 1]
    view.close()


def test_a_grid_of_an_earlier_entry_is_marked_as_past(timeline, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8)))
    view = TimelineView(timeline, grid)
    view.step(-3)
    assert grid._past
    view.step(3)
    assert not grid._past
    view.close()


class Lab(SimpleNamespace):
    """The parts of a lab that the timeline needs."""

    __hash__ = object.__hash__


def test_a_new_entry_is_shown(timeline, view):
    timeline.add("touch", "read of page 3: done", 9000)
    assert view.position == 6
    assert view.events[-1]["lane"] == "touch"


def test_a_view_that_stepped_back_keeps_its_position(timeline, view):
    view.step(-2)
    timeline.add("touch", "read of page 3: done", 9000)
    assert view.position == 3
    for number in range(600):
        timeline.add("message", "m", number)
    assert view.position == view.events[0]["n"] == 107  # the oldest entry that is shown
    view.step(1000)
    timeline.add("message", "m", 700)
    assert view.position == 607


def test_only_the_newest_entries_are_sent(timeline):
    for number in range(2000):
        timeline.add("message", "m", number)
    view = TimelineView(timeline)
    assert len(view.events) == 500
    assert view.events[-1]["n"] == view.position == 2005
    view.step(-10_000)
    assert view.position == view.events[0]["n"]


def test_an_empty_timeline_has_no_position():
    view = TimelineView(Timeline())
    assert (view.position, view.events) == (-1, [])
    view.step(1)
    assert view.position == -1
    ET.fromstring(view.to_svg())


def test_closing_leaves_no_listener(timeline):
    view = TimelineView(timeline)
    assert timeline._listeners
    view.close()
    assert timeline._listeners == []


def test_an_unknown_keyword_is_refused(timeline):
    with pytest.raises(TypeError, match="did you mean 'grid'"):
        TimelineView(timeline, gird=None)


def test_the_static_forms_have_the_entries(view, tmp_path):
    ET.fromstring(view.to_svg(tmp_path / "a.svg"))
    assert view.to_png().startswith(b"\x89PNG")
    assert "at 2.0 µs UFFDIO_CONTINUE → ok" in view.picture().alt
    assert "1 with DONTWAKE" in view.picture().alt
    page = view.to_html(tmp_path / "a.html")
    assert '"timeline_view.js": (() => {' in page
    assert not re.search(r'(src|href)="?http|^import ', page, re.MULTILINE)
    rows = list(csv.DictReader(io.StringIO(view.to_csv(tmp_path / "a.csv"))))
    assert rows[2]["woken_by"] == "5"
    assert len(rows) == 6
    data, _ = view._repr_mimebundle_()
    assert '<img alt="Timeline: at 0.0' in data["text/html"]
    assert "<table" in data["text/html"]
