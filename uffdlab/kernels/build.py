"""Configure and compile a kernel in its source's object folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.errors import BuildError
from uffdlab.kernels import host_checks
from uffdlab.processes.job import Job, JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import IO

    from uffdlab.kernels.catalogue import Built
    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.tree import Tree

# Part of every key. Raise it when a change here makes the same inputs build a different kernel.
RECIPE = 1

_MARKER = ".uffdlab-building"
_CONFIG_DEADLINE = 300.0  # s
_COMPILE_DEADLINE = 2 * 3600.0  # s
_OBJECT = re.compile(r"  (?:CC|AS) +(?:\[M\] +)?\S")
_LINK = re.compile(r"  LD +(?:\.tmp_)?vmlinux")
_PLANNED = re.compile(r"echo '  (?:CC|AS) ")
_OPTION = re.compile(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set")
# Options that the agent, its channel and userfaultfd itself need.
NEEDED = tuple(
    f"CONFIG_{name}"
    for name in (
        *("USERFAULTFD", "SHMEM", "TMPFS", "64BIT", "MMU", "PVH", "PCI", "VIRTIO_MENU", "VIRTIO", "VIRTIO_PCI"),
        *("VIRTIO_CONSOLE", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "BLK_DEV_INITRD", "BINFMT_ELF"),
        *("BINFMT_SCRIPT", "PROC_FS", "SYSFS"),
    )
)
_LEFT_OUT = {"ARCH", "CROSS_COMPILE", "LOCALVERSION", "LLVM", "CC", "LD", "HOSTCC", "LANGUAGE", "V", "W", "C"}
_ERROR = re.compile(r": (?:fatal )?error: |\*\*\* |undefined reference to |No space left on device|: not found$")


def build(entry: Built, tree: Tree, log: Path, progress: Progress, inherit: Sequence[int] = ()) -> str:
    """Compile the tree as it is to the entry's image, and return the kernel's release (uname -r).

    Raises
    ------
    BuildError
        The kernel cannot be configured with the entry's options, or it does not compile.
    HostUnsupported
        The disk is full.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file:
        _recover(tree.objects)
        make = _Make(entry, tree, log, log_file, inherit)
        progress.stage("configuring")
        configure(entry, tree, make)
        make("prepare")
        planned = 0

        def plan(line: str) -> None:
            nonlocal planned
            planned += bool(_PLANNED.search(line))

        # A dry run follows the recipes into every folder, so it lists the files that make will compile. It stops at
        # the last link, whose inputs do not exist yet.
        make("--dry-run", "--keep-going", "vmlinux", on_line=plan, real=False)
        progress.stage("compiling", planned, "objects")
        compiled, linking = 0, False

        def count(line: str) -> None:
            nonlocal compiled, linking
            compiled += bool(_OBJECT.match(line))
            if _LINK.match(line):
                progress.stage("linking")
                linking = True
            elif not linking:
                progress.at(min(compiled, planned))

        make(entry.image, on_line=count, deadline=_COMPILE_DEADLINE)
    return (tree.objects / "include" / "config" / "kernel.release").read_text().strip()


def configure(entry: Built, tree: Tree, make: _Make) -> None:
    """Write ``objects/.config``: only the options of the fragments, and those that they select, are on.

    Raises
    ------
    BuildError
        An option in the written file differs from the fragment, or an option that the lab needs is not set.
    """
    asked = _joined(entry.config)
    seed = tree.objects / "uffdlab.config"
    seed.write_text(asked)
    make(f"KCONFIG_ALLCONFIG={seed}", "allnoconfig")
    config = (tree.objects / ".config").read_text()
    dropped = dropped_options(asked, config)
    if entry.source.other_version:
        # Options of the source's own fragments may be missing in this version of the kernel; they are left out.
        own = _options(_joined(f for f in entry.config if f not in entry.source.config))
        make.note(f"not in this kernel: {', '.join(line for line in dropped if _option(line) not in own) or 'nothing'}")
        dropped = [line for line in dropped if _option(line) in own]
    if lost := missing_needed(config):
        fragments = ", ".join(str(fragment) for fragment in entry.config)
        raise BuildError(
            f"{entry.name}: its configuration lacks {', '.join(lost)}, which the lab needs: a fragment "
            f"({fragments}) turns it or a dependency off, or this kernel has no such option",
            kernel=entry.name,
            log=str(make.log),
            output="\n".join(lost),
        )
    if dropped:
        raise BuildError(
            f"{entry.name}: the kernel's own configuration dropped {', '.join(dropped)}, which "
            f"{', '.join(str(fragment) for fragment in entry.config)} set: a dependency is not set, or this "
            "kernel has no such option",
            kernel=entry.name,
            log=str(make.log),
            output="\n".join(dropped),
        )


def dropped_options(asked: str, config: str) -> list[str]:
    """Return the lines of `asked` whose option has another value in `config`. Both are texts in .config form.

    If an option has several lines, the last one counts, as in Kconfig.
    """
    wanted = _options(asked)
    have = _options(config)
    return [
        f"{name}={value}" if value != "n" else f"# {name} is not set"
        for name, value in wanted.items()
        if have.get(name, "n") != value
    ]


