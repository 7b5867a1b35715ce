import csv
import io
import json
import re
import threading

import numpy as np
import pytest
import traitlets

from uffdlab.errors import UsageError
from uffdlab.target.timeline import Timeline
from uffdlab.widgets import PageGrid
from uffdlab.widgets._base import event_loop

ABSENT, WP, WRITABLE = 0, 0x8000000000000465, 0x8000000000000867


@pytest.fixture
def sent(monkeypatch):
    # What the browser would receive: names and values of traits, and messages with their bytes.
    messages = []

    def send(self, content, buffers=None):
        messages.append((content, buffers))

    def send_state(self, key=None):
        names = {key} if isinstance(key, str) else key
        messages.append(({"state": {name: getattr(self, name) for name in names or self.keys}}, None))

    monkeypatch.setattr(PageGrid, "send", send)
    monkeypatch.setattr(PageGrid, "send_state", send_state)
    return messages


def test_a_page_needs_one_byte(snapshot):
    grid = PageGrid(snapshot((WP, 32), (WRITABLE, 16), (ABSENT, 16)))
    assert len(grid._codes) == 64
    letters = [grid._kinds[code]["letter"] for code in grid._codes]
    assert "".join(letters) == "U" * 32 + "W" * 16 + "·" * 16


def test_a_page_needs_at_most_two_bytes(snapshot):
    # 512 different sets of flags.
    taken = snapshot((ABSENT, 512))
    entries = np.array([1 | (bits & 3) << 1 | (bits >> 2 & 0x7F) << 5 for bits in range(512)], dtype=np.uint64)
    levels = np.array([1 + (bits & 1) for bits in range(512)], dtype=np.uint8)
    many = type(taken)(region="r", start=0, page_size=4096, witness="physical", entries=entries, levels=levels)
    grid = PageGrid(many)
    assert len(grid._kinds) > 256 or len(grid._codes) == 512
    assert len(grid._codes) <= 2 * 512


def test_only_the_changed_range_is_sent(snapshot, sent):
    grid = PageGrid(snapshot((ABSENT, 1 << 20)))
    sent.clear()
    grid.show(snapshot((ABSENT, 500), (WP, 20), (ABSENT, (1 << 20) - 520)))
    ((patch, buffers),) = [message for message in sent if "patch" in message[0]]
    assert patch == {"patch": 500}
    assert [len(buffer) for buffer in buffers] == [20]
    for content, _ in sent:
        assert "_codes" not in content.get("state", {})
    # A later view gets all codes.
    assert len(grid.get_state()["_codes"]) == 1 << 20
    assert set(grid._codes[500:520]) == {grid._codes[500]} != {grid._codes[0]}


def test_a_snapshot_of_other_pages_is_sent_whole_and_clears_the_selection(snapshot, sent):
    grid = PageGrid(snapshot((WP, 8)))
    grid.selection = [2, 3]
    grid.show(snapshot((WP, 8), first=100))
    assert grid.selection == []
    assert grid._meta["first"] == 100
    assert grid.pages == slice(100, 108)


def test_an_equal_snapshot_sends_no_pages(snapshot, sent):
    grid = PageGrid(snapshot((WP, 8)))
    sent.clear()
    grid.show(snapshot((WP, 8)))
    assert not any("patch" in content or "_codes" in content.get("state", {}) for content, _ in sent)


def test_a_change_is_described_in_the_status_line(snapshot):
    grid = PageGrid(snapshot((ABSENT, 8)))
    grid.show(snapshot((WP, 3), (ABSENT, 5)))
    assert grid._status == "3 pages (0–2): absent → present, not writable, uffd-wp"


def test_pages_is_the_selection_or_all_pages(snapshot):
    grid = PageGrid(snapshot((WP, 8)))
    assert grid.pages == slice(0, 8)
    grid.selection = [2, 3]
    assert list(range(8))[grid.pages] == [2, 3, 4]


@pytest.mark.parametrize("wrong", [[2], [2, 0], [7, 2], [-1, 2], [100, 1]])
def test_a_selection_outside_the_region_is_refused(snapshot, wrong):
    grid = PageGrid(snapshot((WP, 8)))
    with pytest.raises(traitlets.TraitError):
        grid.selection = wrong
    assert grid.selection == []


@pytest.mark.parametrize(
    ("wrong", "right"), [("befor", "before"), ("Mode", "mode"), ("snap", "snapshot"), ("layuot", "layout")]
)
def test_the_error_for_an_unknown_keyword_names_the_nearest(snapshot, wrong, right):
    with pytest.raises(TypeError, match=f"{wrong}.*did you mean '{right}'"):
        PageGrid(snapshot((WP, 8)), **{wrong: "side"})


def test_wrong_snapshots_and_modes_are_refused(snapshot):
    with pytest.raises(UsageError, match="no pages"):
        PageGrid(snapshot((WP, 8))[:0])
    with pytest.raises(UsageError, match="different pages"):
        PageGrid(snapshot((WP, 8)), snapshot((WP, 9)))
    with pytest.raises(traitlets.TraitError, match="side"):
        PageGrid(snapshot((WP, 8)), mode="sideways")


