"""When a lab ends, each of its widgets shows it and offers a restart, which moves all of them to the new lab."""

from types import SimpleNamespace

import pytest

from uffdlab.errors import KernelError, LabClosed, MachineLost, TargetLost
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import Feature
from uffdlab.widgets import FaultLog, IoctlPanel, LabPanel, PageGrid, PteInspector, TimelineView
from uffdlab.widgets._base import event_loop, lab_lifecycle

ABSENT = 0
PAGES = 8


class Region:
    def __init__(self, lab, snapshot):
        self.lab, self.pages, self.memory, self.page_size, self.start = lab, PAGES, "anon", 4096, 0x10_0000_0000
        self.name, self.has_alias, self._snapshot, self.first = "region-1", False, snapshot, 0

    def __getitem__(self, page):
        return SimpleNamespace(first=page)

    def snapshot(self):
        self.lab.ask("x")
        return self._snapshot((ABSENT, PAGES))

    def walk(self, page):
        self.lab.ask("x")
        raise TargetLost("not here")


class Lab:
    """The parts of a lab that the widgets need, and the ways in which it can end."""

    instances = ()

    def __init__(self, kernel="6.1-series"):
        self.kernel, self.console, self.release, self.witnesses = kernel, "", "6.1", ("physical",)
        self.timeline = Timeline(self)
        self.capabilities = SimpleNamespace(features=Feature(0), continue_wp=True)
        self.regions, self.userfaultfds, self.touches = (), (), ()
        self.error, self.resets = None, 0
        Lab.instances = (*Lab.instances, self)

    def ask(self, _request):
        if self.error:
            raise self.error

    def map(self, *, pages, memory):
        region = Region(self, Lab.snapshot)
        self.regions += (region,)
        return region

    def userfaultfd(self):
        self.userfaultfds += (Userfaultfd(),)
        return self.userfaultfds[-1]

    def reset(self):
        self.error, self.regions, self.userfaultfds = None, (), ()
        self.resets += 1
        self.timeline.add("lab", "the lab was reset", 2)

    def restart_target(self):
        self.regions = self.userfaultfds = ()
        self.timeline.add("target", "a new target process", 2)

    def end(self, error, kind="lab"):
        self.error, self.regions, self.userfaultfds = error if kind == "lab" else None, (), ()
        self.timeline.add(kind, "it ended", 1, None, error)

    def close(self):
        if not isinstance(self.error, LabClosed):
            self.end(LabClosed("this lab is closed"))


class Userfaultfd:
    """The parts of a userfaultfd that the widgets need."""

    registered = ()


@pytest.fixture
def lab(snapshot, monkeypatch):
    Lab.snapshot, Lab.instances = staticmethod(snapshot), ()
    monkeypatch.setattr(lab_lifecycle, "Lab", Lab)
    return Lab()


@pytest.fixture
def widgets(lab):
    region, uffd = lab.map(pages=PAGES, memory="anon"), lab.userfaultfd()
    grid = PageGrid(region.snapshot()).follow(region)
    widgets = SimpleNamespace(
        grid=grid,
        panel=IoctlPanel(uffd, region),
        log=FaultLog(uffd, lab),
        view=TimelineView(lab.timeline, grid),
        inspector=PteInspector(region),
        lab_panel=LabPanel(lab),
    )
    yield widgets
    for widget in vars(widgets).values():
        widget.close()


def finish(thread):
    thread.join(10)
    assert not thread.is_alive()
    event_loop.run_in_loop(lambda: None)


def test_every_widget_shows_that_its_lab_has_ended(lab, widgets):
    assert {widget.ended for widget in vars(widgets).values()} == {""}
    lab.end(MachineLost("the machine is gone\nand its console output …"))
    assert {widget.ended for widget in vars(widgets).values()} == {"the machine is gone"}
    assert widgets.panel._bar.ended == "the machine is gone"


def test_a_widget_made_after_the_end_of_the_lab_shows_it(lab):
    lab.close()
    view = TimelineView(lab.timeline)
    assert view.ended == "this lab is closed"
    view.close()


