"""lab.bench() on a real lab, without a browser: every part follows the lab, and closing leaves nothing."""

import time

import pytest

import uffdlab

pytestmark = [pytest.mark.vm, pytest.mark.long]


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_bench_follows_a_fault_until_it_is_resolved():
    with uffdlab.Lab("6.1-series") as lab:
        bench = lab.bench()
        ioctls, log, view, inspector = bench.ioctls, bench.faults, bench.timeline, bench.inspector
        ioctls.check("MINOR", "WP")
        assert ioctls.send_ioctl().ok
        bench.grid.cursor = 3
        bench.touch("write")

        def fault_waits(kind):
            log.refresh()
            return [fault["kind"] for fault in log.waiting] == [kind]

        wait_until(lambda: fault_waits("minor, write"))
        assert log.resolve("continue WP").ok
        wait_until(lambda: fault_waits("wp, write"))
        assert bench.grid.snapshot[3].has(uffdlab.State.UFFD_WP).all()
        assert log.resolve("unprotect").ok
        wait_until(lambda: not log.waiting or log.refresh())
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
