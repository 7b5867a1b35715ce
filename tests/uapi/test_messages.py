from uffdlab import uapi
from uffdlab.uapi import FaultFlag
from uffdlab.uapi.messages import Fault, Message


def fault(flags: int, page: int | None = 3) -> Fault:
    return Fault(page, "region-1", 0x1000003000, FaultFlag(flags), 7, 1)


def test_a_fault_is_printed_with_its_page_access_and_kind():
    assert repr(fault(FaultFlag.WRITE | FaultFlag.WP)) == "Fault(page=3, write, wp)"
    assert repr(fault(FaultFlag.MINOR)) == "Fault(page=3, read, minor)"
    assert repr(fault(0)) == "Fault(page=3, read, missing)"
    assert repr(fault(FaultFlag.WRITE, page=None)) == "Fault(address=0x1000003000, write, missing)"


def test_unknown_flags_of_a_fault_are_printed_as_a_number():
    assert repr(fault(FaultFlag.WRITE | FaultFlag.WP | 1 << 20)) == "Fault(page=3, write, wp, 0x100000)"


def test_a_read_write_protect_fault_is_not_missing():
    assert not fault(FaultFlag.RWP).missing
    assert "RWP" in repr(fault(FaultFlag.RWP))


def test_other_messages_are_printed_with_their_arguments():
    assert repr(Message(uapi.Event.REMOVE, (0x1000, 0x2000), 1)) == "Message(REMOVE, 0x1000, 0x2000)"
    assert repr(Message(0x77, (1, 2, 3), 1)) == "Message(event 0x77, 0x1, 0x2, 0x3)"
