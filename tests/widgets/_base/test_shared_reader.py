from types import SimpleNamespace

import pytest

from uffdlab.target.timeline import Timeline
from uffdlab.widgets._base.shared_reader import SharedReader

ABSENT = 0


@pytest.fixture
def timeline():
    return Timeline()


def test_all_readers_read_before_any_result_is_shown_and_share_one_time(timeline, snapshot):
    log = []
    taken = SimpleNamespace(snapshot=snapshot((ABSENT, 8), time_ns=700))
    readers = [
        SharedReader(lambda name=name: log.append(f"read {name}") or taken, lambda _, name=name: log.append(name), None)
        for name in ("grid", "inspector")
    ]
    for reader in readers:
        reader.attach(timeline)
    timeline.add("ioctl", "UFFDIO_CONTINUE", 500)
    assert log == ["read grid", "read inspector", "grid", "inspector"]
    assert [reader.when_ns for reader in readers] == [700, 700]
    timeline.add("map", "a region", 800)
    assert len(log) == 4
    for reader in readers:
        reader.close()
    assert timeline._listeners == []


def test_the_failure_of_one_reader_does_not_disturb_the_others(timeline):
    shown, failed = [], []
    broken = SharedReader(lambda: 1 / 0, shown.append, failed.append)
    other = SharedReader(lambda: "result", shown.append, failed.append)
    for reader in (broken, other):
        reader.attach(timeline)
    timeline.add("touch", "read", 500)
    assert (shown, [type(error) for error in failed], other.when_ns) == (["result"], [ZeroDivisionError], 500)


def test_the_snapshot_of_a_read_causes_no_further_read(timeline, snapshot):
    taken = []

    def read():
        taken.append(snapshot((ABSENT, 8)))
        timeline.add("snapshot", "by the grid", 0, None, taken[-1])

    reader = SharedReader(read, lambda _: None, None)
    reader.attach(timeline)
    timeline.add("ioctl", "x", 1)
    assert len(taken) == 1
    timeline.add("snapshot", "by hand", 2, None, taken[0])
    assert len(taken) == 2


def test_the_result_of_a_forgotten_read_is_not_shown(timeline):
    shown = []
    reader = SharedReader(lambda: reader.forget(), shown.append, shown.append)
    reader.attach(timeline)
    reader.now()
    assert shown == []
