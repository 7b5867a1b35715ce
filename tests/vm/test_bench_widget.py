"""lab.bench() on a real lab, without a browser: every part follows, closing leaves nothing."""

import time

import pytest

import uffdlab

pytestmark = [pytest.mark.vm, pytest.mark.long]


def until(met, seconds=10.0):
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_fault_from_beginning_to_end():
    with uffdlab.Lab("6.1-series") as lab:
        bench = lab.bench()
        ioctls, log, view, inspector = bench.ioctls, bench.faults, bench.timeline, bench.inspector
        ioctls.check("MINOR", "WP")
        assert ioctls.send_ioctl().ok
        bench.grid.cursor = 3
        bench.touch("write")

        def waits(kind):
            log.refresh()
            return [each["kind"] for each in log.waiting] == [kind]

        until(lambda: waits("minor, write"))
        assert log.resolve("continue WP").ok
        until(lambda: waits("wp, write"))
        assert bench.grid.snapshot[3].has(uffdlab.State.UFFD_WP).all()
        assert log.resolve("unprotect").ok
        until(lambda: not log.waiting or log.refresh())
        bench.grid.refresh()
        assert bench.grid.snapshot[3].has(uffdlab.State.WRITABLE).all()
        assert "The same page" in inspector.static()
        view.refresh()
        assert {"ioctl", "message", "touch", "snapshot"} <= {event["lane"] for event in view.events}
        assert "UFFDIO_WRITEPROTECT" in bench.static()
        assert lab.timeline._listeners
        bench.close()
        assert lab.timeline._listeners == []


def test_a_closed_lab_is_reported():
    lab = uffdlab.Lab("6.1-series")
    bench = lab.bench()
    lab.close()
    bench.touch("read")
    assert "closed" in bench.status.text
    bench.ioctls.send_ioctl()
    assert "closed" in bench.ioctls.status.text
    bench.grid.refresh()
    assert "closed" in bench.grid.ended
    bench.panel.refresh()
    assert "boot starts a new lab" in bench.panel.facts.value
    bench.close()
    with pytest.raises(TypeError, match="no keyword 'memroy'; did you mean 'memory'"):
        lab.bench(memroy="shmem")
