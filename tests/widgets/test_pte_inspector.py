import re
from types import SimpleNamespace

import pytest

from uffdlab import pte
from uffdlab.errors import LabClosed, UsageError, WitnessError
from uffdlab.observations.page_walk import PageWalk, PageWalks
from uffdlab.target.timeline import Timeline
from uffdlab.widgets import PageGrid, PteInspector
from uffdlab.widgets._export.bitfield import bitfield
from uffdlab.witnesses.tables import Step

START = 0x10_0000_0000
TABLE = 0x67


class Region:
    """Two mappings of the same pages; page 3 is mapped in the first."""

    def __init__(self, snapshot):
        self.pages, self.name = 64, "region-1"
        self.error = None
        self.taken = snapshot
        self.lab = SimpleNamespace(timeline=Timeline(), snapshot=lambda pages: self.taken((0x8000000000000465, 1)))
        self.entry = {3: 0x8000000003FFC465}

    def __getitem__(self, page):
        if not 0 <= page < 64:
            raise UsageError(f"no page {page}")
        return SimpleNamespace(first=page)

    def walk(self, page):
        if self.error:
            raise self.error
        address = START + page * 4096
        entries = [(4, 2 << 12 | TABLE), (3, 3 << 12 | TABLE), (2, 4 << 12 | TABLE), (1, self.entry.get(page, 0))]
        steps = [
            Step(level=level, table=level, slot=address >> 12 + 9 * (level - 1) & 511, entry=entry)
            for level, entry in entries
        ]
        return PageWalks(
            [PageWalk(address, steps, what=f"page {page} of {name}") for name in ("region-1", "its alias")]
        )


@pytest.fixture
def region(snapshot):
    return Region(snapshot)


def test_the_inspector_shows_the_bits_and_both_walks(region):
    inspector = PteInspector(region, page=3)
    text = inspector.to_html()
    assert "page 3 of region-1: PTE 0x8000000003ffc465" in text
    assert re.search(r">10</th>.*>uffd-wp</td>", text, re.DOTALL)
    assert "The same page: all end at page frame 0x3ffc." in text
    assert text.count(">PGD</th>") == 1
    inspector.close()


def test_a_bit_field_has_each_bit_once():
    bits = pte.explain_x86(0x8000000003FFC465, 1)
    table = bitfield("x", bits)
    assert len(re.findall(r'<th scope="col"', table)) == len(bits)
    assert re.search(r"color:#FFFFFF;font-weight:700\">1</td>", table)
    assert "<b>" not in bitfield("<b>", bits)


def test_shows_the_entry_of_the_moment_that_the_timeline_was_taken_back_to(region, snapshot):
    grid = PageGrid(snapshot((0, 64)))
    inspector = PteInspector(region, grid=grid, page=3)
    grid._when = "as of 9.00 s"
    grid.show_moment(snapshot((0x8000000000000865, 64)), "1.00 s", past=True)
    grid._when = "as of 1.00 s, stepped back in the timeline"  # of a grid that follows a region
    grid.show_moment(snapshot((0x8000000000000865, 64)), "1.00 s", past=True)
    for update in (lambda: None, inspector.refresh, lambda: setattr(grid, "cursor", 7)):
        update()
        assert "as of 1.00 s, stepped back in the timeline" in inspector.static()
        assert f"page {grid.cursor or 3} of region-1, seen by physical: 0x800000000010" in inspector.static()
    assert "page 7 of region-1, seen by physical: 0x8000000000107865" in inspector.static()
    grid.show_moment(snapshot((0, 64)), "9.00 s", past=False)
    grid.cursor = 3
    assert "stepped back" not in inspector.static()
    assert "The same page: all end at page frame 0x3ffc." in inspector.static()
    # A grid that follows the newest entry leads to no reading, which would give a newer entry.
    walks = []
    region.walk = lambda page: walks.append(page) or Region.walk(region, page)
    grid.show_moment(snapshot((0, 64)), "9.01 s", past=False)
    assert walks == []
    inspector.close()


def test_the_inspector_follows_the_cursor_and_the_timeline(region, snapshot):
    grid = PageGrid(snapshot((0, 64)))
    inspector = PteInspector(region, grid=grid)
    grid.cursor = 3
    assert inspector.page.value == 3
    assert "page 3 of region-1" in inspector.to_html()
    region.entry[3] = 0
    region.lab.timeline.add("ioctl", "UFFDIO_X", 1)
    assert "Mapped in none of them" in inspector.to_html()
    inspector.close()
    assert region.lab.timeline._listeners == []
    grid.cursor = 4
    assert inspector.page.value == 3


def test_without_a_walk_the_inspector_shows_the_entry_of_a_witness(region):
    region.error = WitnessError("the host cannot see it", witness="physical")
    assert "seen by physical" in PteInspector(region).to_html()
    region.error = LabClosed("this lab <is> closed")
    inspector = PteInspector(region)
    assert inspector.static() == "<p>this lab &lt;is&gt; closed</p>"


def test_a_page_outside_and_an_unknown_keyword_are_refused(region):
    with pytest.raises(UsageError, match="no page 64"):
        PteInspector(region, page=64)
    with pytest.raises(TypeError, match="did you mean 'page'"):
        PteInspector(region, pag=3)


def test_the_output_without_a_kernel_has_the_entry(region):
    data, _ = PteInspector(region, page=3)._repr_mimebundle_()
    assert "0x8000000003ffc465" in data["text/html"]
