"""The patch for the upstream selftest: the test passes on 7.3, and fails on a 7.3 that is broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(4 * 3600)]

FOLDER = Path(__file__).resolve().parents[2] / "kernel-patch" / "upstream"


def minor_results(kernel: str, tests: str, monkeypatch) -> dict[str, bool]:
    """Return whether each minor test of uffd-unit-tests is "ok", by its name."""
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
    found = minor_results(kernel, "7.3-selftest", monkeypatch)
    assert any(name.startswith("-wp-modes") for name in found), found
    for name, good in found.items():
        assert good != any(name.startswith(failing) for failing in fails), (name, found)


def test_the_unpatched_selftest_misses_an_ignored_mode(monkeypatch):
    found = minor_results("7.3-ignore", "7.3", monkeypatch)
    assert found
    assert all(found.values()), found
