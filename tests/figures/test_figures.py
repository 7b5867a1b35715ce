import base64
import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab import figures
from uffdlab.errors import UsageError
from uffdlab.figures.palette import CELL_STYLES, cell_styles
from uffdlab.observations.snapshot import Snapshot

WP = 0x8000_0000_03FF_CC65
RW = 0x8000_0000_01BF_1867
RO = RW & ~2
SWAP = 0x0FFF_FFFF_FFFF_3800
KINDS = [0, WP, RW, RO, SWAP]


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


BEFORE = snapshot_of([0] * 64)
AFTER = snapshot_of([WP] * 32 + [RW] * 16 + [0] * 16)


def cells(picture, panel=""):
    """Return the letters of the cells as drawn, in reading order."""
    found = {}
    for collection in picture.figure.axes[0].collections:
        label = collection.get_label()
        if label.startswith(panel) and label[len(panel) :] in [*CELL_STYLES, "*"]:
            for x, y in collection.get_offsets().tolist():
                found[round(y, 3), round(x, 3)] = label[len(panel) :]
    return [found[place] for place in sorted(found)]


def letters(snapshot):
    styles, which = cell_styles(snapshot.states, snapshot.known)
    return [styles[index].letter for index in which]


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=80), st.integers(0, 70))
def test_every_page_is_a_cell_with_its_letter(entries, first):
    snapshot = snapshot_of(entries, first=first)
    assert cells(figures.grid(snapshot)) == letters(snapshot)


def test_before_and_after_are_side_by_side():
    picture = figures.compare(BEFORE, AFTER)
    assert cells(picture, "before") == ["·"] * 64
    assert cells(picture, "after") == ["U"] * 32 + ["W"] * 16 + ["·"] * 16
    offsets = {
        panel: np.concatenate(
            [c.get_offsets() for c in picture.figure.axes[0].collections if c.get_label().startswith(panel)]
        )
        for panel in ("before", "after")
    }
    assert offsets["before"][:, 0].max() < offsets["after"][:, 0].min()


def test_the_picture_has_a_title_page_numbers_and_a_legend():
    shown = texts(figures.compare(BEFORE, AFTER))
    assert "region: 64 pages of 4 KiB on 6.1-series, seen by physical" in " ".join(shown)
    assert shown.count("56") == 2
    assert shown.count("+7") == 2
    assert "present, not writable, uffd-wp: 0 → 32" in shown
    assert "absent: 64 → 16" in shown
    assert not [text for text in shown if "swapped" in text]  # only states that occur


def test_each_panel_names_its_kernel_if_they_differ():
    other = snapshot_of([WP] * 64, kernel="debian/bookworm")
    shown = " ".join(texts(figures.compare(BEFORE, other)))
    assert "before, on 6.1-series, seen by physical" in shown
    assert "after, on debian/bookworm, seen by physical" in shown


def test_the_alt_text_describes_the_picture():
    assert figures.compare(BEFORE, AFTER).alt == (
        "region: 64 pages of 4 KiB on 6.1-series, seen by physical. Before: pages 0–63: absent. After: "
        "pages 0–31: present, not writable, uffd-wp; pages 32–47: present, writable, not uffd-wp; pages 48–63: absent."
    )
    many = figures.grid(snapshot_of([WP, RW] * 50)).alt
    assert "and 88 more groups" in many
    assert "50 present, writable" in many
    unknown = figures.grid(snapshot_of([1 << 63], form="pagemap", witness="pagemap")).alt
    assert "writable unknown" in unknown


