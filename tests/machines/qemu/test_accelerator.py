"""KVM is believed when a guest has answered, and the verdict is remembered; no /dev/kvm is opened here."""

import json
import logging
import sys
from pathlib import Path

import pytest

from uffdlab import cachedir, errors
from uffdlab.machines.qemu import accelerator as accel

PROGRAM = sys.executable  # any file will do


@pytest.fixture(autouse=True)
def _host(monkeypatch, tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "DEVICE", device)
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UFFDLAB_ACCEL", raising=False)


class Boot:
    def __init__(self, outcome):
        self.outcome = outcome
        self.asked = []

    def __call__(self, accelerator, seconds):
        self.asked.append((accelerator, seconds))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def never(*_):
    pytest.fail("a guest was started")


def test_a_guest_that_answers_proves_it(caplog):
    boot = Boot("guest")
    assert accel.choose(PROGRAM, boot) == ("kvm", "guest")
    assert boot.asked == [("kvm", 10.0)]
    assert accel.choose(PROGRAM, never) == ("kvm", None)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "error", [errors.MachineTimeout("no hello"), errors.MachineLost("QEMU was killed by signal 6: MSR 0x10a")]
)
def test_one_that_does_not_is_said_once(error, caplog):
    with caplog.at_level(logging.WARNING):
        assert accel.choose(PROGRAM, Boot(error)) == ("tcg", None)
        assert accel.choose(PROGRAM, never) == ("tcg", None)
    assert len(caplog.records) == 1
    assert "under emulation (TCG)" in caplog.text


def test_no_kvm_at_all(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "none")
    for _ in range(2):
        assert accel.choose(PROGRAM, never) == ("tcg", None)
    assert len(caplog.records) == 1
    assert "is not there" in caplog.text


def test_kvm_that_comes_later_is_tried(monkeypatch, tmp_path):
    device = tmp_path / "later"
    monkeypatch.setattr(accel, "DEVICE", device)
    assert accel.choose(PROGRAM, never) == ("tcg", None)
    device.touch()
    assert accel.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_a_kernel_that_panics_says_nothing_of_kvm():
    with pytest.raises(errors.GuestPanic):
        accel.choose(PROGRAM, Boot(errors.GuestPanic("Kernel panic")))
    assert accel.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_a_guest_that_spoke_and_hung_says_nothing_of_kvm():
    assert accel.choose(PROGRAM, Boot(errors.MachineTimeout("late", console="I run"))) == ("tcg", None)
    assert accel.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_another_boot_of_the_host_is_another_verdict(monkeypatch, tmp_path):
    assert accel.choose(PROGRAM, Boot(errors.MachineTimeout("no hello"))) == ("tcg", None)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another\n")
    monkeypatch.setattr(accel, "_BOOT_ID", boot_id)
    assert accel.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_another_qemu_is_another_verdict(tmp_path):
    assert accel.choose(PROGRAM, Boot(errors.MachineTimeout("no hello"))) == ("tcg", None)
    other = tmp_path / "qemu"
    other.touch()
    assert accel.choose(str(other), Boot("guest")) == ("kvm", "guest")


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b"{}", b"\xff", json.dumps({"identity": [], "accelerator": "x"}).encode()]
)
def test_a_damaged_verdict_is_none(damage):
    (cachedir.folder("accel") / "verdict.json").write_bytes(damage)
    assert accel.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


@pytest.mark.parametrize("wanted", ["tcg", "kvm"])
def test_the_user_decides(monkeypatch, wanted):
    monkeypatch.setenv("UFFDLAB_ACCEL", wanted)
    assert accel.choose(PROGRAM, never) == (wanted, None)
    assert not Path(cachedir.folder("accel") / "verdict.json").exists()


def test_the_user_decides_nonsense(monkeypatch):
    monkeypatch.setenv("UFFDLAB_ACCEL", "hax")
    with pytest.raises(errors.UsageError, match="tcg, kvm or auto"):
        accel.choose(PROGRAM, never)