def test_a_restart_by_one_widget_moves_all_to_the_new_region(lab, widgets):
    lab.end(LabClosed("closed"))
    lab.timeline.add("ioctl", "late", 3)
    widgets.log._message(None, {"ask": "start again"}, [])
    finish(widgets.grid.start_again())
    _, new = Lab.instances
    assert {widget.ended for widget in vars(widgets).values()} == {""}
    assert not any(widget._starts for widget in vars(widgets).values())
    (region,) = new.regions
    assert widgets.grid._source is widgets.panel._region is widgets.inspector._region is region
    assert widgets.panel._uffd is widgets.log._uffd is new.userfaultfds[0]
    assert widgets.view._timeline is new.timeline
    assert widgets.lab_panel.lab is new
    assert lab.timeline._listeners == []


def test_a_crashed_machine_is_reset_for_the_same_lab(lab, widgets):
    lab.end(MachineLost("gone"))
    finish(widgets.view.start_again())
    assert Lab.instances == (lab,)
    assert lab.resets == 1
    assert {widget.ended for widget in vars(widgets).values()} == {""}
    assert lab.regions == (widgets.grid._source,)


def test_a_reset_from_the_panel_updates_all_widgets(lab, widgets):
    widgets.lab_panel.back.click()
    assert lab.resets == 1
    assert {widget.ended for widget in vars(widgets).values()} == {""}
    assert lab.regions == (widgets.grid._source,)
    assert widgets.panel._region is widgets.grid._source


def test_a_reset_from_python_is_shown(lab, widgets):
    lab.reset()
    assert {widget.ended for widget in vars(widgets).values()} == {"the lab was reset"}


def test_a_lab_that_a_widget_started_ends_with_the_last_widget(lab, widgets):
    lab.end(LabClosed("closed"))
    finish(widgets.grid.start_again())
    _, new = Lab.instances
    *most, last = vars(widgets).values()
    for widget in most:
        widget.close()
    assert new.error is None
    last.close()
    assert isinstance(new.error, LabClosed)
    assert new.timeline._listeners == []


def test_a_lab_of_the_user_is_not_closed(lab, widgets):
    for widget in vars(widgets).values():
        widget.close()
    assert lab.error is None
    assert lab.timeline._listeners == []


def test_after_a_lost_target_only_the_target_is_restarted(lab, widgets):
    lab.end(TargetLost("the target died"), "target")
    assert widgets.grid.ended == "the target died"
    finish(widgets.grid.start_again())
    assert Lab.instances == (lab,)
    assert {widget.ended for widget in vars(widgets).values()} == {""}
    assert lab.regions == (widgets.grid._source,)


def test_widgets_show_that_their_region_was_unmapped(lab, widgets):
    (region,) = lab.regions
    lab.regions = ()
    lab.timeline.add("unmap", "region-1 was unmapped", 1, None, region)
    assert widgets.grid.ended == widgets.panel.ended == widgets.inspector.ended == "region-1 was unmapped"
    assert widgets.log.ended == widgets.view.ended == ""
    finish(widgets.grid.start_again())
    assert widgets.grid.ended == ""
    assert Lab.instances == (lab,)
    assert lab.regions == (widgets.grid._source,)


def test_a_restart_that_fails_is_reported(lab, widgets, monkeypatch):
    lab.end(LabClosed("closed"))

    def fails(_kernel):
        raise KernelError("no compiler", kernel="6.1-series")

    monkeypatch.setattr(lab_lifecycle, "Lab", fails)
    finish(widgets.grid.start_again())
    assert widgets.grid.ended == widgets.log.ended == "no compiler"
    assert not widgets.grid._starts


def test_two_grids_of_one_lab_do_not_trigger_each_other(lab):
    region = lab.map(pages=PAGES, memory="anon")
    taken = []

    def snapshot():
        taken.append(Lab.snapshot((ABSENT, PAGES)))
        lab.timeline.add("snapshot", "s", 1, None, taken[-1])
        return taken[-1]

    region.snapshot = snapshot
    grids = [PageGrid(snapshot()).follow(region) for _ in range(2)]
    before = len(taken)
    lab.timeline.add("ioctl", "i", 2)
    assert len(taken) - before <= 2
    assert grids[0].snapshot in taken[before:]
    for grid in grids:
        grid.close()
