"""An answer of a guest has the fields and types of uapi.protocol, or a ProtocolError names the field."""

import pytest

from uffdlab import errors
from uffdlab.machines.rpc import decoding
from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol.agent import FilesExist, MakeProgramFolder, ReadClock
from uffdlab.uapi.protocol.target import (
    CallIoctl,
    IoctlAnswer,
    MapMemory,
    MappedMemory,
    RunBatch,
    StartTouch,
    WithdrawTouch,
)
from uffdlab.uapi.protocol.witnesses import ReadEntries, ReadPagemap, ScanPages

from ...target.touch_results import touch_result
from ..agents import in_thread

WAKE = CallIoctl(1, "UFFDIO_WAKE", {"start": 0, "len": 4096}, None)
WOKEN = {"errno": 0, "fields": {"start": 0, "len": 4096}, "started_ns": 5, "ended_ns": 9}
MAP = MapMemory("shmem", 4, 4096)
MAPPED = {"number": 1, "start": 0x10_0000_0000, "alias": 0x20_0000_0000}
PAGEMAP = ReadPagemap(0x10_0000_0000, 2, 4096)
ENTRIES = {"hugetlb": False, "vma_soft_dirty": False, "time_ns": 1, "entries": bytes(16)}


def test_an_answer_has_the_type_of_its_method(agent):
    agent.hello()
    pending = in_thread(agent.client.ask, WAKE, 3.0)
    _, number, method, params = agent.receive()
    assert (method, params) == ("target.ioctl", [3.0, 1, "UFFDIO_WAKE", {"start": 0, "len": 4096}, None])
    agent.send([1, number, None, WOKEN])
    assert pending.result(5) == IoctlAnswer(started_ns=5, ended_ns=9, errno=0, fields={"start": 0, "len": 4096})


def test_a_wrong_answer_is_a_protocol_error_and_the_next_call_succeeds(agent):
    agent.hello()
    pending = in_thread(agent.client.ask, MAP, 3.0)
    agent.send([1, agent.receive()[1], None, {**MAPPED, "start": "here"}])
    with pytest.raises(errors.ProtocolError, match=r"target\.map: .*`\$\.start`"):
        pending.result(5)
    pending = in_thread(agent.client.ask, ReadClock(), 3.0)
    agent.send([1, agent.receive()[1], None, 77])
    assert pending.result(5) == 77


@pytest.mark.parametrize("field", MAPPED)
@pytest.mark.parametrize("value", [None, "x", b"x", -1, 1.0, float("nan"), True, 1 << 63, (1 << 64) - 1, 1 << 100, []])
def test_a_field_of_another_type_or_out_of_range_is_refused(field, value):
    with pytest.raises(Malformed, match=f"the answer to target.map: .*{field}"):
        decoding.answer(MAP, {**MAPPED, field: value})


@pytest.mark.parametrize("field", WOKEN)
def test_a_missing_field_is_refused(field):
    with pytest.raises(Malformed, match=f"target.ioctl: .*`{field}`"):
        decoding.answer(WAKE, {name: value for name, value in WOKEN.items() if name != field})


def test_an_unknown_field_is_refused():
    with pytest.raises(Malformed, match="unknown field `more`"):
        decoding.answer(WAKE, {**WOKEN, "more": 1})


@pytest.mark.parametrize(
    ("request_", "raw"),
    [
        (WAKE, {**WOKEN, "fields": {"start": 0}}),
        (WAKE, {**WOKEN, "fields": {"start": 0, "len": 0, "mode": 0}}),
        (WAKE, {**WOKEN, "fields": {"start": 0, "len": 1 << 100}}),
        (WAKE, {**WOKEN, "ended_ns": 4}),
        (MAP, {**MAPPED, "start": 0x10_0000_0800}),
        (MAP, {**MAPPED, "start": 0}),
        (MAP, {**MAPPED, "start": (1 << 57) - 4096}),
        (MAP, {**MAPPED, "alias": 0}),
        (MapMemory("anon", 1, 4096), MAPPED),
        (MapMemory("hugetlb", 1, 2 << 20), {**MAPPED, "start": 0x10_0000_1000}),
        (RunBatch(1, "UFFDIO_WAKE", {}, 4096, 3, None), {"errno": 0, "done": 4, "started_ns": 1, "ended_ns": 1}),
        (PAGEMAP, {**ENTRIES, "entries": bytes(8)}),
        (PAGEMAP, {**ENTRIES, "entries": "x" * 16}),
        (PAGEMAP, {**ENTRIES, "entries": b"", "at": 4096}),
        (ReadEntries(0, 2, 4096), {"fields": bytes(16), "time_ns": 1}),
        (ScanPages(0, 2, 4096), {"runs": bytes(25), "vma_soft_dirty": False, "time_ns": 1}),
        (FilesExist(["a", "b"]), [True]),
        (FilesExist(["a"]), [1]),
        (MakeProgramFolder(), ""),
        (WithdrawTouch(1), 0),
        (ReadClock(), -1),
        (ReadClock(), 1 << 100),
    ],
)
def test_an_answer_that_does_not_fit_the_parameters_is_refused(request_, raw):
    with pytest.raises(Malformed, match=f"^the answer to {request_.method}: "):
        decoding.answer(request_, raw)


def test_valid_answers_are_accepted():
    assert decoding.answer(MAP, MAPPED) == MappedMemory(1, 0x10_0000_0000, 0x20_0000_0000)
    assert decoding.answer(PAGEMAP, ENTRIES).entries == bytes(16)
    assert decoding.answer(WithdrawTouch(1), None) is None
    fields = {"start": (1 << 64) - 1, "len": -(1 << 63)}
    assert decoding.answer(WAKE, {**WOKEN, "fields": fields}).fields == fields


def test_the_result_of_a_touch_must_fit_its_request():
    copy = StartTouch(1, "copy_out", 0, 4096, 8, 0)
    copy.check_end(touch_result(bytes=bytes(4096)))
    copy.check_end(touch_result(state="withdrawn"))
    with pytest.raises(ValueError, match="`bytes` has 4095 bytes"):
        copy.check_end(touch_result(bytes=bytes(4095)))
    ioctl = StartTouch(1, "syscall", 0, 8, 8, 0, {"call": "ioctl", "uffd": 1, "name": "UFFDIO_WAKE", "fields": {}})
    ioctl.check_end(touch_result(fields={"start": 1, "len": 2}))
    with pytest.raises(ValueError, match="`fields` are not start, len"):
        ioctl.check_end(touch_result(fields={}))
