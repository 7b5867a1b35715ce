"""A guest that answers with anything: only our own errors come out of a lab, and it can be closed.

What a real agent on this host says is changed at random on its way into the client: a field is missing, is another one
or is of another type, out of range, or not a number at all.
"""

import contextlib
import random

import pytest

from uffdlab.errors import ProtocolError, UffdlabError
from uffdlab.lab import Lab
from uffdlab.machines.rpc.client import Client
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.agent import Ping
from uffdlab.uapi.protocol.base import METHODS

PAGES = 4
SOON = 0.2  # seconds
JUNK = (
    None, True, False, 0, 1, -1, -4096, 4097, 1 << 31, 1 << 63, (1 << 64) - 1, 1 << 100, -(1 << 100), 0.0, 1.5, -1e300,
    float("nan"), float("inf"), "", "x", "\0", "done", "9" * 5000, b"", b"x", bytes(31), bytes(32), b"\xff" * 96, [],
    [1, [2]], {}, {"errno": 22}, {1: 2},
)  # fmt: skip
# What a guest of QEMU's alone is asked for, and what would crash or fill this host.
NOT_HERE = {
    "agent.after_restore", "agent.load", "agent.late", "agent.sysrq", "agent.swap_on", "agent.reserve_hugepages",
    "agent.memory_bytes", "agent.exec_kill", "target.entries", "target.spin", "target.spin_stop",
    "target.clear_soft_dirty", "agent.put", "agent.exists", "agent.kill_target", "target.scan",
}  # fmt: skip


class Mangler:
    """Changes a frame now and then, after at most `most` others."""

    def __init__(self, seed, most):
        self.random = random.Random(seed)
        self.most = most
        self.left = self.random.randrange(most)

    def __call__(self, frame):
        self.left -= 1
        if self.left >= 0:
            return frame
        self.left = self.random.randrange(self.most)
        if self.random.random() < 0.03:
            return self._other(frame)
        *head, last = frame
        if frame[0] == 1 and frame[2] is not None:  # an error
            return [*frame[:2], self._other(frame[2]), last]
        return [*head, self._other(last)]

    def _other(self, value):  # noqa: PLR0911 - one for each sort of value
        # Some place within it becomes something else.
        if isinstance(value, dict) and value and self.random.random() < 0.9:
            key = self.random.choice(list(value))
            how = self.random.random()
            if how < 0.2:
                return {name: each for name, each in value.items() if name != key}
            if how < 0.3:
                return {**value, "more": self.random.choice(JUNK)}
            return {**value, key: self._other(value[key])}
        if isinstance(value, list | tuple) and value and self.random.random() < 0.9:
            at = self.random.randrange(len(value))
            if self.random.random() < 0.1:
                return [*value[:at], *value[at + 1 :]]
            return [*value[:at], self._other(value[at]), *value[at + 1 :]]
        if type(value) is int and self.random.random() < 0.4:
            return value ^ 1 << self.random.randrange(64)
        if isinstance(value, bytes) and value and self.random.random() < 0.4:
            return self.random.randbytes(self.random.choice((len(value), len(value) - 1, len(value) + 8)))
        return self.random.choice(JUNK)


def look(lab, region):
    for name in (None, *lab.witnesses):
        snapshot = region.snapshot(name)
        assert len(snapshot) == PAGES
        str(snapshot), snapshot.to_csv(), snapshot._repr_html_()
    str(lab.cross_examine(region))


def touch(_lab, region):
    for access in (region.read(0), region.write(1, 5), region.modify(2), region.kernel_read(1), region.sweep("write")):
        repr(access), access.state, access.progress
        with contextlib.suppress(UffdlabError):
            access.result(SOON)
            access.outcome(SOON)
    region.copy_out(0, SOON)
    region.fill(3, SOON)
    str(region.probe(0))


