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


def snap(entries, **keywords):
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
    lambda entries, form, first, sd, ht: snap(entries, form=form, first=first, vma_soft_dirty=sd, hugetlb=ht),
    st.lists(st.one_of(st.sampled_from([0, WP, RW, MARKER]), st.integers(0, (1 << 64) - 1)), max_size=40),
    st.sampled_from(list(FORMATS)),
    st.integers(0, 100),
    st.booleans(),
    st.booleans(),
)


def test_states_come_from_the_entries():
    snapshot = snap([WP, RW, 0])
    states, known = decode_x86([WP, RW, 0], 1)
    assert snapshot.states.tolist() == states.tolist()
    assert snapshot.known.tolist() == known.tolist()
    assert snapshot.has(State.UFFD_WP).tolist() == [True, False, False]
    assert snapshot.lacks(State.WRITABLE).tolist() == [True, False, True]
    assert snapshot.knows(State.EXCLUSIVE).tolist() == [False, False, True]
    assert snapshot.has(State.PRESENT | State.WRITABLE).tolist() == [False, True, False]


def test_an_unknown_bit_is_neither_had_nor_lacked():
    snapshot = snap([1 << 63], form="pagemap")
    assert not snapshot.has(State.WRITABLE)[0]
    assert not snapshot.lacks(State.WRITABLE)[0]
    assert State.WRITABLE in snapshot.unknown


def test_what_is_not_a_state_is_refused():
    for ask in (snap([WP]).has, snap([WP]).lacks, snap([WP]).knows):
        with pytest.raises(UsageError, match=r"'present' is not a State; give State\.PRESENT"):
            ask("present")
    assert snap([WP]).has(np.uint32(State.PRESENT)).all()


def test_groups_merge_neighbours_with_equal_state():
    snapshot = snap([WP] * 32 + [RW] * 16 + [0] * 15 + [MARKER])
    assert [str(group) for group in snapshot.groups()] == [
        "pages 0–31: present, not writable, uffd-wp, dirty, accessed, soft-dirty",
        "pages 32–47: present, writable, not uffd-wp, dirty, accessed, soft-dirty",
        "pages 48–62: absent",
        "page 63: marker, uffd-wp",
    ]
    assert [group.size for group in snapshot.groups()] == [32, 16, 15, 1]
    # accessed or not makes no difference unless asked for
    mixed = snap([WP, WP & ~(1 << 5), RW])
    assert len(mixed.groups()) == 3
    assert [str(group) for group in mixed.groups(MAPPING)] == [
        "pages 0–1: present, not writable, uffd-wp",
        "page 2: present, writable, not uffd-wp",
    ]


@given(SNAPSHOTS)
def test_groups_cover_every_page_once_and_hold_for_each(snapshot):
    pages = []
    groups = snapshot.groups()
    for group in groups:
        assert group.size > 0
        for page in range(group.first, group.last + 1):
            index = page - snapshot.first
            assert (snapshot.states[index], snapshot.known[index]) == (group.states, group.known)
            pages.append(page)
    assert pages == list(snapshot.pages)
    for one, other in itertools.pairwise(groups):
        assert (one.states, one.known) != (other.states, other.known)


@given(SNAPSHOTS)
def test_counts_add_up(snapshot):
    for state, count in snapshot.counts().items():
        assert sum(count) == len(snapshot)
        assert count.yes == snapshot.has(state).sum()
        assert count.no == snapshot.lacks(state).sum()


@given(SNAPSHOTS, st.integers(-50, 50), st.integers(-50, 50))
def test_slices_are_parts(snapshot, low, high):
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


def test_one_page():
    snapshot = snap([WP, RW, 0], first=8)
    assert snapshot[1].pages == range(9, 10)
    assert snapshot[-1].lacks(State.PRESENT).all()
    assert [str(page.groups()[0]) for page in snapshot][2] == "page 10: absent"
    with pytest.raises(IndexError, match="pages 0 to 2"):
        snapshot[3]
    with pytest.raises(UsageError, match="step of 2"):
        snapshot[::2]


def test_frames_within_a_huge_page():
    start = 0x7F00_0020_0000 - 2 * 4096
    entry = 0x4000_0000 | 0xE7
    snapshot = snap([entry] * 4, start=start, levels=np.full(4, 2, dtype=np.uint8))
    assert snapshot.frames().tolist() == [0x401FE, 0x401FF, 0x40000, 0x40001]


def test_nothing_done_to_a_snapshot_changes_it():
    entries = np.array([WP], dtype=np.uint64)
    snapshot = snap(entries)
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
def test_parts_that_do_not_fit_are_refused(keywords, message):
    with pytest.raises(UsageError, match=message):
        snap([WP], **keywords)


def test_an_empty_snapshot():
    snapshot = snap([])
    assert len(snapshot) == 0
    assert snapshot.groups() == []
    assert "no pages" in str(snapshot)
    assert not snapshot - snap([])
    assert str(snapshot - snapshot) == "no change on 0 pages"


