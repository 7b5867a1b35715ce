from uffdlab.observations.page_walk import PageWalk, PageWalks
from uffdlab.pte import State
from uffdlab.witnesses.tables import Step

TABLE = 0x67
LEAF = 0x8000_0000_3FFC_FC65


def walk_to(entry, level=1, levels=4, address=0x10_0000_3000):
    above = [Step(at, at + 10, address >> 3 + 9 * at & 511, (at + 9) << 12 | TABLE) for at in range(levels, level, -1)]
    return PageWalk(
        address, [*above, Step(level, level + 10, address >> 3 + 9 * level & 511, entry)], what="page 3 of r"
    )


def test_each_level_has_a_name_a_place_an_entry_and_a_meaning():
    walk = walk_to(LEAF)
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
    assert [entry.name for entry in walk_to(LEAF, levels=5).entries] == ["PGD", "P4D", "PUD", "PMD", "PTE"]


def test_a_walk_to_a_huge_page_ends_at_the_pmd_with_the_frame_of_the_address():
    walk = walk_to(0x8000_0000_0740_08E7, level=2)
    assert walk.leaf.name == "PMD"
    assert walk.frame == 0x7400 + 3
    assert State.HUGE in walk.states


def test_an_empty_upper_entry_is_explained_as_a_missing_table():
    walk = walk_to(0, level=3)
    assert walk.frame is None
    assert walk.leaf.meaning == "empty: no PMD table, nothing is mapped here"


def test_walks_with_equal_frames_are_reported_as_the_same_page():
    assert PageWalks([walk_to(LEAF), walk_to(LEAF | 2)]).same_frame
    assert "same page" in PageWalks([walk_to(LEAF), walk_to(LEAF | 2)]).text
    assert "Not the same page" in PageWalks([walk_to(LEAF), walk_to(LEAF + (1 << 12))]).text
    partly_mapped = PageWalks([walk_to(LEAF), walk_to(0)])
    assert not partly_mapped.same_frame
    assert "in one of them only, at page frame 0x3ffcf" in partly_mapped.text
    assert "Mapped in none" in PageWalks([walk_to(0), walk_to(0)]).text
    html = PageWalks([walk_to(LEAF), walk_to(0, level=3)])._repr_html_()
    assert html.count('<th scope="row"') == 4
    assert html.count('<td style="text-align:left"></td>') == 2
