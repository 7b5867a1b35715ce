"""The write of a probe: when it counts as trapped."""

from types import SimpleNamespace

import pytest

from uffdlab.errors import FaultUnresolved
from uffdlab.target import write_probe


class ProbeTouch:
    """A write that stays in one state until it is withdrawn; `ends_first` if it ends before the withdrawal."""

    def __init__(self, state, *, ends_first):
        self.state, self.ends_first = state, ends_first

    def withdraw(self):
        self.state = "done" if self.ends_first else "withdrawn"
        return not self.ends_first

    def outcome(self, _deadline):
        return SimpleNamespace(signal="")


def probe(monkeypatch, touch):
    monkeypatch.setattr(write_probe, "_DEADLINE", 0.01)
    monkeypatch.setattr(write_probe, "WriteProbe", lambda page, trapped, *_: trapped)
    target = SimpleNamespace(
        registry=SimpleNamespace(userfaultfds=()), touch=lambda *_, **__: touch, ask=lambda _request: None
    )
    page = SimpleNamespace(
        count=1, first=3, start=0x3000, length=4096, mapping=SimpleNamespace(name="region-1"), snapshot=lambda: None
    )
    return write_probe.probe(target, page)


def test_a_write_that_waits_without_a_message_trapped(monkeypatch):
    assert probe(monkeypatch, ProbeTouch("waiting", ends_first=False))


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_write_that_ends_while_it_is_withdrawn_did_not_trap(monkeypatch, state):
    assert not probe(monkeypatch, ProbeTouch(state, ends_first=True))


def test_a_write_that_runs_until_the_deadline_is_no_evidence(monkeypatch):
    with pytest.raises(FaultUnresolved, match="neither ended nor waited for a fault"):
        probe(monkeypatch, ProbeTouch("running", ends_first=False))


def test_a_write_that_has_ended_did_not_trap(monkeypatch):
    assert not probe(monkeypatch, ProbeTouch("done", ends_first=True))
