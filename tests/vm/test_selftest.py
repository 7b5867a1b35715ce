"""The kernel's own tests in real guests."""

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3000)]


def selftest(*arguments):
    result = CliRunner().invoke(main, ["selftest", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("kernel", ["6.1-series", "debian/trixie", "debian/trixie-backports"])
def test_they_pass(kernel):
    status, said = selftest(kernel)
    assert status == 0, said
    assert "not ok" not in said
    assert "minor" in said


def test_the_new_one_names_what_the_posted_patch_loses():
    status, said = selftest("6.1-as-posted", "--tree", "6.1-series")
    assert status == 1, said
    lost = [line for line in said.splitlines() if "FAIL: " in line]
    assert all(" mode DONTWAKE|WP, " in line for line in lost)
    assert any("UFFDIO_CONTINUE mode DONTWAKE|WP, shared mapping registered for MINOR|WP" in line for line in lost)
