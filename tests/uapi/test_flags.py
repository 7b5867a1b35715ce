"""Flags and request numbers equal those of the kernel's header; each flag has the version that introduced it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from uffdlab import uapi
from uffdlab.uapi.layout import LAYOUTS

HEADER = Path("/usr/include/linux/userfaultfd.h")


def test_request_numbers_are_those_of_the_abi():
    """The numbers that strace prints (layout of asm-generic/ioctl.h)."""
    assert {name: row.request for name, row in uapi.IOCTLS.items()} == {
        "UFFDIO_API": 0xC018AA3F,
        "UFFDIO_REGISTER": 0xC020AA00,
        "UFFDIO_UNREGISTER": 0x8010AA01,
        "UFFDIO_WAKE": 0x8010AA02,
        "UFFDIO_COPY": 0xC028AA03,
        "UFFDIO_ZEROPAGE": 0xC020AA04,
        "UFFDIO_MOVE": 0xC028AA05,
        "UFFDIO_WRITEPROTECT": 0xC018AA06,
        "UFFDIO_CONTINUE": 0xC020AA07,
        "UFFDIO_POISON": 0xC020AA08,
        "UFFDIO_RWPROTECT": 0xC018AA09,
        "UFFDIO_SET_MODE": 0x4010AA0A,
    }


@pytest.mark.skipif(not HEADER.exists() or not shutil.which("cc"), reason="no kernel headers or no C compiler here")
def test_the_installed_header_has_the_same_values(tmp_path):
    """Only the macros that the header defines are compared; an older one has fewer."""
    text = HEADER.read_text()
    ours = {name: row.request for name, row in uapi.IOCTLS.items()}
    for prefix, kind in (
        ("UFFD_FEATURE_", uapi.Feature),
        ("UFFDIO_REGISTER_MODE_", uapi.RegisterMode),
        ("UFFDIO_COPY_MODE_", uapi.CopyMode),
        ("UFFDIO_CONTINUE_MODE_", uapi.ContinueMode),
        ("UFFDIO_WRITEPROTECT_MODE_", uapi.WriteprotectMode),
        ("UFFD_PAGEFAULT_FLAG_", uapi.FaultFlag),
    ):
        ours |= {prefix + flag.name: int(flag) for flag in kind}
    ours |= {f"UFFD_EVENT_{event.name}": int(event) for event in uapi.Event}
    known = sorted(name for name in ours if re.search(rf"#define\s+{name}\b", text))
    assert len(known) > 30, "too few macros were found in the header"
    lines = "".join(f'printf("{name} %llu\\n", (unsigned long long){name});' for name in known)
    source = tmp_path / "names.c"
    source.write_text(
        f"#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/userfaultfd.h>\nint main(void){{{lines}}}"
    )
    subprocess.run(["cc", "-o", tmp_path / "names", source], check=True)
    output = subprocess.run([tmp_path / "names"], check=True, capture_output=True, text=True).stdout
    compiled = {name: int(value) & 0xFFFFFFFF for name, value in (line.split() for line in output.splitlines())}
    assert compiled == {name: ours[name] for name in known}


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, uapi.ContinueMode, "0"),
        (3, uapi.ContinueMode, "DONTWAKE|WP"),
        (0x102, uapi.ContinueMode, "WP|0x100"),
        (1, uapi.WriteprotectMode, "WP"),
        (1 << 40, uapi.Feature, "0x10000000000"),
    ],
)
def test_unknown_bits_are_printed_as_numbers(value, kind, text):
    assert uapi.flag_names(value, kind) == text


def test_ioctls_and_layouts_have_the_same_names():
    assert uapi.IOCTLS.keys() == LAYOUTS.keys()


def test_every_feature_and_mode_has_the_version_that_introduced_it():
    assert set(uapi.FEATURES_SINCE) == set(uapi.Feature)
    for row in uapi.IOCTLS.values():
        assert list(row.mode_bits) == [flag.name for flag in row.modes]
        assert all(bit.flag is row.modes[name] and bit.does and bit.since for name, bit in row.mode_bits.items())
        assert row.output in ("", *row.fields)
