"""A kernel is supplied by its name, from the cache or by a build, and each failure is reported."""

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
    """Return the PIDs of the processes that have the lab's folder in their command line."""
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
        assert time.monotonic() < until, "the condition did not become true"
        time.sleep(0.02)


def is_compiling(lab) -> bool:
    return (lab.tree / "objects" / "mm" / "minor.o").exists()


# --- building


def test_a_kernel_is_built_and_cached(lab):
    kernel = get(lab, "tiny-two")
    assert kernel.name == "tiny-two"
    assert kernel.release == "6.1.0-two"
    assert kernel.image.read_bytes().startswith(elf())
    assert "CONFIG_USERFAULTFD=y" in kernel.config.read_text()
    assert "CC      mm/minor.o" in kernel.log.read_text()
    assert lab.leftovers() == []
    assert get(lab, "tiny-two") == kernel
    assert lab.archive.resolved == lab.archive.downloaded == 1


def test_a_cached_kernel_needs_neither_archive_nor_tree(lab):
    kernel = get(lab, "tiny-base")
    shutil.rmtree(lab.tree)
    lab.archive.versions.clear()
    assert get(lab, "tiny-base") == kernel


def test_a_cached_kernel_needs_no_compiler(lab, monkeypatch, tmp_path):
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
    for record in (lab.cache.folder / "resolved").iterdir():
        record.write_text(record.read_text()[:20])
    assert get(lab, "tiny-base") == kernel


def test_a_variant_compiles_only_what_differs(lab):
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
    # each still has its own objects
    (lab.toml.parent / "two.patch").write_text(
        "--- a/mm/minor.c\n+++ b/mm/minor.c\n@@ -4 +4 @@\n-\treturn MODE;\n+\treturn MODE + 1;\n"
    )
    assert get(lab, "tiny-two").log.read_text().count("  CC ") == 1
    assert get(lab, "tiny-two+more").log.read_text().count("  CC ") == 1


def test_the_same_inputs_build_the_same_image(lab):
    first = get(lab, "tiny-base").image.read_bytes()
    get(lab, "tiny-two")
    assert lab.supply().remove("tiny-base") > 0
    assert get(lab, "tiny-base").image.read_bytes() == first


def test_progress_counts_the_compiled_objects(lab):
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


def test_a_version_gone_from_the_mirror_is_looked_up_again(lab):
    old = get(lab, "tiny-base")
    shutil.rmtree(lab.tree)
    lab.archive.versions["linux-source-tiny"] = "6.1.0-2"
    two = get(lab, "tiny-two")
    assert lab.archive.resolved == 2
    assert two.release == "6.1.0-two"
    assert get(lab, "tiny-base").key != old.key


def test_a_packaged_kernel_is_downloaded_and_cached(lab):
    kernel = get(lab, "packaged/here")
    assert kernel.release == "6.1.0-test"
    assert kernel.image.name == "bzImage"  # its payload cannot be unpacked
    assert kernel.config.read_text() == "CONFIG_A=y\n"
    assert get(lab, "packaged/here") == kernel
    assert lab.archive.downloaded == 1
    assert lab.leftovers() == []


def test_kernels_are_listed_found_and_removed(lab):
    supply = lab.supply()
    assert [row.kernel for row in supply.available()] == [None] * 7
    assert supply.find("tiny-base") is None
    assert supply.log("tiny-base") is None
    kernel = get(lab, "tiny-base")
    assert supply.find("tiny-base") == kernel
    assert supply.log("tiny-base") == kernel.log
    size = sum(path.stat().st_size for path in kernel.image.parent.iterdir())
    assert supply.remove("tiny-base") == size
    assert supply.find("tiny-base") is None
    assert not kernel.image.parent.exists()
    for call in (supply.find, supply.log, supply.remove):
        with pytest.raises(errors.UnknownKernel):
            call("tiny")


# --- concurrent and interrupted builds


def test_concurrent_calls_build_once(lab, tmp_path):
    count = tmp_path / "count"
    environment = {**os.environ, "UFFDLAB_TEST_COUNT": str(count), "UFFDLAB_TEST_SLOW": "0.3"}
    running = [
        subprocess.Popen(lab.script("tiny-base"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=DEADLINE) for process in running]
    assert {output for output, _ in outputs} == {outputs[0][0]}, outputs
    assert [process.returncode for process in running] == [0, 0, 0]
    assert count.read_text() == "linked\n"


@pytest.mark.parametrize("whole_group", [False, True], ids=["python", "python and make"])
def test_a_build_after_kill_9_makes_the_same_image(lab, whole_group):
    expected = get(lab, "tiny-two").image.read_bytes()
    get(lab, "tiny-base")
    lab.supply().remove("tiny-two")
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "3"}
    (lab.tree / "objects" / "mm" / "minor.o").unlink()
    process = subprocess.Popen(lab.script("tiny-two"), env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: is_compiling(lab))
    process.kill()
    if whole_group:
        for pid in processes_of(lab):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(DEADLINE)
    wait_for(lambda: not processes_of(lab))
    assert lab.supply().find("tiny-two") is None
    assert get(lab, "tiny-two").image.read_bytes() == expected
    assert lab.leftovers() == []


