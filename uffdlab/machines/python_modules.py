"""Where the running interpreter finds modules, and which of them a program needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from uffdlab import errors

# Prints the modules that importing argv[2:] loads, with the file of each.  These are the modules that the import system
# has found: sys.modules lacks a module that puts another in its own place, as collections.abc of 3.13.0 does.
_PROBE = """
import sys
path, names = sys.argv[1], sys.argv[2:]
sys.path[:] = path.split(chr(0x1f))
sys.dont_write_bytecode = True
loaded = {
    module.__spec__.name: module.__spec__
    for name, module in sys.modules.items()
    if name != "__main__" and getattr(module, "__spec__", None)
}
class Recorder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not Recorder and (spec := finder.find_spec(name, path, target)):
                loaded[name] = spec
                return spec
sys.meta_path.insert(0, Recorder)
for name in names:
    __import__(name)
import os
for name, spec in sorted(loaded.items()):
    origin, package = spec.origin, spec.submodule_search_locations is not None
    if origin in (None, "built-in"):
        continue
    if origin == "frozen":
        # A frozen module needs no file, except os.pyc: getpath finds the standard library by it.
        if name != "os":
            continue
        origin = os.__file__
    print(spec.name, origin, int(package), sep=chr(0x1f))
"""


def module_path() -> list[str]:
    """Return the folders where a new interpreter finds the same modules as this one, that of this package first."""
    package = str(Path(__file__).resolve().parents[2])
    return [package, *(entry for entry in sys.path if entry and entry != package)]


def modules(*names: str) -> list[tuple[str, Path, bool]]:
    """Return (name, file, whether a package) of each module that importing these loads and that has a file.

    Raises
    ------
    HostUnsupported
        A module cannot be imported.
    """
    path = "\x1f".join(module_path())
    found = []
    for line in run([sys.executable, "-ISB", "-X", "utf8", "-c", _PROBE, path, *names]).splitlines():
        name, origin, packaged = line.split("\x1f")
        found.append((name, Path(origin), packaged == "1"))
    return found


def run(command: list[str]) -> str:
    """Run a command of the lab and return its output.

    Raises
    ------
    HostUnsupported
        The command failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise errors.HostUnsupported(
            f"{Path(command[0]).name} ended with status {error.returncode} while the agent's parts were gathered:\n"
            f"{error.stderr.strip()[-2000:]}\nThe agent must be importable here: install uffdlab with pip",
            missing="agent",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.HostUnsupported(
            f"{command[0]} did not run while the agent's parts were gathered: {error}"
        ) from error
    return done.stdout
