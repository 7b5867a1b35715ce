import csv
import errno
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from uffdlab.errors import IoctlError, LabClosed, UsageError
from uffdlab.target.results import IoctlResult
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import IOCTLS, Feature
from uffdlab.widgets import IoctlPanel, PageGrid
from uffdlab.widgets._data import ioctl_call

START = 0x10_0000_0000
OLD = SimpleNamespace(features=Feature(0), continue_wp=False)
NEW = SimpleNamespace(features=Feature(sum(Feature)), continue_wp=True)


class Uffd:
    """Records the ioctls; raises its error if it has one."""

    def __init__(self):
        self.sent = []
        self.error = None

    def ioctl(self, name, values, *, source=None, where="", check=True):
        self.sent.append((name, values, source))
        if self.error:
            raise self.error
        done = values.get("len", 0)
        return IoctlResult(f"{name}({where})", 0, 1500, done, None, values, name, values)


@pytest.fixture
def region():
    lab = SimpleNamespace(capabilities=NEW, timeline=Timeline())
    return SimpleNamespace(start=START, pages=64, page_size=4096, lab=lab)


@pytest.fixture
def panel(region):
    panel = IoctlPanel(Uffd(), region)
    yield panel
    panel.close()


@pytest.mark.parametrize("name", IOCTLS)
def test_every_ioctl_can_be_chosen_and_sent(panel, name):
    panel.ioctl.value = name
    panel.check(*(str(flag.name) for flag in IOCTLS[name].modes))
    panel.send_ioctl()
    ((sent, values, _),) = panel._uffd.sent
    assert sent == name
    assert set(values) <= set(IOCTLS[name].fields)
    if "mode" in IOCTLS[name].fields:
        assert values["mode"] == sum(int(flag) for flag in IOCTLS[name].modes)
    assert panel.status.text.startswith(f"{name}(")


@pytest.mark.parametrize("name", IOCTLS)
def test_every_mode_has_a_description_and_its_linux_version(panel, name):
    panel.ioctl.value = name
    texts = [box.description for box in panel.modes.children]
    assert len(texts) == len(IOCTLS[name].modes)
    for text in texts:
        assert re.fullmatch(r"\w+ \(0x\d\): .+ \(Linux \d+\.\d+\)", text)


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_c_text_compiles(panel, tmp_path):
    # With declarations like the kernel's, because the host's headers may be older.
    structs, calls = ["struct uffdio_range { unsigned long long start, len; };"], []
    for name, row in IOCTLS.items():
        other_fields = [field for field in row.fields if not ("start" in row.fields and field in ("start", "len"))]
        flags = [f"#define {name}_MODE_{flag.name} {int(flag)}" for flag in row.modes]
        members = ("struct uffdio_range range; " if "start" in row.fields else "") + "".join(
            f"unsigned long long {field}; " for field in other_fields
        )
        if other_fields:
            structs.append(f"struct {name.lower()} {{ {members}}};")
        structs += [f"#define {name} {row.request:#x}ul", *flags]
        panel.ioctl.value = name
        panel.check(*(str(flag.name) for flag in row.modes))
        calls.append(f"static void f_{name}(int uffd) {{ {panel.c.text} }}")
    head = ["#include <err.h>", "#include <sys/ioctl.h>"]
    source = tmp_path / "calls.c"
    source.write_text("\n".join([*head, *structs, *calls]))
    command = ["gcc", "-Wall", "-Werror", "-Wno-unused-function", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("ioctl", "modes", "python"),
    [
        ("UFFDIO_CONTINUE", ["WP", "DONTWAKE"], "uffd.continue_(region[8:12], dontwake=True, wp=True)"),
        ("UFFDIO_WRITEPROTECT", [], "uffd.writeprotect(region[8:12], wp=False)"),
        ("UFFDIO_REGISTER", ["MINOR", "WP"], "uffd.register(region[8:12], 'wp', 'minor')"),
        ("UFFDIO_WAKE", [], "uffd.wake(region[8:12])"),
    ],
)
def test_the_python_text_calls_the_method(panel, ioctl, modes, python):
    panel.ioctl.value = ioctl
    panel.pages.value = "8-11"
    panel.check(*modes)
    assert panel.python.text == python


def test_bits_without_a_name_can_be_sent(panel):
    panel.bits.value = "0x100"
    assert panel.python.text == 'uffd.ioctl("UFFDIO_CONTINUE", {"start": 0x1000000000, "len": 0x40000, "mode": 0x100})'
    panel.send_ioctl()
    assert panel._uffd.sent[0][1]["mode"] == 0x100


