"""The guest's whole user space: the running interpreter, the modules that the agent imports, and busybox.

A new interpreter imports the agent and lists the modules that this loads.  The dynamic loader lists the shared
libraries.  The archive contains nothing else.  It is stored in the cache under the hash of its content.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import marshal
import os
import shutil
import sys
from dataclasses import dataclass, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir, errors
from uffdlab.agent import deferred
from uffdlab.machines import elf, python_modules
from uffdlab.machines.python_modules import modules, run
from uffdlab.machines.qemu import cpio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INIT = "uffdlab.agent.init"

_log = logging.getLogger("uffdlab.machines")

_PYC_HEADER = 16  # bytes
_KEEP = 4  # archives, 14 MB each
_LIBRARIES = "usr/lib"
# Python searches its prefix upwards from here, but does not find it in /.
_INTERPRETER = "usr/bin/python3"
_STDLIB = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
# The kernel passes on one argument at most.  -I: no environment, no user site; -S: no site; -B: write no .pyc.
# Nothing that is imported at the start is garbage: without the collector it takes a fifth less time.
_INIT_SCRIPT = f"""#!/{_INTERPRETER} -ISBXutf8
import gc
gc.disable()
from {INIT} import main
gc.freeze()
gc.enable()
main()
""".encode()
_EMPTY = f"{_STDLIB}/lib-dynload", "dev", "proc", "sys", "tmp", "run", "etc", "root"

# As in Python 3.12, only in C.  3.11 first defines the same classes in Python, which takes an emulated CPU 15 ms.
_INSTEAD = {"datetime": b"from _datetime import *\nUTC = timezone.utc\n"}

# No module imports these: Python looks them up by name when a program first uses them.
_CODECS = "encodings.ascii", "encodings.latin_1"


@dataclass(frozen=True)
class Initramfs:
    """An archive in the cache.

    Attributes
    ----------
    path : Path
        The file for ``qemu -initrd``.
    key : str
        SHA-256 of the content, in hexadecimal; for compiled modules, of their source.
    """

    path: Path
    key: str


def get(extra: Mapping[str, Path | bytes] | None = None, *, on_make: Callable[[], object] | None = None) -> Initramfs:
    """Return the archive for the running interpreter.  It is made again when anything in it has changed.

    Parameters
    ----------
    extra : mapping, optional
        More files by their path in the guest: bytes, or a file of the host.  Programs and executable files are
        executable there.
    on_make : callable, optional
        Called before the archive is made, which takes seconds; not if it is in the cache.

    Raises
    ------
    HostUnsupported
        The agent cannot be imported, a library is missing, or the archive cannot be written.
    """
    where = cachedir.folder("initramfs")
    wanted = _request(extra or {})
    index = where / f"{wanted}.json"
    found = _lookup(where, index)
    if found is not None:
        return found
    if on_make is not None:
        on_make()
    sources = _makers()
    entries = _entries(extra or {}, sources)
    key = _key(entries)
    path = where / f"{key}.cpio"
    stamps = {str(source): _stamp(source) for source in sorted(sources)}
    if not path.exists():
        with cachedir.publish(path, mode=0o644) as file:  # QEMU runs as another user
            file.write(cpio.pack(entries))
    with cachedir.publish(index) as file:
        file.write(json.dumps({"key": key, "size": path.stat().st_size, "sources": stamps}).encode())
    cachedir.prune(where, "*.cpio", _KEEP)
    cachedir.prune(where, "*.json", 2 * _KEEP)
    return Initramfs(path, key)


def _request(extra: Mapping[str, Path | bytes]) -> str:
    # A hash of what the archive depends on, besides the content of files, which have stamps.
    digest = hashlib.sha256()
    for part in (sys.version, sys.executable, __file__, sys.path, sys.flags.optimize, _busybox()):
        digest.update(repr(part).encode() + b"\0")
    for name, content in sorted(extra.items()):
        stamp = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else _stamp(content)
        digest.update(repr((name, str(content) if isinstance(content, Path) else "", stamp)).encode() + b"\0")
    return digest.hexdigest()[:32]


def _key(entries: Mapping[str, cpio.CpioEntry]) -> str:
    # Hashes only the header of compiled modules, which has a hash of the source: another process may compile the same
    # source to other bytes, and a saved machine must not depend on the process that made the archive.
    stable = {
        name: replace(entry, data=entry.data[:_PYC_HEADER]) if name.endswith(".pyc") else entry
        for name, entry in entries.items()
    }
    return hashlib.sha256(cpio.pack(stable)).hexdigest()


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def _lookup(where: Path, index: Path) -> Initramfs | None:
    try:
        known: Any = json.loads(index.read_bytes())
        key, size, sources = known["key"], known["size"], known["sources"]
        path = where / f"{key}.cpio"
        if path.stat().st_size != size or any(_stamp(Path(name)) != stamp for name, stamp in sources.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    cachedir.touch(path)
    cachedir.touch(index)
    return Initramfs(path, key)


def _makers() -> set[Path]:
    # What determines the archive without being in it: this code, and the folders where a new file (for instance a
    # newly built extension) may change what is imported.
    package = Path(__file__).resolve().parents[2]
    ours = __file__, cpio.__file__, elf.__file__, python_modules.__file__
    agent = [package, *(package / each for each in ("agent", "agent/witnesses", "uapi"))]
    return {*agent, *map(Path, ours)}


def _entries(extra: Mapping[str, Path | bytes], sources: set[Path]) -> dict[str, cpio.CpioEntry]:
    entries = {name: cpio.folder() for name in _EMPTY}
    entries["dev/console"] = cpio.console()
    entries["init"] = cpio.file(_INIT_SCRIPT, executable=True)
    python = Path(sys.executable).resolve()
    sources.add(python)
    binary = python.read_bytes()
    entries[_INTERPRETER] = cpio.file(_without_symbols(python, binary), executable=True)
    objects = [python]
    for name, origin, package in modules(INIT, *deferred.NAMES, *_CODECS):
        sources.add(origin)
        base = f"{_STDLIB}/{name.replace('.', '/')}"
        if origin.suffix == ".so":
            objects.append(origin)
            entries[base + EXTENSION_SUFFIXES[0]] = cpio.file(_without_symbols(origin, origin.read_bytes()))
        else:
            source = _INSTEAD.get(name) or origin.read_bytes()
            entries[f"{base}/__init__.pyc" if package else f"{base}.pyc"] = cpio.file(_bytecode(name, source))
    loader = elf.interpreter(binary)
    busybox = _busybox()
    if busybox is not None:
        sources.add(busybox)
        tools, dynamic = _tools(busybox)
        objects += [busybox] if dynamic else []
        for name, entry in tools.items():
            entries.setdefault(name, entry)
    if loader:
        entries.update(_libraries(loader, objects, sources))
    for name, content in extra.items():
        if isinstance(content, bytes):
            entries[name] = cpio.file(content, executable=content.startswith((b"#!", b"\x7fELF")))
        else:
            entries[name] = cpio.file(content.read_bytes(), executable=os.access(content, os.X_OK))
    return entries


def _busybox() -> Path | None:
    # The host's busybox, if installed, becomes the guest's shell and tools.
    found = shutil.which("busybox")
    return Path(found).resolve() if found else None


def _tools(busybox: Path) -> tuple[dict[str, cpio.CpioEntry], bool]:
    # Returns busybox with a link to it for each applet (it lists their paths, "usr/bin/env"), and whether it needs
    # libraries.  A guest can do without, so there are no tools if it is unusable.
    try:
        data = elf.loaded(busybox.read_bytes())
        applets = run([str(busybox), "--list-full"]).split()
        if "bin/sh" not in applets:
            raise elf.NotElf("it lists no shell")
    except (elf.NotElf, errors.HostUnsupported, OSError) as error:
        _log.warning("guests have no shell and no tools: %s is not usable (%s)", busybox, str(error).splitlines()[0])
        return {}, False
    links = dict.fromkeys(applets, cpio.symlink("/bin/busybox"))
    return links | {"bin/busybox": cpio.file(data, executable=True)}, bool(elf.interpreter(data))


def _bytecode(name: str, source: bytes) -> bytes:
    # An unchecked-hash .pyc (PEP 552), which is not compared with a source.  Magic, flags, eight bytes of hash.
    code = compile(source, f"/{_STDLIB}/{name.replace('.', '/')}.py", "exec", dont_inherit=True, optimize=0)
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def _without_symbols(path: Path, data: bytes) -> bytes:
    try:
        return elf.loaded(data)
    except elf.NotElf as error:
        raise errors.HostUnsupported(
            f"{path} is not an x86-64 ELF file: {error}. uffdlab runs its guests on x86-64 Linux only", missing="x86-64"
        ) from error


def _libraries(loader: str, objects: list[Path], sources: set[Path]) -> dict[str, cpio.CpioEntry]:
    # Each line is "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", with the name in DT_NEEDED before the arrow.
    found: dict[str, cpio.CpioEntry] = {}
    real_loader = Path(loader).resolve()
    sources.add(real_loader)
    found[loader.lstrip("/")] = cpio.file(elf.loaded(real_loader.read_bytes()), executable=True)
    for object_ in objects:
        for line in run([loader, "--list", str(object_)]).splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            path = Path(rest.rpartition(" (")[0])
            target = f"{_LIBRARIES}/{name}"
            if not arrow or target in found or name == loader:
                continue
            if not path.is_absolute():
                raise errors.HostUnsupported(f"{object_} needs {name}, which the dynamic loader does not find ({rest})")
            sources.add(path)
            found[target] = cpio.file(_without_symbols(path, path.read_bytes()))
    return found
