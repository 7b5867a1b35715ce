"""From a name to a kernel: the cache, the build, and everything that can go wrong on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny_kernel import elf

from uffdlab import errors
from uffdlab.kernels import host_checks, versions
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.catalogue import load
from uffdlab.kernels.progress import Silent
from uffdlab.kernels.supply import Supply

DEADLINE = 60


def get(lab, name, **options):
    return lab.supply().get(name, progress=Silent(), **options)


def processes_of(lab) -> list[int]:
    """Every process that works in the lab's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(lab.folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def wait_for(condition) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "never came true"
        time.sleep(0.02)


def half_made(lab) -> bool:
    return (lab.tree / "objects" / "mm" / "minor.o").exists()


# --- building


def test_builds_and_keeps(lab):
    kernel = get(lab, "tiny-two")
    assert kernel.name == "tiny-two"
    assert kernel.release == "6.1.0-two"
    assert kernel.image.read_bytes().startswith(elf())
    assert "CONFIG_USERFAULTFD=y" in kernel.config.read_text()
    assert "CC      mm/minor.o" in kernel.log.read_text()
    assert lab.leftovers() == []
    assert get(lab, "tiny-two") == kernel
    assert lab.archive.resolved == lab.archive.downloaded == 1


def test_cached_needs_neither_archive_nor_tree(lab):
    kernel = get(lab, "tiny-base")
    shutil.rmtree(lab.tree)
    lab.archive.versions.clear()
    assert get(lab, "tiny-base") == kernel


