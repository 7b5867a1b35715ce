import csv
import io
import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Snapshot, page_ranges
from uffdlab.pte import ALL, FORMATS, MAPPING, State, decode_x86

WP = 0x8000_0000_03FF_CC65
RW = 0x8000_0000_01BF_1867
MARKER = (~1 & ((1 << 50) - 1)) << 9 | 31 << 59


def snapshot_of(entries, **keywords):
    keywords = {
        "region": "region",
        "start": 0x7F00_0000_0000,
        "page_size": 4096,
        "witness": "physical",
        "levels": np.ones(len(entries), dtype=np.uint8),
        "kernel": "6.1-series",
    } | keywords
    return Snapshot(entries=np.array(entries, dtype=np.uint64), **keywords)


SNAPSHOTS = st.builds(
    lambda entries, form, first, vma_soft_dirty, hugetlb: snapshot_of(
        entries, form=form, first=first, vma_soft_dirty=vma_soft_dirty, hugetlb=hugetlb
    ),
    st.lists(st.one_of(st.sampled_from([0, WP, RW, MARKER]), st.integers(0, (1 << 64) - 1)), max_size=40),
    st.sampled_from(list(FORMATS)),
    st.integers(0, 100),
    st.booleans(),
    st.booleans(),
)


def test_states_come_from_the_entries():
    snapshot = snapshot_of([WP, RW, 0])
    states, known = decode_x86([WP, RW, 0], 1)
    assert snapshot.states.tolist() == states.tolist()
    assert snapshot.known.tolist() == known.tolist()
    assert snapshot.has(State.UFFD_WP).tolist() == [True, False, False]
    assert snapshot.lacks(State.WRITABLE).tolist() == [True, False, True]
    assert snapshot.knows(State.EXCLUSIVE).tolist() == [False, False, True]
    assert snapshot.has(State.PRESENT | State.WRITABLE).tolist() == [False, True, False]


def test_has_and_lacks_are_both_false_for_an_unknown_bit():
    snapshot = snapshot_of([1 << 63], form="pagemap")
    assert not snapshot.has(State.WRITABLE)[0]
    assert not snapshot.lacks(State.WRITABLE)[0]
    assert State.WRITABLE in snapshot.unknown


def test_an_argument_that_is_not_a_state_is_refused():
    for query in (snapshot_of([WP]).has, snapshot_of([WP]).lacks, snapshot_of([WP]).knows):
        with pytest.raises(UsageError, match=r"'present' is not a State; give State\.PRESENT"):
            query("present")
    assert snapshot_of([WP]).has(np.uint32(State.PRESENT)).all()


def test_groups_merge_neighbours_with_equal_state():
    snapshot = snapshot_of([WP] * 32 + [RW] * 16 + [0] * 15 + [MARKER])
    assert [str(group) for group in snapshot.groups()] == [
        "pages 0–31: present, not writable, uffd-wp, dirty, accessed, soft-dirty",
        "pages 32–47: present, writable, not uffd-wp, dirty, accessed, soft-dirty",
        "pages 48–62: absent",
        "page 63: marker, uffd-wp",
    ]
    assert [group.size for group in snapshot.groups()] == [32, 16, 15, 1]
    # with MAPPING the accessed bit makes no difference
    mixed = snapshot_of([WP, WP & ~(1 << 5), RW])
    assert len(mixed.groups()) == 3
    assert [str(group) for group in mixed.groups(MAPPING)] == [
        "pages 0–1: present, not writable, uffd-wp",
        "page 2: present, writable, not uffd-wp",
    ]


@given(SNAPSHOTS)
def test_each_page_is_in_one_group_that_has_its_states(snapshot):
    pages = []
    groups = snapshot.groups()
    for group in groups:
        assert group.size > 0
        for page in range(group.first, group.last + 1):
            index = page - snapshot.first
            assert (snapshot.states[index], snapshot.known[index]) == (group.states, group.known)
            pages.append(page)
    assert pages == list(snapshot.pages)
    for first, second in itertools.pairwise(groups):
        assert (first.states, first.known) != (second.states, second.known)


@given(SNAPSHOTS)
def test_the_counts_of_a_state_add_up_to_all_pages(snapshot):
    for state, count in snapshot.counts().items():
        assert sum(count) == len(snapshot)
        assert count.yes == snapshot.has(state).sum()
        assert count.no == snapshot.lacks(state).sum()


@given(SNAPSHOTS, st.integers(-50, 50), st.integers(-50, 50))
def test_a_slice_has_the_data_of_its_pages(snapshot, low, high):
    part = snapshot[low:high]
    assert (
        part.entries.tolist() == snapshot.entries[low:high].tolist()
        if len(part)
        else len(snapshot.entries[low:high]) == 0
    )
    assert part.states.tolist() == snapshot.states[low:high].tolist()
    assert part.known.tolist() == snapshot.known[low:high].tolist()
    assert list(part.pages) == list(snapshot.pages)[low:high]
    assert part.addresses.tolist() == snapshot.addresses[low:high].tolist()
    assert part.frames().tolist() == snapshot.frames()[low:high].tolist()


