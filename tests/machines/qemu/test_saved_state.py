"""A restored state equals the saved one; an invalid state is deleted."""

import contextlib
import errno
import os
import resource

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from uffdlab import cachedir, errors
from uffdlab.machines.qemu import saved_state

SIZE = 4 << 20


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path))


def ram_file(content):
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, SIZE)
    for at, data in content.items():
        os.pwrite(descriptor, data, at)
    return descriptor


def contents(descriptor):
    return os.pread(descriptor, SIZE + 1, 0)


def save(content, name="a" * 40):
    ram = ram_file(content)
    try:
        saved_state.save(name, ram=ram, device_state=b"QEVM devices", facts={"release": "6.1"})
        return contents(ram)
    finally:
        os.close(ram)


def load(state):
    ram = ram_file({})
    try:
        devices = state.load(ram)
        return contents(ram), devices
    finally:
        os.close(ram)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.integers(0, SIZE - 9000), st.binary(min_size=1, max_size=16).map(lambda data: data * 500), max_size=6
    )
)
def test_a_loaded_state_equals_the_saved_one(content):
    before = save(content)
    state = saved_state.find("a" * 40)
    assert state.facts == {"release": "6.1"}
    assert load(state) == (before, b"QEVM devices")


def test_pages_of_zeros_are_not_stored():
    save({0: bytes(SIZE - 4096), SIZE - 4096: b"x"})
    assert saved_state.find("a" * 40).path.stat().st_size < 100_000


def test_a_state_that_does_not_exist_is_not_found():
    assert saved_state.find("b" * 40) is None


@pytest.mark.parametrize("cut", [0, 1, 20, 40, 100, 5000, -1])
def test_a_truncated_file_is_deleted(cut):
    save({8192: b"x" * 9000})
    path = saved_state.find("a" * 40).path
    path.write_bytes(path.read_bytes()[:cut])
    assert saved_state.find("a" * 40) is None
    assert not path.exists()


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200), st.integers(0, 255))
@example(116, ord("E"))  # this byte makes a number of the header infinite
def test_a_damaged_header_is_detected(at, byte):
    save({8192: b"x" * 9000})
    path = cachedir.folder("machines") / ("a" * 40 + ".state")
    before = path.read_bytes()
    data = bytearray(before)
    data[at % (before.index(b"QEVM devices") + 12)] = byte  # the padding after it may have any value
    path.write_bytes(data)
    state = saved_state.find("a" * 40)
    if state is not None and data != before:
        with pytest.raises(saved_state.Unusable):
            load(state)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0), st.integers(0, 7))
def test_one_flipped_bit_of_the_content_is_detected(at, bit):
    save({8192: b"x" * 9000, 1 << 20: b"y" * 5000})
    path = cachedir.folder("machines") / ("a" * 40 + ".state")
    data = bytearray(path.read_bytes())
    devices = data.index(b"QEVM devices")
    places = [*range(devices, devices + 12), *range(-(-(devices + 12) // 4096) * 4096, len(data))]
    data[places[at % len(places)]] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(saved_state.Unusable, match="not what was saved"):
        load(saved_state.find("a" * 40))


def test_a_file_that_is_truncated_or_removed_after_find_is_an_error():
    save({8192: b"x" * 9000})
    state = saved_state.find("a" * 40)
    os.truncate(state.path, 5000)
    with pytest.raises(saved_state.Unusable, match="shorter"):
        load(state)
    state.path.unlink()
    with pytest.raises(saved_state.Unusable):
        load(state)


@contextlib.contextmanager
def no_descriptors_left():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as taken:
        for _ in range(3):  # the free numbers below the limit
            last = os.open(os.devnull, os.O_RDONLY)
            taken.callback(os.close, last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, before[1]))
        try:
            while True:
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_state_is_not_deleted_when_no_descriptors_are_left():
    save({8192: b"x" * 9000})
    state = saved_state.find("a" * 40)
    ram = ram_file({})
    with no_descriptors_left():
        for attempt in (lambda: saved_state.find("a" * 40), lambda: state.load(ram)):
            with pytest.raises(OSError, match="Too many open files"):
                attempt()
    os.close(ram)
    assert saved_state.find("a" * 40) == state


@pytest.mark.parametrize(("number", "error"), [(errno.ENOMEM, OSError), (errno.EIO, saved_state.Unusable)])
def test_only_an_error_of_the_disk_makes_a_state_unusable(monkeypatch, number, error):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    save({8192: b"x" * 9000})
    state = saved_state.find("a" * 40)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(error, match=os.strerror(number)):
        load(state)


def test_each_part_changes_the_key():
    keys = {
        saved_state.key("a", 1),
        saved_state.key("a", 2),
        saved_state.key("a1"),
        saved_state.key("a", "1"),
        saved_state.key(),
    }
    assert len(keys) == 5


def states():
    return {int(path.stem) for path in cachedir.folder("machines").glob("*.state")}


def save_in_order(numbers):
    for number in numbers:
        save({0: os.urandom(400_000)}, name=f"{number:040}")
        os.utime(cachedir.folder("machines") / f"{number:040}.state", ns=(number, number))


def test_the_oldest_states_are_removed_for_new_ones(monkeypatch):
    monkeypatch.setenv("UFFDLAB_SAVED", "1M")
    save_in_order(range(1, 6))
    assert states() == {4, 5}  # of 0.46 MB each, in blocks of 64 KiB
    assert saved_state.find(f"{4:040}")  # marks it as used now
    save({0: os.urandom(400_000)}, name=f"{6:040}")
    assert states() == {4, 6}


def test_a_state_in_use_is_not_removed(monkeypatch):
    save_in_order([1, 2])
    descriptor = saved_state.hold(f"{1:040}")
    assert saved_state.hold(f"{9:040}") is None
    monkeypatch.setenv("UFFDLAB_SAVED", "1M")
    try:
        save_in_order([3, 4])
        assert states() == {1, 4}
        assert saved_state.clear()[1] == 1
        assert states() == {1}
    finally:
        os.close(descriptor)
    freed, kept = saved_state.clear()
    assert freed > 400_000
    assert kept == 0
    assert states() == set()


def test_a_state_that_is_larger_than_all_may_be_is_not_saved(monkeypatch):
    monkeypatch.setenv("UFFDLAB_SAVED", "100K")
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_SAVED"):
        save({0: os.urandom(400_000)})
    assert states() == set()
