"""Every behaviour test can fail: each is run again with a client that is broken on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
from broken_client import BREAKS  # noqa: E402
from test_uffd_unit_tests import FILES, rows  # noqa: E402

pytestmark = [pytest.mark.vm, pytest.mark.long]

KERNELS = ("6.1-series", "debian/trixie", "debian/trixie-backports")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of each test: a list of (kernel, phase, outcome, reason)."""
    found = {}
    for number, kernel in enumerate(KERNELS):
        report = tmp_path_factory.mktemp("broken") / f"{number}.json"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "broken_client", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
             *(HERE / f"{name}.py" for name in FILES)],
            env={**os.environ, "PYTHONPATH": str(HERE), "UFFDLAB_BROKEN_KERNEL": kernel,
                 "UFFDLAB_BROKEN_REPORT": str(report)},
            cwd=HERE.parent.parent, timeout=900, check=False, capture_output=True,
        )  # fmt: skip
        for name, result in json.loads(report.read_text()).items():
            found.setdefault(name, []).append((kernel, *result))
    return found


def test_every_test_of_the_table_has_a_way_to_break_the_client():
    assert {here for _, _, here, _ in rows()} <= set(BREAKS)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", BREAKS)
def test_every_behaviour_test_fails_with_a_broken_client(results, name):
    ran = [result for result in results.get(name, []) if result[2] != "skipped"]
    assert ran, f"no kernel could run it: {results.get(name)}"
    for kernel, phase, outcome, reason in ran:
        assert (phase, outcome) == ("call", "failed"), (kernel, reason)