def test_a_mode_that_this_kernel_lacks_is_marked_but_can_be_sent(region):
    region.lab.capabilities = OLD
    panel = IoctlPanel(Uffd(), region)
    (wp,) = [box for box in panel.modes.children if box.flag.name == "WP"]
    assert "since" not in wp.description
    assert "this kernel lacks it" in wp.description
    assert "this kernel lacks it" in {value: label for label, value in panel.ioctl.options}["UFFDIO_MOVE"]
    panel.check("WP")
    panel.send_ioctl()
    assert panel._uffd.sent[0][1]["mode"] == 2


def test_an_errno_is_explained(panel):
    panel._uffd.error = IoctlError(
        "UFFDIO_CONTINUE(page 3, WP)", errno.EINVAL, "this kernel does not know it", done=4096
    )
    assert panel.send_ioctl() is panel._uffd.error
    text = "UFFDIO_CONTINUE(page 3, WP) → EINVAL: this kernel does not know it (4,096 bytes were done)"
    assert panel.status.text == text
    assert panel.result is panel._uffd.error


def test_a_closed_lab_is_reported(panel):
    panel._uffd.error = LabClosed("this lab is closed; make a new one")
    assert panel.send_ioctl() is None
    assert panel.status.text == "this lab is closed; make a new one"


@pytest.mark.parametrize("wrong", ["", "x", "8-", "11-8", "64", "0-64", "-1"])
def test_an_invalid_range_of_pages_disables_the_button(panel, wrong):
    panel.pages.value = wrong
    assert panel.status.text.startswith(f"pages {wrong!r}")
    assert panel.button.disabled
    assert panel.send_ioctl() is None
    assert panel._uffd.sent == []
    panel.pages.value = "3"
    assert not panel.button.disabled
    assert panel.status.text == ""


def test_a_copy_has_the_content_that_was_entered(panel):
    panel.ioctl.value = "UFFDIO_COPY"
    panel.pages.value = "2"
    panel.data.value = "hello"
    panel.send_ioctl()
    ((_, values, source),) = panel._uffd.sent
    assert source == b"hello".ljust(4096, b"\0")
    assert values["dst"] == START + 2 * 4096
    assert panel.python.text == "uffd.copy(region[2], b'hello')"


def test_the_selection_of_the_grid_is_the_range(region, snapshot):
    grid = PageGrid(snapshot((0, 64)))
    panel = IoctlPanel(Uffd(), region, grid=grid)
    grid.selection = [8, 4]
    assert panel.pages.value == "8-11"
    assert (panel.call.start, panel.call.length) == (START + 8 * 4096, 4 * 4096)
    panel.close()
    grid.selection = [1, 1]
    assert panel.pages.value == "8-11"


def test_wrong_keywords_ioctls_and_modes_are_refused(region, panel):
    with pytest.raises(TypeError, match="did you mean 'ioctl'"):
        IoctlPanel(Uffd(), region, ioclt="UFFDIO_COPY")
    with pytest.raises(UsageError, match="UFFDIO_NOTHING"):
        IoctlPanel(Uffd(), region, ioctl="UFFDIO_NOTHING")
    with pytest.raises(UsageError, match="no mode 'MINOR'; it has DONTWAKE, WP"):
        panel.check("MINOR")


def test_the_output_without_a_kernel_has_the_call_and_its_result(panel):
    panel.check("WP")
    panel.send_ioctl()
    data, _ = panel._repr_mimebundle_()
    assert "UFFDIO_CONTINUE_MODE_WP" in data["text/html"]
    assert "done: 262,144 bytes" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_new_kernel_lacks_no_ioctl_and_no_mode():
    for name, row in IOCTLS.items():
        for flag in (None, *row.modes):
            assert not ioctl_call.lacking(name, flag, NEW)


def test_the_static_forms_have_the_call(panel, tmp_path):
    panel.check("WP")
    panel.pages.value = "8-11"
    panel.send_ioctl()
    rows = [(row["name"], row["value"]) for row in csv.DictReader(io.StringIO(panel.to_csv(tmp_path / "a.csv")))]
    assert ("pages", "8-11") in rows
    assert [name for name, value in rows if value.startswith(("WP ", "DONTWAKE "))] == ["mode, not set", "mode, set"]
    assert dict(rows)["as C"] == panel.c.text
    assert dict(rows)["result"] == panel.status.text
    assert "uffd.continue_(region[8:12], wp=True)" in panel.picture().alt
    assert panel.to_png(tmp_path / "a.png").startswith(b"\x89PNG")
    ET.fromstring(panel.to_svg(tmp_path / "a.svg"))
    assert "UFFDIO_CONTINUE_MODE_WP" in panel.to_html(tmp_path / "a.html")
    assert len(list(tmp_path.iterdir())) == 4
