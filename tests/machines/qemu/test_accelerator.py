"""KVM is used once a test guest has answered, and the result is stored.  No test opens /dev/kvm."""

import json
import logging
import sys
from pathlib import Path

import pytest

from uffdlab import cachedir, errors
from uffdlab.machines.qemu import accelerator

PROGRAM = sys.executable  # any existing file


@pytest.fixture(autouse=True)
def _host(monkeypatch, tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "DEVICE", device)
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UFFDLAB_ACCEL", raising=False)


class Boot:
    def __init__(self, outcome):
        self.outcome = outcome
        self.calls = []

    def __call__(self, accelerator, seconds):
        self.calls.append((accelerator, seconds))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def must_not_boot(*_):
    pytest.fail("a guest was started")


def test_a_test_guest_that_answers_proves_that_kvm_works(caplog):
    boot = Boot("guest")
    assert accelerator.choose(PROGRAM, boot) == ("kvm", "guest")
    assert boot.calls == [("kvm", 10.0)]
    assert accelerator.choose(PROGRAM, must_not_boot) == ("kvm", None)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "error", [errors.MachineTimeout("no hello"), errors.MachineLost("QEMU was killed by signal 6: MSR 0x10a")]
)
def test_a_test_guest_that_does_not_answer_is_reported_once(error, caplog):
    with caplog.at_level(logging.WARNING):
        assert accelerator.choose(PROGRAM, Boot(error)) == ("tcg", None)
        assert accelerator.choose(PROGRAM, must_not_boot) == ("tcg", None)
    assert len(caplog.records) == 1
    assert "under emulation (TCG)" in caplog.text


def test_a_missing_kvm_is_reported_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "none")
    for _ in range(2):
        assert accelerator.choose(PROGRAM, must_not_boot) == ("tcg", None)
    assert len(caplog.records) == 1
    assert "does not exist" in caplog.text


def test_kvm_that_appears_later_is_tried(monkeypatch, tmp_path):
    device = tmp_path / "later"
    monkeypatch.setattr(accelerator, "DEVICE", device)
    assert accelerator.choose(PROGRAM, must_not_boot) == ("tcg", None)
    device.touch()
    assert accelerator.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_a_kernel_panic_does_not_exclude_kvm():
    with pytest.raises(errors.GuestPanic):
        accelerator.choose(PROGRAM, Boot(errors.GuestPanic("Kernel panic")))
    assert accelerator.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_a_guest_that_hangs_after_output_does_not_exclude_kvm():
    assert accelerator.choose(PROGRAM, Boot(errors.MachineTimeout("late", console="booting"))) == ("tcg", None)
    assert accelerator.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_kvm_is_tried_again_after_a_reboot_of_the_host(monkeypatch, tmp_path):
    assert accelerator.choose(PROGRAM, Boot(errors.MachineTimeout("no hello"))) == ("tcg", None)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another\n")
    monkeypatch.setattr(accelerator, "_BOOT_ID", boot_id)
    assert accelerator.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


def test_kvm_is_tried_again_with_another_qemu(tmp_path):
    assert accelerator.choose(PROGRAM, Boot(errors.MachineTimeout("no hello"))) == ("tcg", None)
    other = tmp_path / "qemu"
    other.touch()
    assert accelerator.choose(str(other), Boot("guest")) == ("kvm", "guest")


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b"{}", b"\xff", json.dumps({"identity": [], "accelerator": "x"}).encode()]
)
def test_a_damaged_stored_result_is_ignored(damage):
    (cachedir.folder("accel") / "verdict.json").write_bytes(damage)
    assert accelerator.choose(PROGRAM, Boot("guest")) == ("kvm", "guest")


@pytest.mark.parametrize("wanted", ["tcg", "kvm"])
def test_the_environment_variable_chooses_the_accelerator(monkeypatch, wanted):
    monkeypatch.setenv("UFFDLAB_ACCEL", wanted)
    assert accelerator.choose(PROGRAM, must_not_boot) == (wanted, None)
    assert not Path(cachedir.folder("accel") / "verdict.json").exists()


def test_an_unknown_accelerator_is_refused(monkeypatch):
    monkeypatch.setenv("UFFDLAB_ACCEL", "hax")
    with pytest.raises(errors.UsageError, match="tcg, kvm or auto"):
        accelerator.choose(PROGRAM, must_not_boot)
