"""A lab that nobody can reach ends its machine; one that somebody can reach by any of its parts does not."""

import gc
import os
import time
import weakref

import pytest

from uffdlab.lab import Lab

DEADLINE = 60.0  # seconds; a busy host may take long


def ended(pids):
    def is_there(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    until = time.monotonic() + DEADLINE
    while any(map(is_there, pids)) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    return not any(map(is_there, pids))


def parts_of_a_lab():
    """Everything that refers to its lab; the lab itself is only in this function."""
    lab = Lab(machine="local")
    region = lab.map(pages=4, memory="shmem")
    uffd = lab.userfaultfd()
    uffd.register(region, "missing", "minor")
    touch = region.read(0)
    uffd.read_fault()
    parts = {"lab": lab, "region": region, "pages": region[1:3], "alias": region.alias, "uffd": uffd, "touch": touch}
    return parts, lab.machine.pids, weakref.ref(lab.machine)


def test_a_lab_that_is_out_of_reach_ends_its_machine():
    parts, pids, machine = parts_of_a_lab()
    assert parts["region"].lab.regions == (parts["region"],)  # the ring: lab, target, registry, region, lab
    parts.clear()
    assert ended(pids)
    assert machine() is None


USES = {
    "lab": lambda lab: lab.capabilities,
    "region": lambda region: region.lab.capabilities,
    "pages": lambda pages: pages.mapping.lab.capabilities,
    "alias": lambda alias: alias.lab.capabilities,
    "uffd": lambda uffd: uffd.number,
    "touch": lambda touch: touch.withdraw() and touch.state == "withdrawn",  # the notification of its end came
}


@pytest.mark.parametrize("kept", USES)
def test_any_part_of_a_lab_keeps_its_machine(kept):
    parts, pids, machine = parts_of_a_lab()
    parts = {kept: parts[kept]}
    gc.collect()
    assert machine() is not None
    assert USES[kept](parts[kept])
    parts.clear()
    assert ended(pids)
