from uffdlab.observations.page_walk import PageWalk, PageWalks
from uffdlab.pte import State
from uffdlab.witnesses.tables import Step

TABLE = 0x67
LEAF = 0x8000_0000_3FFC_FC65


def to(entry, level=1, levels=4, address=0x10_0000_3000):
    above = [Step(at, at + 10, address >> 3 + 9 * at & 511, (at + 9) << 12 | TABLE) for at in range(levels, level, -1)]
    return PageWalk(
        address, [*above, Step(level, level + 10, address >> 3 + 9 * level & 511, entry)], what="page 3 of r"
    )


def test_every_level_has_its_name_place_entry_and_meaning():
    walk = to(LEAF)
    assert [entry.name for entry in walk.entries] == ["PGD", "PUD", "PMD", "PTE"]
    assert [row[1] for row in walk.rows()] == ["0xe[0]", "0xd[64]", "0xc[0]", "0xb[3]"]
    assert walk.entries[0].meaning == "PUD table at frame 0xd"
    assert walk.frame == 0x3FFCF
    assert State.UFFD_WP in walk.states
    assert walk.leaf.meaning == "present, not writable, uffd-wp, dirty, accessed, soft-dirty; page frame 0x3ffcf"
    assert sum(bit.value << bit.number for bit in walk.bits()) == LEAF
    assert "0x800000003ffcfc65" in str(walk)
    assert "page 3 of r" in walk._repr_html_()


def test_five_levels_have_a_p4d():
    assert [entry.name for entry in to(LEAF, levels=5).entries] == ["PGD", "P4D", "PUD", "PMD", "PTE"]


def test_a_huge_page_ends_above_and_its_frame_is_that_of_the_address():
    walk = to(0x8000_0000_0740_08E7, level=2)
    assert walk.leaf.name == "PMD"
    assert walk.frame == 0x7400 + 3
    assert State.HUGE in walk.states


def test_an_empty_entry_above_says_that_there_is_no_table():
    walk = to(0, level=3)
    assert walk.frame is None
    assert walk.leaf.meaning == "empty: no PMD table, nothing is mapped here"


def test_side_by_side_equal_frames_mean_one_page():
    assert PageWalks([to(LEAF), to(LEAF | 2)]).same_frame
    assert "same page" in PageWalks([to(LEAF), to(LEAF | 2)]).text
    assert "Not the same page" in PageWalks([to(LEAF), to(LEAF + (1 << 12))]).text
    one = PageWalks([to(LEAF), to(0)])
    assert not one.same_frame
    assert "in one of them only, at page frame 0x3ffcf" in one.text
    assert "Mapped in none" in PageWalks([to(0), to(0)]).text
    html = PageWalks([to(LEAF), to(0, level=3)])._repr_html_()
    assert html.count('<th scope="row"') == 4
    assert html.count('<td style="text-align:left"></td>') == 2
