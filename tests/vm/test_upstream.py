"""The patch for upstream's selftest: it passes on 7.3, and fails on a 7.3 that is broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(4 * 3600)]

FOLDER = Path(__file__).resolve().parents[2] / "kernel-patch" / "upstream"


def verdicts(kernel: str, tests: str, monkeypatch) -> dict[str, bool]:
    """What each minor test says, "ok" or "not ok", by its name; 7.3 has them in uffd-unit-tests."""
    monkeypatch.setenv("UFFDLAB_KERNELS", str(FOLDER))
    result = CliRunner().invoke(main, ["selftest", kernel, "--tree", tests])
    assert result.exit_code in (0, 1), result.output
    lines = [line.strip() for line in result.stdout.splitlines() if " minor" in line]
    return {line.partition(" minor")[2]: line.startswith("ok ") for line in lines if "ok " in line[:7]}


@pytest.mark.parametrize(
    ("kernel", "fails"),
    [
        ("7.3-selftest", set()),
        ("7.3-ignore", {"-wp on", "-wp-modes"}),
        ("7.3-lose", {"-wp-modes"}),
    ],
)
def test_the_patched_selftest_fails_exactly_on_broken_kernels(kernel, fails, monkeypatch):
    found = verdicts(kernel, "7.3-selftest", monkeypatch)
    assert any(name.startswith("-wp-modes") for name in found), found
    for name, good in found.items():
        assert good != any(name.startswith(bad) for bad in fails), (name, found)


def test_the_unpatched_selftest_misses_an_ignored_mode(monkeypatch):
    found = verdicts("7.3-ignore", "7.3", monkeypatch)
    assert found
    assert all(found.values()), found
