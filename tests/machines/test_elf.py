"""An ELF file is cut to what the loader reads."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.machines import elf

PYTHON = Path(sys.executable).resolve()


def test_interpreter_returns_the_loader_of_a_program():
    assert Path(elf.interpreter(PYTHON.read_bytes())).exists()


def test_a_library_has_no_loader():
    import _cffi_backend

    assert elf.interpreter(Path(_cffi_backend.__file__).read_bytes()) == ""


def test_a_program_cut_to_what_the_loader_reads_still_runs(tmp_path):
    original = Path("/bin/true").read_bytes()
    cut = elf.loaded(original)
    assert len(cut) < len(original)
    program = tmp_path / "true"
    program.write_bytes(cut)
    program.chmod(0o755)
    subprocess.run([program], check=True)


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x01" + b"\xff" * 100]
)
def test_a_file_that_is_not_elf_is_refused(data):
    with pytest.raises(elf.NotElf):
        elf.loaded(data)


@given(st.data())
def test_a_damaged_file_is_read_or_refused(data):
    original = bytearray(Path("/bin/true").read_bytes()[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        original[data.draw(st.integers(0, 255))] = data.draw(st.integers(0, 255))
    for function in (elf.loaded, elf.interpreter):
        with contextlib.suppress(elf.NotElf, UnicodeDecodeError):
            function(bytes(original))
