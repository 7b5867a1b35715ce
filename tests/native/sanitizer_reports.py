"""A pytest plugin: a test has failed if any of its processes has left a sanitizer report."""

import os
import sys
from pathlib import Path

import pytest

_REPORTS = Path(os.environ["UFFDLAB_SANITIZER_REPORTS"])


def _take_reports():
    # Each report is of one process; it is removed, so that it counts for one test.
    found = []
    for path in sorted(_REPORTS.iterdir()):
        found.append(f"--- {path.name}\n{path.read_text(errors='replace')}")
        path.unlink()
    return "\n".join(found)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown" and (found := _take_reports()):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a sanitizer has reported an error\n{found}"
    return report


def pytest_sessionfinish(session):
    if found := _take_reports():  # of processes that fixtures of the session have ended
        sys.stderr.write(found)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
