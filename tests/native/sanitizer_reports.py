"""A pytest plugin: a test has failed if any process of it has left a report, whatever the test made of its end."""

import os
import sys
from pathlib import Path

import pytest

_REPORTS = Path(os.environ["UFFDLAB_SANITIZER_REPORTS"])


def _take():
    # Each report is of one process, and of one test.
    found = []
    for path in sorted(_REPORTS.iterdir()):
        found.append(f"--- {path.name}\n{path.read_text(errors='replace')}")
        path.unlink()
    return "\n".join(found)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown" and (found := _take()):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a sanitizer has something to say\n{found}"
    return report


def pytest_sessionfinish(session):
    if found := _take():  # of what a session's fixtures have ended
        sys.stderr.write(found)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
