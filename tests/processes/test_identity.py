"""The unprivileged user that QEMU runs as when root starts it."""

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
def as_root(monkeypatch):
    """Let this process be root, in a namespace with all users."""
    monkeypatch.setattr(identity, "_can_change", lambda: True)
    monkeypatch.setattr(identity, "_is_here", lambda _table, _number: True)


def test_each_program_gets_a_user_id_without_an_account(as_root):
    found = [identity.unprivileged(PROGRAM) for _ in range(50)]
    assert len({identity.number for identity in found}) > 40
    assert all(identity.groups == () for identity in found)
    accounts = {account.pw_uid for account in pwd.getpwall()}
    assert not accounts & {identity.number for identity in found}
    assert 0 not in {identity.number for identity in found}


@pytest.mark.parametrize(
    ("mode", "gid", "groups"),
    [
        (0o660, 108, (108,)),  # /dev/kvm in Debian
        (0o666, 0, ()),
        (0o600, 0, None),  # root only
        (0o660, 0, None),
        (0o640, 108, None),
    ],
)
def test_the_user_has_the_group_of_the_device(as_root, mode, gid, groups):
    found = identity.unprivileged(PROGRAM, Device(mode, gid))
    assert (found and found.groups) == groups


def test_an_identity_is_printed_for_the_supervisor():
    assert str(identity.Identity(61234)) == "61234"
    assert str(identity.Identity(61234, (108, 9))) == "61234,108,9"


def test_a_user_other_than_root_does_not_change_its_identity(monkeypatch):
    monkeypatch.setattr(identity, "_can_change", lambda: False)
    assert identity.unprivileged(PROGRAM) is None


def test_root_in_a_namespace_without_other_users_does_not_change_its_identity(monkeypatch):
    monkeypatch.setattr(identity, "_can_change", lambda: True)
    monkeypatch.setattr(identity, "_is_here", lambda _table, number: number == 0)
    assert identity.unprivileged(PROGRAM) is None


def test_the_number_of_an_account_is_not_used(as_root, monkeypatch):
    monkeypatch.setattr(identity, "_is_an_account", lambda number: number != 61300)
    monkeypatch.setattr(identity, "_TRIES", 100_000)
    assert identity.unprivileged(PROGRAM).number == 61300


def test_only_root_gets_an_unprivileged_user():
    assert (identity.unprivileged(PROGRAM) is not None) == (os.geteuid() == 0)


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o755), (0o755, 0o700), (0o755, 0o711)])
def test_a_program_that_only_root_can_run_gets_no_unprivileged_user(as_root, folder, file):
    with tempfile.TemporaryDirectory() as top:
        program = Path(top) / "bin" / "qemu"
        program.parent.mkdir()
        program.touch()
        Path(top).chmod(0o755)
        assert identity.unprivileged(program) is None  # not executable
        for mode, folder_mode in ((0o755, 0o755), (file, folder)):
            program.chmod(mode)
            program.parent.chmod(folder_mode)
            assert (identity.unprivileged(program) is not None) == (mode == folder_mode == 0o755)
    assert identity.unprivileged(program) is None  # does not exist
