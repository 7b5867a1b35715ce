"""A small kernel source in a real Debian package, and an archive that serves it."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from uffdlab.errors import SourceError
from uffdlab.kernels import build
from uffdlab.kernels.apt import Deb, Resolved
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.catalogue import load
from uffdlab.kernels.supply import Supply

MAKEFILE = r"""
objects := $(patsubst %.c,$(O)/%.o,$(sort $(wildcard mm/*.c fs/*.c)))
allnoconfig:
	grep -v CONFIG_UNKNOWN $(KCONFIG_ALLCONFIG) > $(O)/.config
prepare:
	mkdir -p $(O)/include/config $(O)/mm $(O)/fs
	echo 6.1.0$(LOCALVERSION) > $(O)/include/config/kernel.release
vmlinux: $(O)/vmlinux
$(O)/vmlinux: $(objects) FORCE
	@echo '  LD      vmlinux'
	cat pvh.elf $(objects) > $@
	cd $(O) && rm -f vmlinux.a && ar rcsT vmlinux.a $(objects:$(O)/%=%)
	if [ -n "$$UFFDLAB_TEST_COUNT" ]; then echo linked >> $$UFFDLAB_TEST_COUNT; fi
$(O)/%.o: %.c include/mode.h
	@echo '  CC      $*.o'
	echo half > $@
	case "$*" in $${UFFDLAB_TEST_SLOW_OBJECT:-*}) [ -z "$$UFFDLAB_TEST_SLOW" ] || sleep $$UFFDLAB_TEST_SLOW ;; esac
	if grep -q disk_full $<; then cat $< > /dev/full; fi
	gcc -Iinclude -c $< -o $@
FORCE:
"""
MINOR_C = '#include "mode.h"\nint minor(void)\n{\n\treturn MODE;\n}\n'
FILES = {
    "Makefile": MAKEFILE,
    "include/mode.h": "#define MODE 1\n",
    "mm/minor.c": MINOR_C,
    "mm/other.c": "int other(void)\n{\n\treturn 2;\n}\n",
    "fs/third.c": "int third(void)\n{\n\treturn 3;\n}\n",
}

# With these files it is accepted as a kernel's tree
TREE = {
    **FILES,
    "Kconfig": "",
    "arch/x86/Makefile": "",
    "mm/userfaultfd.c": "int uffd(void)\n{\n\treturn 4;\n}\n",
    "scripts/run": "#!/bin/sh\n",
}

# The options that the lab needs
NEEDED = "".join(f"{name}=y\n" for name in build.NEEDED)

PATCH = """\
From: somebody
Subject: [PATCH] mode: two

--- a/include/mode.h
+++ b/include/mode.h
@@ -1 +1 @@
-#define MODE 1
+#define MODE 2
"""
STALE_PATCH = PATCH.replace("-#define MODE 1", "-#define MODE 7")
BROKEN_PATCH = """\
--- a/mm/minor.c
+++ b/mm/minor.c
@@ -1,5 +1,5 @@
 #include "mode.h"
 int minor(void)
 {
-\treturn MODE;
+\treturn MODE_WP;
 }
"""
FULL_PATCH = """\
--- a/mm/other.c
+++ b/mm/other.c
@@ -1,4 +1,4 @@
-int other(void)
+int disk_full(void)
 {
 \treturn 2;
 }
"""

KERNELS_TOML = """\
[trees]
config = ["trees.config"]

[source.tiny]
package = "linux-source-tiny"
suites = ["here"]
config = ["lab.config"]

[kernel.tiny-base]
about = "unpatched"
source = "tiny"
localversion = "-base"

[kernel.tiny-two]
about = "patched"
source = "tiny"
patches = ["two.patch"]
localversion = "-two"

[kernel.tiny-stale]
about = "a patch for another source"
source = "tiny"
patches = ["two.patch", "stale.patch"]

[kernel.tiny-broken]
about = "does not compile"
source = "tiny"
patches = ["broken.patch"]

[kernel.tiny-full]
about = "fills the disk"
source = "tiny"
patches = ["full.patch"]

[kernel.tiny-dropped]
about = "asks for an option that is not there"
source = "tiny"
config = ["unknown.config"]

[kernel."packaged/here"]
about = "as packaged"
package = "linux-image-here"
suites = ["here"]
"""


def write_tree(folder: Path, files: dict[str, str] | None = None) -> Path:
    """Write the tiny kernel as a source tree of the user."""
    for name, text in (files or TREE).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "scripts/run").chmod(0o755)
    (folder / "link").symlink_to("mm/minor.c")
    (folder / "pvh.elf").write_bytes(elf())
    return folder


def elf(notes: bytes | None = None, *, release: str = "6.1.0-test", machine: int = 62) -> bytes:
    """Return an ELF file with one note segment, by default the PVH note, and a kernel's banner."""
    if notes is None:
        notes = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x1000000)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, machine, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    return header + segment + notes + f"\0Linux version {release} (somebody)\0".encode()


def bzimage(payload: bytes, *, release: str = "6.1.0-test", protocol: int = 0x20F) -> bytes:
    """Return a bzImage with this payload."""
    head = bytearray(0x600)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<H", head, 0x20E, 0x100)
    banner = f"{release} (somebody) #1\0".encode()
    head[0x300 : 0x300 + len(banner)] = banner
    struct.pack_into("<II", head, 0x248, 0x20, len(payload))
    return bytes(head) + bytes(0x20) + payload + bytes(64)


def make_deb(folder: Path, package: str, version: str, content: dict[str, bytes], *, depends: str = "") -> Path:
    """Pack a Debian package with these files."""
    root = folder / f"{package}-{version}"
    control = f"Package: {package}\nVersion: {version}\nArchitecture: amd64\nMaintainer: test <t@example.org>\n"
    if depends:
        control += f"Depends: {depends}\n"
    for name, data in {"DEBIAN/control": f"{control}Description: test\n".encode(), **content}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    deb = folder / f"{package}_{version}_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", root, deb], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(root)
    return deb


def source_deb(folder: Path, version: str = "6.1.0-1", files: dict[str, str] | None = None) -> Path:
    """Pack the tiny kernel source as Debian packs linux-source."""
    top = folder / "linux-source-tiny"
    for name, text in (files or FILES).items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (top / "pvh.elf").write_bytes(elf())
    tarball = folder / "linux-source-tiny.tar.xz"
    with tarfile.open(tarball, "w:xz") as tar:
        tar.add(top, "linux-source-tiny")
    shutil.rmtree(top)
    return make_deb(folder, "linux-source-tiny", version, {"usr/src/linux-source-tiny.tar.xz": tarball.read_bytes()})


@dataclass
class FakeArchive:
    """Serves the package files of this folder and counts the requests."""

    folder: Path
    versions: dict[str, str] = field(default_factory=dict)  # package → its newest version
    resolved: int = 0
    downloaded: int = 0

    def resolve(self, package, suites, root, progress, *, follow=None):
        self.resolved += 1
        if package not in self.versions:
            raise SourceError(f"{', '.join(suites)} have no {package}")
        version = self.versions[package]
        deb = self.folder / f"{package}_{version}_amd64.deb"
        size, digest = deb.stat().st_size, hashlib.sha256(deb.read_bytes()).hexdigest()
        return Resolved(package, version, (Deb(package, version, size, digest),))

    def download(self, found, suites, root, progress):
        self.downloaded += 1
        debs = root / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        paths = []
        for deb in found.debs:
            name = f"{deb.package}_{deb.version}_amd64.deb"
            if self.versions[deb.package] != deb.version:
                raise SourceError(f"{name}: not on the mirror any more")
            paths.append(Path(shutil.copy(self.folder / name, debs / name)))
        return paths


@dataclass
class Lab:
    """A catalogue, a cache and an archive of one test."""

    folder: Path
    archive: FakeArchive

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    @property
    def toml(self) -> Path:
        return self.folder / "kernel-patch" / "kernels.toml"

    @property
    def tree(self) -> Path:
        return self.cache.tree("tiny")

    def supply(self) -> Supply:
        return Supply(load(self.toml), self.cache, self.archive)

    def script(self, name: str) -> list[str]:
        """Return a command that gets this kernel in another process."""
        code = (
            "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import tiny_kernel\n"
            "from uffdlab.kernels.progress import LineProgress\n"
            "lab = tiny_kernel.Lab(pathlib.Path(sys.argv[2]), tiny_kernel.FakeArchive(pathlib.Path(sys.argv[3])))\n"
            "lab.archive.versions = dict(pair.split('=') for pair in sys.argv[5:])\n"
            "print(lab.supply().get(sys.argv[4], progress=LineProgress(sys.stderr)).image)\n"
        )
        pairs = [f"{package}={version}" for package, version in self.archive.versions.items()]
        here = str(Path(__file__).parent)
        return [sys.executable, "-c", code, here, str(self.folder), str(self.archive.folder), name, *pairs]

    def leftovers(self) -> list[str]:
        """Return the files in the cache that an unfinished step has left."""
        known = {"locks", "resolved", "logs", "images", "trees", "apt"}
        found = [path.name for path in self.cache.folder.glob("*") if path.name not in known]
        patterns = (".*", "unpacking*", "patching-*", "package", "out", "debs")
        for pattern in patterns:
            found += [
                str(path.relative_to(self.cache.folder))
                for path in self.cache.folder.rglob(pattern)
                if path.name not in {".config", ".gitignore"}
            ]
        return found
