"""A script as a user would write it.  It is never run: `make check` checks its types with mypy in strict mode."""

from collections.abc import Callable
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import uffdlab
from uffdlab.machines.programs import Execution
from uffdlab.observations.write_probe import WriteProbe
from uffdlab.target.capabilities import Capabilities
from uffdlab.target.fault_handlers import HandlerCounts, NativeHandler, PythonHandler
from uffdlab.target.results import BatchResult, CallResult, IoctlResult
from uffdlab.target.timeline import TimelineEntry
from uffdlab.target.touch import Outcome
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import ContinueMode, FaultFlag, Feature, RegisterMode
from uffdlab.uapi.messages import Fault, Message


def watch(lab: uffdlab.Lab) -> None:
    """Make each public call, and check the type of its result."""
    region = lab.map(pages=64, memory="shmem")
    assert_type(region, uffdlab.Region)
    assert_type(region[3], uffdlab.PageRange)
    assert_type(region[3:8].start, int)
    region.alias.fill()
    with lab.userfaultfd(Feature.MINOR_SHMEM | Feature.THREAD_ID) as uffd:
        assert_type(uffd, uffdlab.Userfaultfd)
        assert_type(uffd.features, Feature)
        uffd.register(region, "minor", RegisterMode.WP)
        result = uffd.continue_(region[:32], wp=True, mode=int(ContinueMode.DONTWAKE), check=False)
        assert_type(result, IoctlResult)
        assert_type(result.output, int | None)
        assert_type(result.errno, int)
        assert_type(uffd.resume(result).done, int)
        assert_type(uffd.batch("UFFDIO_CONTINUE", region[32:]), BatchResult)
        touch = region.read(3)
        assert_type(touch, uffdlab.Touch[int])
        assert_type(touch.result(), int)
        assert_type(touch.outcome(), Outcome)
        assert_type(region.write(3), uffdlab.Touch[None])
        assert_type(region.sweep_threads(2), list[uffdlab.Touch[int]])
        assert_type(region.copy_out(3), bytes)
        fault = uffd.read_fault()
        assert_type(fault, Fault)
        assert_type(fault.flags, FaultFlag)
        assert_type(fault.page, int | None)
        assert_type(uffd.wait_for(Fork).userfaultfd, uffdlab.Userfaultfd)
        for message in uffd.messages():
            assert_type(message, Fault | Message)
        assert_type(uffd.subscribe(print), Callable[[], None])
        with uffd.handle(lambda fault: uffd.continue_(region[fault.page or 0])) as served:
            assert_type(served, PythonHandler)
        with uffd.handle_natively(minor="continue") as native:
            assert_type(native, NativeHandler)
            assert_type(native.counts, HandlerCounts)
    snapshot = region.snapshot()
    assert_type(snapshot, uffdlab.Snapshot)
    assert_type(snapshot.has(uffdlab.State.UFFD_WP), NDArray[np.bool_])
    assert_type(region.probe(3), WriteProbe)
    assert_type(region.madvise("dontneed"), CallResult)
    assert_type(lab.capabilities, Capabilities)
    assert_type(lab.exec(["uname"]), Execution)
    assert_type(lab.timeline[0], TimelineEntry)
    assert_type(lab.touches, tuple[uffdlab.Touch[object], ...])


def explain(lab: uffdlab.Lab) -> str:
    """Read the attributes of errors."""
    try:
        lab.userfaultfd().continue_(lab.map(pages=1))
    except uffdlab.IoctlError as error:
        assert_type(error.errno, int | None)
        assert_type(error.done, int)
        return str(error)
    except uffdlab.FaultUnresolved as error:
        return f"{error.address:#x}"
    return ""
