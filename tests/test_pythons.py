"""`make test-pythons` says which Pythons it tested, which are not here, and which failed."""

import sys

import pytest

from . import pythons
from .test_packaging import PROJECT


def test_the_interpreters_are_those_that_the_package_supports():
    named = {f"python{each.rpartition(' ')[2]}" for each in PROJECT["classifiers"] if ":: 3." in each}
    assert named == {*pythons.SUPPORTED}
    assert PROJECT["requires-python"] == f">={pythons.SUPPORTED[0].removeprefix('python')}"


def test_an_interpreter_has_a_version_and_one_that_is_not_there_has_none(tmp_path):
    assert pythons.version(sys.executable) == sys.version.split()[0]
    assert pythons.version(str(tmp_path / "python3.99")) == ""
    assert pythons.version("false") == ""


@pytest.mark.parametrize(
    ("named", "here", "status"),
    [
        ([], {"python3.11": ""}, 0),
        ([], {"python3.11": "", "python3.13": "python failed"}, 1),
        ([], {}, 1),
        (["python3.13"], {"python3.13": ""}, 0),
        (["python3.13", "python3.14"], {"python3.13": ""}, 1),
    ],
)
def test_the_exit_status(monkeypatch, capsys, named, here, status):
    monkeypatch.setattr(pythons, "version", lambda name: "3" if name in here else "")
    monkeypatch.setattr(pythons, "test", lambda name, _found: here[name])
    assert pythons.main(named) == status
    table = capsys.readouterr().out.rpartition("\n\n")[2]
    for name in named or pythons.SUPPORTED:
        expected = "not on this host" if name not in here else f"failed: {here[name]}" if here[name] else "ok"
        assert f"{name:<12} {expected}\n" in table