def missing_needed(config: str) -> list[str]:
    """Return the options that the lab needs and a finished .config does not set."""
    have = _options(config)
    return [name for name in NEEDED if have.get(name) != "y"]


def turned_off(fragment: str) -> list[str]:
    """Return the options that the lab needs built in and that a config fragment turns off or makes a module."""
    return [name for name, value in _options(fragment).items() if value != "y" and name in NEEDED]


def no_options(fragment: str) -> list[str]:
    """Return the lines of a config fragment that are neither an option nor a comment nor blank, with their numbers."""
    return [
        f"line {number}: {line.strip()[:80]}"
        for number, line in enumerate(fragment.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and not _OPTION.fullmatch(line.strip())
    ]


def first_errors(lines: Sequence[str], limit: int = 5) -> str:
    """Return the lines of make's output that say why it failed."""
    compiler = [line for line in lines if re.search(r"\berror: |undefined reference to ", line)]
    return "\n".join(list(dict.fromkeys(compiler or lines))[:limit])


class _Make:
    # Runs make in the tree's object folder.

    def __init__(self, entry: Built, tree: Tree, log: Path, log_file: IO[bytes], inherit: Sequence[int]) -> None:
        self.log = log
        self._entry = entry
        self._tree = tree
        self._log_file = log_file
        self._inherit = inherit

    def note(self, text: str) -> None:
        # Adds a remark for the reader of the log.
        self._log_file.write(f"# {text}\n".encode())

    def __call__(
        self,
        *arguments: str,
        on_line: Callable[[str], None] | None = None,
        deadline: float = _CONFIG_DEADLINE,
        real: bool = True,
    ) -> None:
        # A dry run (real=False) is not logged, and may fail.
        command = [
            "make",
            f"-j{len(os.sched_getaffinity(0)) + 1}",
            "-C",
            str(self._tree.source),
            f"O={self._tree.objects}",
            "ARCH=x86_64",
            "KBUILD_VERBOSE=0",
            f"LOCALVERSION={self._entry.localversion}",
            *arguments,
        ]
        if real:
            self._log_file.write(f"$ {' '.join(command)}\n".encode())
            self._log_file.flush()
        errors: list[str] = []

        def collect_error(line: str) -> None:
            if _ERROR.search(line):
                errors.append(line)
            if on_line is not None:
                on_line(line)

        marker = self._tree.objects / _MARKER
        if not marker.exists():
            marker.touch()
        log = self._log_file if real else None
        try:
            with Job(command, env=_environment(), log=log, inherit=self._inherit, marker=marker) as child:
                status = child.wait(deadline, on_line=collect_error)
        except JobTimeout:
            status = -1
            errors.append(f"*** make {arguments[-1]} had not finished after {deadline:.0f} s")
        if status == 0 or not real:
            return
        if any("No space left on device" in line for line in errors):
            raise host_checks.disk_full(self._tree.objects, f"compiling {self._entry.name}")
        output = first_errors(errors or list(child.tail))
        raise BuildError(
            f"{self._entry.name}: make {arguments[-1]} failed:\n{output}\nThe whole log is {self.log}",
            kernel=self._entry.name,
            log=str(self.log),
            output=output,
        )


def _recover(objects: Path) -> None:
    # make deletes its incomplete targets on SIGTERM. After SIGKILL or a power failure they stay, and the next make
    # would treat them as complete. So a marker file exists while make runs. A build that finds one deletes every file
    # that is not older. If only our process was killed, the supervisor has already killed its make.
    objects.mkdir(exist_ok=True)
    marker = objects / _MARKER
    if not marker.exists():
        return
    since = marker.stat().st_mtime_ns
    for folder, _, files in os.walk(objects):
        for path in (Path(folder, file) for file in files):
            if path != marker and path.lstat().st_mtime_ns >= since:
                path.unlink()
    marker.unlink()


def _joined(fragments: Iterable[Path]) -> str:
    return "".join(fragment.read_text(encoding="utf-8", errors="replace") + "\n" for fragment in fragments)


def _option(line: str) -> str:
    return next(iter(_options(line)))


def _options(text: str) -> dict[str, str]:
    # name → value; "n" for "is not set".
    found = {}
    for line in text.splitlines():
        if match := _OPTION.fullmatch(line.strip()):
            found[match[1] or match[3]] = match[2] if match[1] else "n"
    return found


def _environment() -> dict[str, str]:
    # Without the variables that make and Kbuild read: they would change the kernel, and the key does not contain them.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KBUILD_", "KCONFIG_", "MAKE", "KCFLAGS", "KCPPFLAGS", "CONFIG_", "INSTALL_"))
        and name not in _LEFT_OUT
    }
    return {
        **environment,
        "LC_ALL": "C",
        # Fixed values, so that the same inputs give the same bytes.
        "KBUILD_BUILD_TIMESTAMP": "Tue Feb 14 22:38:39 UTC 2023",
        "KBUILD_BUILD_USER": "uffdlab",
        "KBUILD_BUILD_HOST": "uffdlab",
        "KBUILD_BUILD_VERSION": "1",
    }
