"""Decode the messages of a userfaultfd, and find the region and page of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.uapi.layout import decode
from uffdlab.uapi.messages import Fault, Message, Remap, Remove, Unmap

if TYPE_CHECKING:
    from uffdlab.target.process import TargetProcess


def decode_message(data: bytes, time_ns: int, target: TargetProcess) -> Fault | Message:
    """Return the message in a struct uffd_msg that the target read at `time_ns`."""
    event, fields = decode(data)
    if event == uapi.Event.PAGEFAULT:
        flags, address, thread = fields
        region, page = target.locate(address)
        return Fault(page, region, address, uapi.FaultFlag(flags), thread, time_ns)
    if event == uapi.Event.REMAP:
        return Remap(event, fields, time_ns, *fields)
    if event in (uapi.Event.REMOVE, uapi.Event.UNMAP):
        start, end = fields
        region, page = target.locate(start)
        count = (end - start) // target.page_size_at(start)
        kind = Remove if event == uapi.Event.REMOVE else Unmap
        return kind(event, fields, time_ns, start, end, region, page or 0, count)
    return Message(event, fields, time_ns)
