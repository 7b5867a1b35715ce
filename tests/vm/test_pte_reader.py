"""The PTE reader's test program: entries of every kind compared with pagemap, each error, mappings that change."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab import Lab, kernels
from uffdlab.kernels import catalogue
from uffdlab.uapi.protocol.agent import ReserveHugepages, TurnSwapOn

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

CASES = 15  # of pte_reader_held.c
FOLDER = catalogue.default_file().parent / "6.1" / "pte-reader"


def compile_program(source, folder):
    program = folder / source.stem
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", f"-I{FOLDER / 'include' / 'uapi'}"]
    subprocess.run(["cc", *flags, source, "-o", program], check=True)
    return program


KERNELS = pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ("6.1-series", {}),
        *(
            pytest.param(f"debian/{name}", {"pte_reader": True}, marks=pytest.mark.long)
            for name in ("bookworm", "trixie", "trixie-backports")
        ),
    ],
)


@KERNELS
def test_the_reader_agrees_with_the_page_tables(tmp_path, kernel, more):
    program = compile_program(FOLDER / "pte_reader_test.c", tmp_path)
    with Lab(kernel, memory_mib=5120, **more) as lab:
        for size, count in ((2 << 20, 2), (1 << 30, 1)):
            lab.ask(ReserveHugepages(size, count), deadline=120)  # the kernel clears them
        lab.ask(TurnSwapOn())
        done = lab.exec([program.name, "3"], push=[program], deadline=600)
        assert done.status == 0, done.text
        skipped = [line.partition(" - ")[2] for line in done.text.splitlines() if "# SKIP" in line]
        assert skipped == []


@KERNELS
def test_a_change_during_the_read_gives_a_consistent_result(tmp_path, kernel, more):
    program = compile_program(Path(__file__).with_name("pte_reader_held.c"), tmp_path)
    with Lab(kernel, hugepages=4, **more) as lab:
        done = lab.exec([program.name], push=[program], deadline=600)
    assert done.status == 0, done.text
    assert len(re.findall("^ok ", done.text, re.MULTILINE)) == CASES


ENDS = "(exits|calls execve)"
# Each mutation of the reader: the right line, the wrong line, which cases fail, and how many.
MUTATIONS = {
    "the first entries are copied out again": (
        "ret = pte_reader_chunk(task, mm, addr, stride, entries, count);",
        "ret = to == u64_to_user_ptr(request->entries) ? pte_reader_chunk(task, mm, addr, stride, entries, count) : 0;",
        "",
        CASES,
    ),
    "a task that has left its address space is accepted": (
        "return READ_ONCE(task->mm) == mm ? 0 : -ESRCH;",
        "return 0;",
        ENDS,
        2,
    ),
    "the reference on the address space is never dropped": ("\t\tmmput(mm);\n", "", ENDS, 2),
}


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_test_program_finds_each_mutation_of_the_reader(tmp_path, monkeypatch, mutation):
    """The kernel is one for which the mutated reader is a module, so that no kernel is built."""
    right, wrong, which, count = MUTATIONS[mutation]
    folder = tmp_path / "6.1" / "pte-reader"
    shutil.copytree(FOLDER, folder)
    text = (folder / "pte_reader.c").read_text()
    assert text.count(right) == 1
    (folder / "pte_reader.c").write_text(text.replace(right, wrong))
    # In the package uffdlab.kernels the name of the module is a function.
    monkeypatch.setattr(
        sys.modules["uffdlab.kernels.pte_reader_module"], "default_file", lambda: tmp_path / "kernels.toml"
    )
    module = kernels.pte_reader("debian/trixie")
    try:
        program = compile_program(Path(__file__).with_name("pte_reader_held.c"), tmp_path)
        with Lab("debian/trixie", hugepages=4, pte_reader=True) as lab:
            done = lab.exec([program.name], push=[program], deadline=600)
    finally:
        module.unlink()
    failed = re.findall("^not ok .*", done.text, re.MULTILINE)
    assert [line for line in failed if not re.search(which, line)] == []
    assert len(failed) == count, done.text