def test_complete_objects_are_used_again_after_kill_9(lab):
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "60", "UFFDLAB_TEST_SLOW_OBJECT": "*minor*"}
    process = subprocess.Popen(lab.script("tiny-base"), env=environment, stderr=subprocess.DEVNULL)
    objects = [lab.tree / "objects" / name for name in ("mm/other.o", "fs/third.o")]
    wait_for(
        lambda: is_compiling(lab) and all(path.exists() and path.read_bytes()[:4] == elf()[:4] for path in objects)
    )
    time.sleep(1)  # for gcc to end
    process.kill()
    process.wait(DEADLINE)
    wait_for(lambda: not processes_of(lab))
    assert not is_compiling(lab)
    assert get(lab, "tiny-base").log.read_text().count("  CC ") == 1


def test_a_source_is_unpacked_again_after_kill_9(lab):
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


def test_ctrl_c_ends_make_and_removes_the_partial_object(lab):
    environment = {**os.environ, "UFFDLAB_TEST_SLOW": "30"}
    process = subprocess.Popen(lab.script("tiny-base"), env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: is_compiling(lab))
    process.send_signal(signal.SIGINT)
    _, error_output = process.communicate(timeout=DEADLINE)
    assert "KeyboardInterrupt" in error_output
    assert processes_of(lab) == []
    assert not is_compiling(lab)
    assert lab.leftovers() == []
    assert get(lab, "tiny-base").log.read_text().count("  CC ") == 3


# --- errors


def test_an_unknown_kernel_suggests_near_names(lab):
    with pytest.raises(errors.UnknownKernel, match="did you mean tiny-two") as caught:
        get(lab, "tiny-tow")
    assert caught.value.near[0] == "tiny-two"
    assert caught.value.kernel == "tiny-tow"
    assert not lab.cache.folder.exists()


def test_a_patch_that_does_not_apply_is_an_error(lab):
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


def test_a_build_failure_has_the_compiler_s_message(lab):
    with pytest.raises(errors.BuildError, match=r"mm/minor\.c:4:\d+: error: .*MODE_WP") as caught:
        get(lab, "tiny-broken")
    assert "MODE_WP" in Path(caught.value.log).read_text()
    assert lab.supply().log("tiny-broken") == Path(caught.value.log)
    assert lab.leftovers() == []
    get(lab, "tiny-base")


def test_the_error_names_a_dropped_option(lab):
    with pytest.raises(errors.BuildError, match="dropped CONFIG_UNKNOWN=y"):
        get(lab, "tiny-dropped")
    assert lab.leftovers() == []


def test_too_little_disk_space_is_reported_before_the_build(lab, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    for name in ("tiny-base", "packaged/here"):
        with pytest.raises(errors.HostUnsupported, match="GB are free") as caught:
            get(lab, name)
        assert caught.value.missing == "disk space"
    assert lab.archive.downloaded == 0
    assert lab.leftovers() == []


def test_a_disk_that_fills_during_the_build_is_reported(lab):
    with pytest.raises(errors.HostUnsupported, match="is full") as caught:
        get(lab, "tiny-full")
    assert caught.value.missing == "disk space"
    assert lab.leftovers() == []
    get(lab, "tiny-base")


@pytest.mark.parametrize("folder", ["/proc/nope", "/etc/passwd"])
def test_a_cache_folder_that_cannot_be_made_is_reported(lab, folder):
    with pytest.raises(errors.HostUnsupported, match="UFFDLAB_CACHE"):
        Supply(load(lab.toml), Cache(Path(folder)), lab.archive).get("tiny-base", progress=Silent())


@pytest.mark.parametrize(
    ("number", "missing"),
    [(errno.ENOSPC, "disk space"), (errno.EACCES, "a writable cache"), (errno.EROFS, "a writable cache")],
)
def test_a_failed_write_to_the_cache_is_reported(lab, monkeypatch, number, missing):
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


def test_a_cache_path_with_a_space_is_refused_for_builds(lab, tmp_path):
    lab.folder = tmp_path / "with space"
    shutil.copytree(tmp_path / "kernel-patch", lab.folder / "kernel-patch")
    with pytest.raises(errors.HostUnsupported, match="spaces or colons"):
        get(lab, "tiny-base")
    assert get(lab, "packaged/here").image.is_file()


def test_a_vmlinux_without_pvh_note_is_an_error(lab):
    (lab.toml.parent / "two.patch").write_text(
        "--- a/Makefile\n+++ b/Makefile\n@@ -11 +11 @@\n-\tcat pvh.elf $(objects) > $@\n+\tcat $(objects) > $@\n"
    )
    with pytest.raises(errors.BuildError, match="PVH"):
        get(lab, "tiny-two")
    assert lab.leftovers() == []
