"""Whom QEMU becomes when root starts it."""

import os
import pwd
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from uffdlab.processes import identity

PROGRAM = Path("/usr/bin/env").resolve()


class Device:
    """A device as stat(2) shows it."""

    def __init__(self, mode, gid):
        self._found = SimpleNamespace(st_mode=stat.S_IFCHR | mode, st_gid=gid)

    def stat(self):
        return self._found


@pytest.fixture
def roots(monkeypatch):
    """Make it root, with all users there are."""
    monkeypatch.setattr(identity, "_can_change", lambda: True)
    monkeypatch.setattr(identity, "_is_here", lambda _table, _number: True)


def test_each_program_gets_a_user_id_without_an_account(roots):
    found = [identity.unprivileged(PROGRAM) for _ in range(50)]
    assert len({each.number for each in found}) > 40
    assert all(each.groups == () for each in found)
    accounts = {each.pw_uid for each in pwd.getpwall()}
    assert not accounts & {each.number for each in found}
    assert 0 not in {each.number for each in found}


@pytest.mark.parametrize(
    ("mode", "gid", "groups"),
    [
        (0o660, 108, (108,)),  # /dev/kvm in Debian
        (0o666, 0, ()),
        (0o600, 0, None),  # root alone
        (0o660, 0, None),
        (0o640, 108, None),
    ],
)
def test_the_group_of_the_device_it_needs(roots, mode, gid, groups):
    found = identity.unprivileged(PROGRAM, Device(mode, gid))
    assert (found and found.groups) == groups


def test_an_identity_as_text_for_the_supervisor():
    assert str(identity.Identity(61234)) == "61234"
    assert str(identity.Identity(61234, (108, 9))) == "61234,108,9"


def test_a_user_other_than_root_keeps_its_identity(monkeypatch):
    monkeypatch.setattr(identity, "_can_change", lambda: False)
    assert identity.unprivileged(PROGRAM) is None


def test_root_in_a_namespace_without_other_users_keeps_its_identity(monkeypatch):
    monkeypatch.setattr(identity, "_can_change", lambda: True)
    monkeypatch.setattr(identity, "_is_here", lambda _table, number: number == 0)
    assert identity.unprivileged(PROGRAM) is None


def test_an_account_is_left_alone(roots, monkeypatch):
    monkeypatch.setattr(identity, "_is_an_account", lambda number: number != 61300)
    monkeypatch.setattr(identity, "_TRIES", 100_000)
    assert identity.unprivileged(PROGRAM).number == 61300


def test_this_process():
    assert (identity.unprivileged(PROGRAM) is not None) == (os.geteuid() == 0)


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o755), (0o755, 0o700), (0o755, 0o711)])
def test_a_program_that_only_root_can_run(roots, folder, file):
    with tempfile.TemporaryDirectory() as top:
        program = Path(top) / "bin" / "qemu"
        program.parent.mkdir()
        program.touch()
        Path(top).chmod(0o755)
        assert identity.unprivileged(program) is None  # not executable
        for mode, way in ((0o755, 0o755), (file, folder)):
            program.chmod(mode)
            program.parent.chmod(way)
            assert (identity.unprivileged(program) is not None) == (mode == way == 0o755)
    assert identity.unprivileged(program) is None  # not there