def test_a_huge_page_spans_its_pages(snapshot):
    grid = PageGrid(snapshot((0x80000000000000E7, 1024), level=2))
    assert {kind["span"] for kind in grid._kinds} == {512}
    assert PageGrid(snapshot((WP, 4)))._kinds[0]["span"] == 1


def test_the_level_of_an_absent_entry_is_no_change(snapshot):
    grid = PageGrid(snapshot((ABSENT, 4)), snapshot((ABSENT, 4), level=2))
    assert grid._codes == grid._before


def test_the_browser_can_request_an_entry(snapshot, sent):
    grid = PageGrid(snapshot((WP, 8), first=16), snapshot((ABSENT, 8), first=16))
    sent.clear()
    grid._message(grid, {"ask": "entry", "page": 17, "which": "after", "id": "a"}, [])
    grid._message(grid, {"ask": "entry", "page": 17, "which": "before", "id": "b"}, [])
    grid._message(grid, {"ask": "entry", "page": 99, "which": "after", "id": "c"}, [])
    after, before = (content for content, _ in sent)
    assert after["id"] == "a"
    assert "page frame 0x101" in after["entry"]["facts"]
    assert "0x1000011000" in after["entry"]["facts"]
    assert ["10", "uffd-wp", "1", "protected by userfaultfd"] in after["entry"]["rows"]
    assert before["entry"]["state"] == "absent"


def test_a_javascript_error_reaches_python(snapshot, capsys):
    grid = PageGrid(snapshot((WP, 8)))
    grid._message(grid, {"error": "TypeError: x is not a function"}, [])
    assert grid.errors == ["TypeError: x is not a function"]
    assert "TypeError: x is not a function" in capsys.readouterr().err


class Region:
    """A region that a grid follows; it is its own lab."""

    def __init__(self, *snapshots):
        self.lab, self.regions, self.touches, self.userfaultfds = self, (), (), ()
        self.start, self.page_size, self.pages = 0x10_0000_0000, 4096, 8
        self.timeline = Timeline()
        self.results = list(snapshots)

    def snapshot(self):
        taken = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(taken, Exception):
            raise taken
        self.timeline.add("snapshot", "by the grid", 0, None, taken)
        return taken


def test_a_grid_follows_timeline_entries_of_any_thread(snapshot):
    empty, filled = snapshot((ABSENT, 8)), snapshot((WP, 8))
    region = Region(empty, empty, filled)
    grid = PageGrid(empty).follow(region)
    region.timeline.add("ioctl", "UFFDIO_CONTINUE", 1)
    thread = threading.Thread(target=region.timeline.add, args=("touch", "read", 2))
    thread.start()
    thread.join()
    event_loop.run_in_loop(lambda: None)  # runs the callbacks of the thread
    assert grid.snapshot is filled


def test_a_new_kind_is_sent_before_the_pages_that_have_it(snapshot, sent):
    region = Region(snapshot((ABSENT, 8)), snapshot((WP, 3), (ABSENT, 5)))
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    sent.clear()
    region.timeline.add("ioctl", "UFFDIO_CONTINUE", 1)
    order = [
        "kinds" if "_kinds" in content.get("state", {}) else "patch" if "patch" in content else ""
        for content, _ in sent
    ]
    assert order.index("kinds") < order.index("patch")
    assert len(grid._kinds) == 2


def test_closing_leaves_no_listener(snapshot):
    region = Region(snapshot((ABSENT, 8)))
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    assert region.timeline._listeners
    grid.close()
    assert region.timeline._listeners == []


def test_a_grid_shows_that_its_lab_was_closed(snapshot, sent):
    region = Region(snapshot((ABSENT, 8)), UsageError("this lab is closed"))
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    region.timeline.add("ioctl", "x", 1)
    assert grid.ended == "this lab is closed"
    grid.close()
    assert region.timeline._listeners == []


# Without a kernel


def test_the_static_forms_have_the_pages_before_and_after(snapshot, tmp_path):
    grid = PageGrid(snapshot((WP, 4), (ABSENT, 4)), snapshot((ABSENT, 8)))
    assert grid.to_svg(tmp_path / "a.svg").startswith("<?xml")
    assert grid.to_png(tmp_path / "a.png").startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(grid.to_csv(tmp_path / "a.csv"))))
    assert [(row["when"], row["page"], row["uffd-wp"]) for row in (rows[0], rows[8])] == [
        ("before", "0", "0"),
        ("after", "0", "1"),
    ]
    assert len(rows) == 16
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.png", "a.csv"}


def test_html_is_one_file_with_its_data(snapshot, tmp_path):
    grid = PageGrid(snapshot((WP, 4), (ABSENT, 4), region="</script><b>"), None)
    page = grid.to_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == page
    assert not re.search(r'(src|href)="?http|^import ', page, re.MULTILINE)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data[0]["state"]["_meta"]["region"] == "</script><b>"
    assert "<b>" not in page.split("<script")[0]


def test_the_output_has_a_form_for_pages_without_a_kernel(snapshot):
    data, _ = PageGrid(snapshot((WP, 4)), snapshot((ABSENT, 4)))._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "4 pages (0–3): absent → present" in data["text/html"]
    assert 'alt="region-1' in data["text/html"]
    assert "image/png" in data
