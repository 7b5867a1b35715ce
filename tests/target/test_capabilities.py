from dataclasses import FrozenInstanceError

import pytest
from msgspec import convert

from uffdlab.target.capabilities import Capabilities, html_table, markdown_table, table
from uffdlab.uapi import Feature, RegisterMode
from uffdlab.uapi.memory import MEMORY
from uffdlab.uapi.protocol.target import KernelProbe


def probe_answer(features=Feature.POISON, continue_wp=True, ioctls=1 << 0x3F | 7):
    registered = {int(mode): {"errno": 0 if mode == RegisterMode.MISSING else 22, "ioctls": 1} for mode in RegisterMode}
    return {
        "features": int(features),
        "ioctls": ioctls,
        "ways": {"userfaultfd(2)": 0, "/dev/userfaultfd": 13},
        "modes": {"UFFDIO_CONTINUE": {0: 0, 1: 0, 2: 0 if continue_wp else 22}},
        "memory": {"anon": {"errno": 0, "register": registered}, "hugetlb": {"errno": 12, "register": {}}},
        "continue_wp": continue_wp,
    }


def probe(*args, **keywords):
    return convert(probe_answer(*args, **keywords), KernelProbe)


def test_the_target_s_answer_becomes_one_row_for_each_capability():
    found = Capabilities.from_answer("here", probe())
    assert found.continue_wp is True
    assert found.features == Feature.POISON
    texts = {row.name: row.text for row in found.rows}
    assert (texts["POISON"], texts["MOVE"]) == ("yes", "no")
    assert texts["/dev/userfaultfd"] == "EACCES"
    assert (texts["hugetlb: MISSING"], texts["anon: MINOR"]) == ("ENOMEM", "EINVAL")
    assert {row.name: row.since for row in found.rows}["UFFDIO_CONTINUE WP"] == "6.4"


def test_capabilities_cannot_be_changed():
    found = Capabilities.from_answer("here", probe())
    with pytest.raises(FrozenInstanceError):
        found.continue_wp = False
    assert not isinstance(found, dict)


def test_an_unknown_feature_bit_has_a_row():
    found = Capabilities.from_answer("here", probe(Feature(1 << 40)))
    assert [row.text for row in found.rows if row.name == "bit 40"] == ["yes"]


def test_an_unknown_ioctl_has_a_row():
    found = Capabilities.from_answer("here", probe(ioctls=1 << 0x3F | 7 | 1 << 0x3E))
    assert [(row.name, row.text) for row in found.rows if row.name.startswith("number")] == [("number 0x3e", "yes")]


def test_missing_returns_the_first_capability_that_the_kernel_lacks():
    found = Capabilities.from_answer("here", probe(continue_wp=False))
    assert found.missing("POISON", "UFFDIO_CONTINUE", "UFFDIO_CONTINUE WP", "MOVE") == "UFFDIO_CONTINUE WP"
    assert found.missing("POISON") == ""
    with pytest.raises(KeyError):
        found.missing("POISEN")


def test_the_table_has_one_column_for_each_kernel():
    both = [Capabilities.from_answer("a<b", probe()), Capabilities.from_answer("c", probe(continue_wp=False))]
    row = next(row for row in table(both) if row[1] == "UFFDIO_CONTINUE WP")
    assert row == ["mode", "UFFDIO_CONTINUE WP", "6.4", "yes", "EINVAL"]
    assert "| mode | UFFDIO_CONTINUE WP | 6.4 | yes | EINVAL |" in markdown_table(both)
    assert "a&lt;b" in html_table(both)
    assert "a<b" not in html_table(both)
    assert str(both[0]).splitlines()[0].split() == ["name", "since", "a<b"]


def test_every_memory_type_has_a_row_for_each_register_mode():
    registered = {int(mode): {"errno": 0, "ioctls": 1} for mode in RegisterMode}
    complete = {**probe_answer(), "memory": {name: {"errno": 0, "register": registered} for name in MEMORY}}
    assert sum(
        row.group == "memory" for row in Capabilities.from_answer("here", convert(complete, KernelProbe)).rows
    ) == 4 * len(MEMORY)
