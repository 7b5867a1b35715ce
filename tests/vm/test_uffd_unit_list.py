"""docs/reference/uffd-unit-tests.md names every test of the newest kernel's uffd-unit-tests, with its memory."""

import re
import sys
from pathlib import Path, PurePosixPath

import pytest

from uffdlab.kernels.supply import Supply

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from test_uffd_unit_tests import KERNEL_ALL, rows

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(1800)]

SOURCE = PurePosixPath("tools/testing/selftests/mm/uffd-unit-tests.c")


def test_the_document_lists_each_test_and_its_memory():
    supply = Supply()
    text = supply.sources.read(supply.source_of("debian/trixie-backports"), [SOURCE])[SOURCE].decode()
    table = re.search(r"uffd_test_case_t uffd_tests\[\] = \{(.*?)\n\};", text, re.DOTALL)[1]
    found = {}
    for case in re.split(r"\n\t\{", table)[1:]:
        targets = re.search(r"\.mem_targets = ([^,]*),", case)[1].split("|")
        names = {name.strip().removeprefix("MEM_").lower().replace("_", "-") for name in targets}
        found[re.search(r'\.name = "(.*?)"', case)[1]] = KERNEL_ALL if names == {"all"} else names
    assert {there: theirs for there, theirs, _, _ in rows()} == found
