"""The kernel's selftests in real guests."""

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main
from uffdlab.kernels import kselftest
from uffdlab.lab import Lab

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3000)]


def run_selftest(*arguments):
    result = CliRunner().invoke(main, ["selftest", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("kernel", ["6.1-series", "debian/trixie", "debian/trixie-backports"])
def test_the_kernels_selftests_pass(kernel):
    status, shown = run_selftest(kernel)
    assert status == 0, shown
    assert "not ok" not in shown
    assert "minor" in shown


def test_the_selftest_of_the_series_reports_the_mode_that_the_posted_patch_ignores():
    status, shown = run_selftest("6.1-as-posted", "--tree", "6.1-series")
    assert status == 1, shown
    failed = [line for line in shown.splitlines() if "FAIL: " in line and " registered for " in line]  # fill modes
    assert all(" mode DONTWAKE|WP, " in line for line in failed)
    shared = "UFFDIO_CONTINUE mode DONTWAKE|WP, 1 page, shared mapping registered for MINOR|WP"
    assert any(shared in line for line in failed)


@pytest.mark.parametrize(("kind", "done", "skipped"), [("anon", 40, 8), ("shmem", 88, 16)])
def test_the_selftest_of_the_series_reports_skips_without_free_huge_pages(kind, done, skipped):
    program = kselftest.of_kernel("6.1-series").programs["userfaultfd"]
    with Lab("6.1-series") as lab:
        ended = lab.exec(["./userfaultfd", kind, "4", "1"], push=[program], deadline=1200)
    assert ended.status == 0, ended.text
    assert f"testing copy retry: {done} combinations done.\n" in ended.text
    assert f"{skipped} combinations skipped: fewer than 5 free huge pages.\n" in ended.text