def serve(lab, region):
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        pending = [region.read(page) for page in range(PAGES)]
        str([(each.state, each.progress) for each in pending]), str(uffd.read_fault(SOON))
        uffd.copy(region[0], b"x", check=False)
        uffd.zeropage(region[1], check=False)
        repr(uffd.batch("UFFDIO_COPY", region[2:], check=False))
        with contextlib.suppress(UffdlabError):
            repr(uffd.start("UFFDIO_WAKE", {"start": region.start, "len": region.length}).result(SOON))
        uffd.poison(region[3], check=False)
        uffd.wake(region)
        for each in pending:
            each.withdraw(SOON)
        uffd.unregister(region)


def handle(lab, region):
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        with uffd.handle_natively(missing="zeropage") as handler:
            region.read(0).result(SOON)
            str(handler.counts), handler.counts.percentile(0.5)
        with uffd.handle(lambda fault: uffd.zeropage(region[fault.page])):
            region.read(1).result(SOON)


def change(_lab, region):
    region.madvise("dontneed")
    region.mprotect("rw")
    region.mremap()
    region.populate(write=True).result(SOON)
    region.unmap()


def fork(lab, region):
    with lab.userfaultfd(Feature.EVENT_FORK | Feature.EVENT_REMOVE) as uffd:
        uffd.register(region, "missing")
        with lab.fork() as child:
            str(child.snapshot(region))
            region.alias.read(0, by=child).result(SOON)
            repr(uffd.read_message(SOON))
        with uffd.unread():
            region.start_madvise("dontneed").withdraw(SOON)


def run(lab, _region):
    assert isinstance(lab.exec(["cat"], stdin=b"hello", deadline=5).text, str)


def rest(lab, region):
    lab.ask(Ping(1))
    str(lab.capabilities), lab.capabilities._repr_html_()
    str(lab.timeline), repr(lab), lab.release, lab.target_pid
    with contextlib.suppress(UffdlabError):
        region.walk(0)
    lab.restart_target()


def reset(lab, _region):
    lab.reset()


OPERATIONS = (look, touch, serve, handle, change, fork, run, rest, reset)


def play(mangler):
    """Use a lab for everything; what it raises that is none of our errors comes out."""
    with contextlib.suppress(UffdlabError), Lab(machine="local") as lab:
        for operation in mangler.random.sample(OPERATIONS, len(OPERATIONS)):
            for memory in ("anon", "shmem"):
                with contextlib.suppress(UffdlabError):
                    operation(lab, lab.map(pages=PAGES, memory=memory))


@pytest.fixture
def wire(monkeypatch, caplog, host_lab):  # host_lab skips where there is no userfaultfd
    """Let a mangler have each frame on its way in, and note what is asked."""
    take, call = Client._dispatch, Client.call
    asked = set()

    def install(mangler):
        monkeypatch.setattr(Client, "_dispatch", lambda self, frame: take(self, mangler(frame)))

    def noted(self, method, *rest):
        asked.add(method)
        return call(self, method, *rest)

    monkeypatch.setattr(Client, "call", noted)
    install.asked = asked
    yield install
    # What fails on a thread that brings notifications is logged.
    assert not [record for record in caplog.get_records("call") if record.exc_info]


@pytest.mark.parametrize("seed", range(16))
def test_only_our_errors_come_out(wire, seed):
    mangler = Mangler(seed, most=(20, 60, 200)[seed % 3])
    wire(mangler)
    play(mangler)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 11000, 1000))
def test_only_our_errors_come_out_of_many_rounds(wire, seed):
    for each in range(seed, seed + 100):
        mangler = Mangler(each, most=(20, 60, 200)[each % 3])
        wire(mangler)
        play(mangler)


def test_no_answer_has_a_field_more_or_less_than_the_list(wire):
    """All that is asked above, of a real agent, with nothing changed."""
    malformed = []
    with Lab(machine="local") as lab:
        for operation in OPERATIONS:
            region = lab.map(pages=PAGES, memory="shmem")
            try:
                operation(lab, region)
            except ProtocolError as error:
                malformed.append(error)
            except UffdlabError:
                pass  # this host's kernel cannot do it, or not without privilege
    assert not malformed
    assert wire.asked >= METHODS.keys() - NOT_HERE
