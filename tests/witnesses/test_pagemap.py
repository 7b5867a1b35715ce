import struct

from uffdlab.pte import State
from uffdlab.uapi.protocol.witnesses import PagemapEntries
from uffdlab.witnesses.pagemap import PagemapWitness


class Region:
    name, start, pages, page_size = "region", 0x7F00_0000_0000, 64, 4096


def answer(*entries, vma_soft_dirty=False, hugetlb=False):
    return PagemapEntries(hugetlb, vma_soft_dirty, 5, struct.pack(f"<{len(entries)}Q", *entries))


def test_the_witness_asks_for_the_range_and_decodes_the_answer():
    asked = []

    def read(*arguments):
        asked.append(arguments)
        return answer(1 << 63 | 1 << 57 | 1 << 61 | 0x42, 0)

    snapshot = PagemapWitness(read, kernel="6.1-series").read(Region, 3, 2)
    assert asked == [(0x7F00_0000_3000, 2, 4096)]
    assert snapshot.has(State.PRESENT | State.UFFD_WP | State.FILE).tolist() == [True, False]
    assert not snapshot.knows(State.WRITABLE).any()
    assert snapshot.frames().tolist() == [0x42, -1]
    assert (snapshot.witness, snapshot.kernel, snapshot.time_ns, snapshot.first) == ("pagemap", "6.1-series", 5, 3)


def test_the_soft_dirty_bits_of_a_new_mapping_are_unknown():
    entry = 1 << 63 | 1 << 55
    plain, new = (
        PagemapWitness(lambda *_, dirty=dirty: answer(entry, vma_soft_dirty=dirty)).read(Region, 0, 1)
        for dirty in (False, True)
    )
    assert plain.has(State.SOFT_DIRTY).all()
    assert not new.knows(State.SOFT_DIRTY).any()