def test_a_notebook_shows_an_image_with_alt_text():
    class Images(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attrs):
            if tag == "img":
                self.found.append(dict(attrs))

    picture = figures.compare(snapshot_of([0], region='"<b>'), snapshot_of([WP], region='"<b>'))
    data, metadata = picture._repr_mimebundle_()
    page = Images()
    page.feed(data["text/html"])
    (image,) = page.found
    assert image["alt"] == picture.alt
    assert metadata["image/png"]["alt"] == picture.alt
    assert "<b>" not in data["text/html"]
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert data["text/html"].count("<li>") == len(str(picture.difference).splitlines())
    assert data["text/plain"] == str(picture.difference)
    assert figures.grid(BEFORE)._repr_html_().startswith("<img alt=")


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_data_give_the_same_bytes(tmp_path, form):
    one, other = (figures.compare(BEFORE, AFTER).save(tmp_path / f"{name}.{form}") for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert len(one.read_bytes()) > 1000


def test_user_settings_and_pyplot_have_no_effect():
    plain = figures.compare(BEFORE, AFTER).png()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight", "text.color": "white"}):
        assert figures.compare(BEFORE, AFTER).png() == plain
    code = "import sys, uffdlab.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_svg_contains_the_alt_text():
    picture = figures.compare(BEFORE, AFTER)
    root = ET.fromstring(picture.svg())
    assert picture.alt in "".join(root.itertext())


@pytest.mark.parametrize("entries", [[WP], [WP] * 3, [RW] * 65, [WP, 0] * 150, [RO] * 2048, [WP] * 3000 + [RW] * 97])
def test_texts_are_inside_the_picture_and_do_not_overlap(entries):
    """Any warning is an error here, too."""
    check_layout(figures.compare(snapshot_of([0] * len(entries)), snapshot_of(entries)))
    check_layout(
        figures.compare(snapshot_of([0] * len(entries)), snapshot_of(entries, kernel="debian/trixie-backports"))
    )


def check_layout(picture):
    picture.png()
    renderer = picture.figure.canvas.get_renderer()
    axes = picture.figure.axes[0]
    width, height = picture.figure.canvas.get_width_height()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            assert not (
                one.x0 < other.x1 - 1 and other.x0 < one.x1 - 1 and one.y0 < other.y1 - 3 and other.y0 < one.y1 - 3
            )


def test_many_pages_share_cells_and_mixed_cells_are_marked():
    entries = [WP] * 4096 + [RW] * 4096
    entries[5] = 0
    picture = figures.grid(snapshot_of(entries))
    assert cells(picture) == ["*"] + ["U"] * 511 + ["W"] * 512
    shown = texts(picture)
    assert "pages in several states in a cell of 8 pages" in shown
    assert "absent: 1" in shown
    assert "+64" in shown
    alike = texts(figures.grid(snapshot_of([WP] * 4096)))
    assert any("a cell is 4 pages" in text for text in alike)


def test_names_that_the_font_lacks_or_that_look_like_formulas_are_drawn():
    picture = figures.grid(snapshot_of([WP], region="$x^2$ 漢\n\x00", kernel="/very/long/path/" + "to/a/kernel/" * 30))
    picture.png()
    shown = texts(picture)
    assert any("$x^2$ □" in text for text in shown)
    assert any(text.endswith("…") for text in shown)


def test_no_pages_and_different_pages_are_refused():
    with pytest.raises(UsageError, match="no pages to draw"):
        figures.grid(snapshot_of([]))
    with pytest.raises(UsageError, match="different pages"):
        figures.compare(BEFORE, snapshot_of([0]))


@pytest.mark.parametrize("name", ["picture", "picture.gif"])
def test_only_known_file_formats_are_written(tmp_path, name):
    with pytest.raises(UsageError, match=r"use \.png, \.svg, \.pdf"):
        figures.grid(BEFORE).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- tables


def test_the_entry_table_has_one_row_for_each_page_and_one_column_for_each_bit():
    table = figures.entry_table(snapshot_of([WP, RW, SWAP, 0], first=4), [4, 5, 6])
    rows = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    assert [row["page"] for row in rows] == ["4", "5", "6"]
    assert rows[0]["raw entry"] == f"{WP:#018x}"
    assert [row["writable (1)"] for row in rows] == ["0", "1", "0"]
    assert [row["uffd-wp (10)"] for row in rows] == ["1", "0", "0"]
    assert [row["dirty (6)"] for row in rows] == ["1", "1", "?"]
    assert [row["frame"] for row in rows] == ["0x3ffc", "0x1bf1", ""]
    assert rows[0]["state"] == "present, not writable, uffd-wp, dirty, accessed, soft-dirty"
    assert str(table).splitlines()[1].split()[:2] == ["page", "raw"]
    assert table._repr_html_().count('scope="row"') == 3


def test_the_entry_table_has_question_marks_for_unknown_bits():
    table = figures.entry_table(
        snapshot_of([1 << 63 | 1 << 57], form="pagemap", witness="pagemap", levels=np.array([0]))
    )
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert (row["present (63)"], row["uffd-wp (57)"], row["writable"], row["level"]) == ("1", "1", "?", "?")


def test_without_pages_given_the_first_page_of_each_group_is_shown():
    assert [row[0] for row in figures.entry_table(AFTER).rows] == ["0", "32", "48"]
    assert figures.entry_table(snapshot_of([WP, RW] * 20)).note == "the first pages of 16 groups of 40"


def test_one_entry_is_shown_bit_by_bit():
    table = figures.entry(AFTER, 3)
    rows = {row[1]: row for row in table.rows}
    assert rows["uffd-wp"][:3] == ("10", "uffd-wp", "1")
    assert rows["frame"][0] == "51–12"
    assert "0x8000000003ffcc65 in a PTE" in table.title


@pytest.mark.parametrize("page", [-1, 64])
def test_pages_outside_the_snapshot_are_refused(page):
    with pytest.raises(UsageError, match="pages 0 to 63"):
        figures.entry_table(AFTER, [page])
    with pytest.raises(UsageError, match="pages 0 to 63"):
        figures.entry(AFTER, page)


def test_what_is_not_a_snapshot_is_not_compared():
    with pytest.raises(UsageError, match=r"takes a Snapshot, not 1; region\.snapshot\(\) returns one"):
        figures.compare(1, AFTER)


def test_in_a_dark_theme_the_text_is_light_and_the_background_that_of_the_page():
    picture = figures.compare(BEFORE, AFTER)
    light, dark = (
        np.asarray(mpl.image.imread(io.BytesIO(png), format="png")) for png in (picture.png(), picture.dark_png())
    )
    assert light[0, 0].tolist() == [1, 1, 1, 1]
    assert dark[0, 0, 3] == 0
    # The title is in these rows: it is dark in one picture and light in the other.
    title = slice(40, 70)
    assert light[title, :, :3].min() < 0.2
    assert dark[title][dark[title, :, 3] > 0.9][:, :3].min() > 0.8
    # The colours of the cells are the same.
    blue = [0, 0x72 / 255, 0xB2 / 255, 1]
    assert np.isclose(light, blue).all(axis=2).sum() > 1000
    assert np.isclose(light, blue).all(axis=2).sum() == np.isclose(dark, blue).all(axis=2).sum()
    # An absent page is dark in a dark theme.
    assert np.isclose(light[..., :3], 0xF1 / 255).all(axis=2).sum() > 1000
    assert not np.isclose(dark[..., :3], 0xF1 / 255).all(axis=2).any()
    assert np.isclose(dark[..., :3], 0x2E / 255).all(axis=2).sum() > 1000
    assert picture.png() == figures.compare(BEFORE, AFTER).png()