def test_cached_needs_no_compiler(lab, monkeypatch, tmp_path):
    kernel = get(lab, "tiny-base")
    two = lab.toml.parent / "two.patch"
    get(lab, "tiny-two")
    two.write_text(two.read_text() + "\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_checks.toolchain() == ""
    assert get(lab, "tiny-base") == kernel
    assert lab.supply().find("tiny-two") is None
    with pytest.raises(errors.HostUnsupported, match="missing gcc"):
        get(lab, "tiny-two")


def test_a_damaged_record_of_the_version_is_written_again(lab):
    kernel = get(lab, "tiny-base")
    for note in (lab.cache.folder / "resolved").iterdir():
        note.write_text(note.read_text()[:20])
    assert get(lab, "tiny-base") == kernel


def test_variant_compiles_only_what_differs(lab):
    base = get(lab, "tiny-base")
    assert base.log.read_text().count("  CC ") == 3
    other = lab.tree / "objects" / "mm" / "other.o"
    before = other.stat().st_mtime_ns
    # the header that the patch changes is a prerequisite of every object of the tiny kernel, minor.c of one only
    (lab.toml.parent / "two.patch").write_text(
        "--- a/mm/minor.c\n+++ b/mm/minor.c\n@@ -4 +4 @@\n-\treturn MODE;\n+\treturn MODE + 1;\n"
    )
    two = get(lab, "tiny-two")
    assert two.log.read_text().count("  CC ") == 1
    assert other.stat().st_mtime_ns == before
    assert two.image.read_bytes() != base.image.read_bytes()


def test_a_flavour_has_objects_of_its_own(lab):
    (lab.toml.parent / "more.config").write_text("CONFIG_INET=y\n")
    with lab.toml.open("a") as file:
        file.write('\n[flavour.more]\nconfig = ["more.config"]\n')
    plain, flavoured = get(lab, "tiny-base"), get(lab, "tiny-base+more")
    assert "CONFIG_INET=y" in flavoured.config.read_text()
    assert "CONFIG_INET" not in plain.config.read_text()
    # neither has made the other's objects stale
    (lab.toml.parent / "two.patch").write_text(
        "--- a/mm/minor.c\n+++ b/mm/minor.c\n@@ -4 +4 @@\n-\treturn MODE;\n+\treturn MODE + 1;\n"
    )
    assert get(lab, "tiny-two").log.read_text().count("  CC ") == 1
    assert get(lab, "tiny-two+more").log.read_text().count("  CC ") == 1


def test_same_inputs_same_bytes_whatever_was_built_before(lab):
    first = get(lab, "tiny-base").image.read_bytes()
    get(lab, "tiny-two")
    assert lab.supply().remove("tiny-base") > 0
    assert get(lab, "tiny-base").image.read_bytes() == first


def test_progress_counts_what_is_compiled(lab):
    printed = []

    class Recording(Silent):
        def stage(self, text, total=0, unit=""):
            printed.append([text, total, unit, 0])

        def at(self, done):
            printed[-1][3] = max(printed[-1][3], done)

    lab.supply().get("tiny-base", progress=Recording())
    assert ["compiling", 3, "objects", 3] in printed
    assert ["linking", 0, "", 0] in printed
    unpacked = next(part for part in printed if part[0] == "unpacking the source")
    assert 0 < unpacked[3] <= unpacked[1]


def test_refresh_builds_a_newer_version(lab):
    old = get(lab, "tiny-base")
    lab.archive.versions["linux-source-tiny"] = "6.1.0-2"
    assert get(lab, "tiny-base") == old
    new = get(lab, "tiny-base", refresh=True)
    assert new.key != old.key
    assert new.image.read_bytes() != old.image.read_bytes()
    assert len(list(lab.tree.glob("source-*"))) == 1


def test_version_gone_from_the_mirror_is_looked_up_again(lab):
    old = get(lab, "tiny-base")
    shutil.rmtree(lab.tree)
    lab.archive.versions["linux-source-tiny"] = "6.1.0-2"
    two = get(lab, "tiny-two")
    assert lab.archive.resolved == 2
    assert two.release == "6.1.0-two"
    assert get(lab, "tiny-base").key != old.key


def test_packaged_kernel(lab):
    kernel = get(lab, "packaged/here")
    assert kernel.release == "6.1.0-test"
    assert kernel.image.name == "bzImage"  # its payload is nothing that can be unpacked
    assert kernel.config.read_text() == "CONFIG_A=y\n"
    assert get(lab, "packaged/here") == kernel
    assert lab.archive.downloaded == 1
    assert lab.leftovers() == []


def test_list_find_log_remove(lab):
    stock = lab.supply()
    assert [row.kernel for row in stock.available()] == [None] * 7
    assert stock.find("tiny-base") is None
    assert stock.log("tiny-base") is None
    kernel = get(lab, "tiny-base")
    assert stock.find("tiny-base") == kernel
    assert stock.log("tiny-base") == kernel.log
    size = sum(path.stat().st_size for path in kernel.image.parent.iterdir())
    assert stock.remove("tiny-base") == size
    assert stock.find("tiny-base") is None
    assert not kernel.image.parent.exists()
    for ask in (stock.find, stock.log, stock.remove):
        with pytest.raises(errors.UnknownKernel):
            ask("tiny")


# --- more than one at a time, and sudden ends


def test_concurrent_builds_build_once(lab, tmp_path):
    count = tmp_path / "count"
    environment = {**os.environ, "UFFDLAB_TEST_COUNT": str(count), "UFFDLAB_TEST_SLOW": "0.3"}
    running = [
        subprocess.Popen(lab.script("tiny-base"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    shown = [process.communicate(timeout=DEADLINE) for process in running]
    assert {out for out, _ in shown} == {shown[0][0]}, shown
    assert [process.returncode for process in running] == [0, 0, 0]
    assert count.read_text() == "linked\n"


@pytest.mark.parametrize("whole_group", [False, True], ids=["us", "us and make"])
def test_kill_9_then_a_clean_build(lab, whole_group):
    want = get(lab, "tiny-two").image.read_bytes()
    get(lab, "tiny-base")
    lab.supply().remove("tiny-two")
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "3"}
    (lab.tree / "objects" / "mm" / "minor.o").unlink()
    process = subprocess.Popen(lab.script("tiny-two"), env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: half_made(lab))
    process.kill()
    if whole_group:
        for pid in processes_of(lab):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(DEADLINE)
    wait_for(lambda: not processes_of(lab))
    assert lab.supply().find("tiny-two") is None
    assert get(lab, "tiny-two").image.read_bytes() == want
    assert lab.leftovers() == []


def test_kill_9_keeps_what_is_whole(lab):
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "60", "UFFDLAB_TEST_SLOW_OBJECT": "*minor*"}
    process = subprocess.Popen(lab.script("tiny-base"), env=environment, stderr=subprocess.DEVNULL)
    objects = [lab.tree / "objects" / name for name in ("mm/other.o", "fs/third.o")]
    wait_for(lambda: half_made(lab) and all(each.exists() and each.read_bytes()[:4] == b"\x7fELF" for each in objects))
    time.sleep(1)  # for gcc to end
    process.kill()
    process.wait(DEADLINE)
    wait_for(lambda: not processes_of(lab))
    assert not half_made(lab)
    assert get(lab, "tiny-base").log.read_text().count("  CC ") == 1


def test_kill_9_while_unpacking(lab):
    command = lab.script("tiny-base")
    command[2] = command[2].replace(
        "print(lab",
        (
            "import os, uffdlab.kernels.tree as tree\n"
            "real = tree.Tree._extract\n"
            "def half(self, command, *rest, **how):\n"
            "    real(self, command, *rest, **how)\n"
            "    if command[0] == 'tar':\n"
            "        (self.folder / 'unpacking' / 'mm' / 'other.c').unlink()\n"
            "        os.kill(os.getpid(), 9)\n"
            "tree.Tree._extract = half\n"
            "print(lab"
        ),
    )
    assert subprocess.run(command, stderr=subprocess.PIPE, check=False, timeout=DEADLINE).returncode == -signal.SIGKILL
    assert not list(lab.tree.glob("source-*"))
    kernel = get(lab, "tiny-base")
    assert kernel.log.read_text().count("  CC ") == 3
    assert lab.leftovers() == []


def test_ctrl_c_ends_make_and_keeps_what_is_whole(lab):
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "30"}
    process = subprocess.Popen(lab.script("tiny-base"), env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: half_made(lab))
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=DEADLINE)
    assert "KeyboardInterrupt" in shown
    assert processes_of(lab) == []
    assert not half_made(lab)
    assert lab.leftovers() == []
    assert get(lab, "tiny-base").log.read_text().count("  CC ") == 3