def test_an_index_selects_one_page():
    snapshot = snapshot_of([WP, RW, 0], first=8)
    assert snapshot[1].pages == range(9, 10)
    assert snapshot[-1].lacks(State.PRESENT).all()
    assert [str(page.groups()[0]) for page in snapshot][2] == "page 10: absent"
    with pytest.raises(IndexError, match="pages 0 to 2"):
        snapshot[3]
    with pytest.raises(UsageError, match="step of 2"):
        snapshot[::2]


def test_each_page_in_a_huge_page_has_a_frame_of_its_own():
    start = 0x7F00_0020_0000 - 2 * 4096
    entry = 0x4000_0000 | 0xE7
    snapshot = snapshot_of([entry] * 4, start=start, levels=np.full(4, 2, dtype=np.uint8))
    assert snapshot.frames().tolist() == [0x401FE, 0x401FF, 0x40000, 0x40001]


def test_a_snapshot_cannot_be_changed():
    entries = np.array([WP], dtype=np.uint64)
    snapshot = snapshot_of(entries)
    for array in (snapshot.entries, snapshot.levels, snapshot.states, snapshot.known):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        snapshot.start = 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"levels": np.ones(2, dtype=np.uint8)}, "one entry and one level a page"),
        ({"levels": np.array([300])}, "levels must be from 0 to 255"),
        ({"levels": np.array([-1])}, "levels must be from"),
        ({"levels": np.array([1.0])}, "not float64"),
        ({"page_size": 3000}, "power of two"),
        ({"page_size": 0}, "power of two"),
        ({"start": 0x1001}, "start=0x1001"),
        ({"first": -1}, "not a page number"),
        ({"form": "sparc"}, "'sparc' is not one of"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(keywords, message):
    with pytest.raises(UsageError, match=message):
        snapshot_of([WP], **keywords)


def test_an_empty_snapshot_has_no_groups_and_no_changes():
    snapshot = snapshot_of([])
    assert len(snapshot) == 0
    assert snapshot.groups() == []
    assert "no pages" in str(snapshot)
    assert not snapshot - snapshot_of([])
    assert str(snapshot - snapshot) == "no change on 0 pages"


# --- differences


def test_a_difference_is_printed_with_one_line_for_each_change():
    before, after = snapshot_of([0] * 64), snapshot_of([WP] * 32 + [RW] * 16 + [0] * 16)
    difference = after - before
    assert str(difference).splitlines() == [
        "32 pages (0–31): absent → present, not writable, uffd-wp",
        "16 pages (32–47): absent → present, writable, not uffd-wp",
        "16 pages unchanged",
    ]
    assert len(difference) == 48
    assert difference
    assert not (after - after)


def test_only_bits_that_both_snapshots_know_are_compared():
    before, after = (
        snapshot_of([0], form="pagemap", levels=np.zeros(1, dtype=np.uint8), witness="pagemap"),
        snapshot_of([WP]),
    )
    difference = after - before
    assert difference.bits[0] == State.PRESENT | State.UFFD_WP | State.SOFT_DIRTY


def test_a_different_frame_is_a_change():
    difference = snapshot_of([RW + 0x1000]) - snapshot_of([RW])
    assert str(difference) == (
        "1 page (0): present, writable, not uffd-wp, dirty, accessed, soft-dirty → "
        "present, writable, not uffd-wp, dirty, accessed, soft-dirty (another page frame)"
    )


def test_a_change_of_a_present_page_names_the_bits_that_changed():
    difference = snapshot_of([RW, RW, 0]) - snapshot_of([WP, WP, RW])
    changes = difference.changes()
    assert changes[0].bits == "now writable, no longer uffd-wp"
    assert str(changes[0]) == "2 pages (0–1): now writable, no longer uffd-wp (another page frame)"
    assert str(changes[1]) == "1 page (2): present, writable, not uffd-wp → absent"
    assert changes[1].before == "present, writable, not uffd-wp, dirty, accessed, soft-dirty"
    assert "now writable, no longer uffd-wp, another page frame" in difference._repr_html_()


def test_changes_that_differ_only_in_dirty_name_it():
    difference = snapshot_of([RW, RW & ~(1 << 6), 0]) - snapshot_of([0, 0, RW])
    assert [str(change).partition(": ")[2] for change in difference.changes()] == [
        "absent → present, writable, not uffd-wp, dirty, accessed, soft-dirty",
        "absent → present, writable, not uffd-wp, accessed, soft-dirty",
        "present, writable, not uffd-wp → absent",
    ]


def test_different_pages_are_not_compared():
    with pytest.raises(UsageError, match="different pages"):
        _ = snapshot_of([WP]) - snapshot_of([WP], first=1)
    with pytest.raises(TypeError):
        _ = snapshot_of([WP]) - 3


@given(SNAPSHOTS, SNAPSHOTS)
def test_each_changed_page_is_in_one_change(one, other):
    size = min(len(one), len(other))
    before = one[:size]
    after = snapshot_of(other.entries[:size], form=other.form, first=before.first, hugetlb=other.hugetlb)
    difference = after - before
    pages = sorted(page for change in difference.changes() for page in change.pages)
    assert pages == (np.flatnonzero(difference.changed) + before.first).tolist()
    json.dumps(difference.to_dict())


@given(st.sets(st.integers(0, 200)))
def test_page_ranges_list_every_page_or_end_with_an_ellipsis(pages):
    text = page_ranges(pages)
    found = set()
    for part in text.removesuffix(", …").split(", ") if text else []:
        low, _, high = part.partition("–")
        found |= set(range(int(low), int(high or low) + 1))
    if text.endswith("…"):
        assert found < pages
    else:
        assert found == pages


# --- HTML, JSON, CSV and data frames


def test_html_is_escaped_and_has_headers():
    page = snapshot_of([WP, 0], region="<b>&", kernel="</table>")._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert page.count("</table>") == 1
    assert 'scope="col"' in page
    assert 'scope="row"' in page
    difference = (snapshot_of([0], region="<i>") - snapshot_of([WP], region="<i>"))._repr_html_()
    assert "<i>" not in difference


@given(SNAPSHOTS)
def test_a_snapshot_from_json_equals_the_original(snapshot):
    restored = Snapshot.from_dict(json.loads(snapshot.to_json()))
    assert restored.to_dict() == snapshot.to_dict()
    assert restored.states.tolist() == snapshot.states.tolist()


@pytest.mark.parametrize("data", [{}, {"entries": ["x"], "levels": [1]}, {"entries": [3], "levels": [1]}])
def test_json_that_is_no_snapshot_is_refused(data):
    with pytest.raises(UsageError, match="not the data of a snapshot"):
        Snapshot.from_dict(data)


def test_csv_has_one_line_for_each_page_and_a_question_mark_for_an_unknown_bit(tmp_path):
    snapshot = snapshot_of([WP, MARKER], first=3)
    text = snapshot.to_csv(tmp_path / "pages.csv")
    assert (tmp_path / "pages.csv").read_text(encoding="utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["page"] for row in rows] == ["3", "4"]
    assert rows[0]["entry"] == f"{WP:#018x}"
    assert (rows[0]["writable"], rows[0]["uffd-wp"], rows[0]["exclusive"]) == ("0", "1", "?")
    assert (rows[1]["marker"], rows[1]["frame"]) == ("1", "")


def test_a_million_pages_are_grouped_and_counted_without_a_warning():
    snapshot = snapshot_of(np.full(1 << 20, WP, dtype=np.uint64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(snapshot.groups()) == 1
        assert snapshot.counts()[State.UFFD_WP].yes == 1 << 20
        assert snapshot.unknown == State.EXCLUSIVE | State.FILE
    assert snapshot.unknown & ALL == snapshot.unknown


def test_a_data_frame_has_na_for_an_unknown_bit():
    pandas = pytest.importorskip("pandas")
    entries = np.array([1 << 63 | 1 << 57 | 0x42, 0], dtype=np.uint64)
    one = Snapshot("r", 0x5000, 4096, "pagemap", entries, np.zeros(2, np.uint8), first=5, form="pagemap")
    table = one.to_pandas()
    assert table.index.tolist() == [5, 6]
    assert table["uffd-wp"].tolist() == [True, False]
    assert table["writable"].isna().all()
    assert table["level"].isna().all()
    assert table["frame"][5] == 0x42
    assert table["frame"][6] is pandas.NA
    assert list(table)[:4] == ["address", "entry", "level", "frame"]


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    one = Snapshot("r", 0, 4096, "physical", np.zeros(1, np.uint64), np.ones(1, np.uint8))
    with pytest.raises(UsageError, match="pip install pandas"):
        one.to_pandas()


def test_filter_returns_runs_of_pages():
    entries = np.array([0, 0x867, 0x867, 0, 0x867], dtype=np.uint64)
    runs = Snapshot("r", 0, 4096, "physical", entries, np.ones(5, np.uint8)).filter(State.PRESENT | State.WRITABLE)
    assert [(run.first, len(run)) for run in runs] == [(1, 2), (4, 1)]