# --- differences


def test_a_difference_has_a_sentence_as_its_text():
    before, after = snap([0] * 64), snap([WP] * 32 + [RW] * 16 + [0] * 16)
    difference = after - before
    assert str(difference).splitlines() == [
        "32 pages (0–31): absent → present, not writable, uffd-wp, dirty, accessed, soft-dirty",
        "16 pages (32–47): absent → present, writable, not uffd-wp, dirty, accessed, soft-dirty",
        "16 pages unchanged",
    ]
    assert len(difference) == 48
    assert difference
    assert not (after - after)


def test_only_bits_both_know_are_compared():
    before, after = snap([0], form="pagemap", levels=np.zeros(1, dtype=np.uint8), witness="pagemap"), snap([WP])
    difference = after - before
    assert difference.bits[0] == State.PRESENT | State.UFFD_WP | State.SOFT_DIRTY


def test_another_frame_is_a_change():
    difference = snap([RW + 0x1000]) - snap([RW])
    assert str(difference) == (
        "1 page (0): present, writable, not uffd-wp, dirty, accessed, soft-dirty → "
        "present, writable, not uffd-wp, dirty, accessed, soft-dirty (another page frame)"
    )


def test_different_pages_are_not_compared():
    with pytest.raises(UsageError, match="different pages"):
        _ = snap([WP]) - snap([WP], first=1)
    with pytest.raises(TypeError):
        _ = snap([WP]) - 3


@given(SNAPSHOTS, SNAPSHOTS)
def test_changes_name_each_changed_page_once(one, other):
    size = min(len(one), len(other))
    before = one[:size]
    after = snap(other.entries[:size], form=other.form, first=before.first, hugetlb=other.hugetlb)
    difference = after - before
    pages = sorted(page for change in difference.changes() for page in change.pages)
    assert pages == (np.flatnonzero(difference.changed) + before.first).tolist()
    json.dumps(difference.to_dict())


@given(st.sets(st.integers(0, 200)))
def test_page_ranges_name_every_page(pages):
    text = page_ranges(pages)
    found = set()
    for part in text.removesuffix(", …").split(", ") if text else []:
        low, _, high = part.partition("–")
        found |= set(range(int(low), int(high or low) + 1))
    if text.endswith("…"):
        assert found < pages
    else:
        assert found == pages


# --- for the eye, and for programs


def test_html_is_escaped_and_has_headers():
    page = snap([WP, 0], region="<b>&", kernel="</table>")._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert page.count("</table>") == 1
    assert 'scope="col"' in page
    assert 'scope="row"' in page
    difference = (snap([0], region="<i>") - snap([WP], region="<i>"))._repr_html_()
    assert "<i>" not in difference


@given(SNAPSHOTS)
def test_json_comes_back(snapshot):
    again = Snapshot.from_dict(json.loads(snapshot.to_json()))
    assert again.to_dict() == snapshot.to_dict()
    assert again.states.tolist() == snapshot.states.tolist()


@pytest.mark.parametrize("data", [{}, {"entries": ["x"], "levels": [1]}, {"entries": [3], "levels": [1]}])
def test_other_json_is_refused(data):
    with pytest.raises(UsageError, match="not the data of a snapshot"):
        Snapshot.from_dict(data)


def test_csv_has_a_line_a_page_and_question_marks(tmp_path):
    snapshot = snap([WP, MARKER], first=3)
    text = snapshot.to_csv(tmp_path / "pages.csv")
    assert (tmp_path / "pages.csv").read_text(encoding="utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["page"] for row in rows] == ["3", "4"]
    assert rows[0]["entry"] == f"{WP:#018x}"
    assert (rows[0]["writable"], rows[0]["uffd-wp"], rows[0]["exclusive"]) == ("0", "1", "?")
    assert (rows[1]["marker"], rows[1]["frame"]) == ("1", "")


def test_a_million_pages_without_a_warning():
    snapshot = snap(np.full(1 << 20, WP, dtype=np.uint64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(snapshot.groups()) == 1
        assert snapshot.counts()[State.UFFD_WP].yes == 1 << 20
        assert snapshot.unknown == State.EXCLUSIVE | State.FILE
    assert snapshot.unknown & ALL == snapshot.unknown


def test_a_data_frame_has_na_where_a_bit_is_not_known():
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


def test_without_pandas_it_says_what_to_do(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    one = Snapshot("r", 0, 4096, "physical", np.zeros(1, np.uint64), np.ones(1, np.uint8))
    with pytest.raises(UsageError, match="pip install pandas"):
        one.to_pandas()


def test_filter_gives_runs_of_pages():
    entries = np.array([0, 0x867, 0x867, 0, 0x867], dtype=np.uint64)
    runs = Snapshot("r", 0, 4096, "physical", entries, np.ones(5, np.uint8)).filter(State.PRESENT | State.WRITABLE)
    assert [(run.first, len(run)) for run in runs] == [(1, 2), (4, 1)]