# --- errors


def test_unknown_kernel_suggests_near_names(lab):
    with pytest.raises(errors.UnknownKernel, match="did you mean tiny-two") as caught:
        get(lab, "tiny-tow")
    assert caught.value.near[0] == "tiny-two"
    assert caught.value.kernel == "tiny-tow"
    assert not lab.cache.folder.exists()


def test_patch_that_does_not_apply(lab):
    get(lab, "tiny-two")
    with pytest.raises(errors.PatchError, match=r"stale\.patch does not apply") as caught:
        get(lab, "tiny-stale")
    assert "include/mode.h" in caught.value.output
    assert "#define MODE 7" in caught.value.output  # the hunk
    assert caught.value.patch.endswith("stale.patch")
    assert lab.leftovers() == []
    assert lab.supply().find("tiny-stale") is None
    lab.supply().remove("tiny-two")
    assert get(lab, "tiny-two").log.read_text().count("  CC ") == 0  # the tree was not touched


def test_build_failure_has_the_compilers_message(lab):
    with pytest.raises(errors.BuildError, match=r"mm/minor\.c:4:\d+: error: .*MODE_WP") as caught:
        get(lab, "tiny-broken")
    assert "MODE_WP" in Path(caught.value.log).read_text()
    assert lab.supply().log("tiny-broken") == Path(caught.value.log)
    assert lab.leftovers() == []
    get(lab, "tiny-base")


def test_dropped_option_is_named(lab):
    with pytest.raises(errors.BuildError, match="dropped CONFIG_UNKNOWN=y"):
        get(lab, "tiny-dropped")
    assert lab.leftovers() == []


def test_disk_full_beforehand(lab, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    for name in ("tiny-base", "packaged/here"):
        with pytest.raises(errors.HostUnsupported, match="GB are free") as caught:
            get(lab, name)
        assert caught.value.missing == "disk space"
    assert lab.archive.downloaded == 0
    assert lab.leftovers() == []


def test_disk_full_while_compiling(lab):
    with pytest.raises(errors.HostUnsupported, match="is full") as caught:
        get(lab, "tiny-full")
    assert caught.value.missing == "disk space"
    assert lab.leftovers() == []
    get(lab, "tiny-base")


@pytest.mark.parametrize("folder", ["/proc/nope", "/etc/passwd"])
def test_a_cache_folder_that_cannot_be_made(lab, folder):
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_CACHE"):
        Supply(load(lab.toml), Cache(Path(folder)), lab.archive).get("tiny-base", progress=Silent())


@pytest.mark.parametrize(
    ("number", "missing"),
    [(errno.ENOSPC, "disk space"), (errno.EACCES, "a writable cache"), (errno.EROFS, "a writable cache")],
)
def test_disk_errors_of_our_own_writes(lab, monkeypatch, number, missing):
    def fail(*_):
        raise OSError(number, os.strerror(number), str(lab.cache.folder))

    monkeypatch.setattr(versions, "write_atomically", fail)
    with pytest.raises(errors.HostUnsupported) as caught:
        get(lab, "tiny-base")
    assert caught.value.missing == missing


def test_missing_build_tools_are_named_before_anything_is_fetched(lab, monkeypatch, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("gcc", "ld", "make", "patch", "tar", "xz", "sh"):
        (tools / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(errors.HostUnsupported, match=r"bc.*flex.*bison.*install-packages") as caught:
        get(lab, "tiny-base")
    assert "bc, flex, bison" in caught.value.missing
    assert lab.archive.resolved == 0


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_other_hosts_are_refused(lab, monkeypatch, system, machine):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(errors.HostUnsupported, match=f"{machine} {system}"):
        get(lab, "tiny-base")


def test_cache_path_that_make_cannot_take(lab, tmp_path):
    lab.folder = tmp_path / "with space"
    shutil.copytree(tmp_path / "kernel-patch", lab.folder / "kernel-patch")
    with pytest.raises(errors.HostUnsupported, match="spaces or colons"):
        get(lab, "tiny-base")
    assert get(lab, "packaged/here").image.is_file()


def test_vmlinux_without_pvh_note(lab):
    (lab.toml.parent / "two.patch").write_text(
        "--- a/Makefile\n+++ b/Makefile\n@@ -11 +11 @@\n-\tcat pvh.elf $(objects) > $@\n+\tcat $(objects) > $@\n"
    )
    with pytest.raises(errors.BuildError, match="PVH"):
        get(lab, "tiny-two")
    assert lab.leftovers() == []
