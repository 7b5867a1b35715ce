import struct

import pytest

from uffdlab.errors import AgentError, TargetLost, WitnessError
from uffdlab.pte import State
from uffdlab.uapi.protocol.witnesses import TableEntries
from uffdlab.witnesses.kernel import KernelWitness

LEAF = 0x8000_0000_3FFC_FC65


class Region:
    name, start, pages, page_size = "region", 0x7F00_0000_0000, 64, 4096


def answer(*entries):
    return TableEntries(b"".join(struct.pack("<QII", *entry) for entry in entries), time_ns=5)


def read(reply, count):
    return KernelWitness(lambda *_: reply).read(Region, 2, count)


def test_each_entry_has_the_level_that_was_answered():
    found = read(answer((LEAF, 1, 0), (0, 2, 0), (LEAF | 1 << 7, 2, 0)), 3)
    assert found.levels.tolist() == [1, 2, 2]
    assert found.has(State.PRESENT | State.UFFD_WP).tolist() == [True, False, True]
    assert found.lacks(State.WRITABLE).all()
    assert found.has(State.HUGE).tolist() == [False, False, True]
    assert (found.first, found.time_ns, found.witness, found.form) == (2, 5, "kernel", "x86-64")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer((LEAF, 1, 0), (LEAF, 9, 0)), "another version"),
        (answer((LEAF, 1, 0), (LEAF, 1, 1)), "another version"),
        (answer((LEAF, 1, 0), (0, 0, 0)), "page 3 is not mapped"),
    ],
)
def test_an_impossible_answer_is_an_error(reply, message):
    with pytest.raises(WitnessError, match=message) as caught:
        read(reply, 2)
    assert caught.value.witness == "kernel"


@pytest.mark.parametrize(
    ("refusal", "message"),
    [(TargetLost("killed"), "target has ended"), (AgentError("no /dev/pte_reader", kind="no-witness"), "pte_reader")],
)
def test_a_refusal_of_the_agent_names_the_witness(refusal, message):
    def refuse(*_):
        raise refusal

    with pytest.raises(WitnessError, match=message) as caught:
        KernelWitness(refuse).read(Region, 0, 1)
    assert caught.value.witness == "kernel"
