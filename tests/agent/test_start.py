"""What the agent imports before it says hello: an emulated CPU takes ten times as long for it as the host."""

import ast
import subprocess
import sys
from pathlib import Path

from uffdlab import agent
from uffdlab.agent import deferred
from uffdlab.machines.python_modules import modules
from uffdlab.machines.qemu.initramfs import INIT

SLOW = {"contextlib", "ctypes", "dataclasses", "enum", "functools", "inspect", "pathlib", "platform", "re", "signal",
        "socket", "threading", "traceback", "typing", "uffdlab.uapi.flags", "uffdlab.uapi.ioctls",
        "uffdlab.agent.probe"}  # fmt: skip


def test_nothing_slow_is_imported_before_the_hello():
    loaded = f"import sys; sys.path[:] = {sys.path!r}; import {INIT}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-ISBc", loaded], capture_output=True, text=True, check=True)
    assert INIT in done.stdout.split()
    assert not SLOW & set(done.stdout.split())


def test_what_is_imported_later_is_packed():
    packed = {name for name, _, _ in modules(INIT, *deferred.NAMES)} | set(sys.builtin_module_names)
    seen = 0
    for path in Path(agent.__file__).parent.rglob("*.py"):
        if path.name == "_native_build.py":
            continue
        for function in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{each.name}" for each in node.names]
                seen += len(names)
                assert {name for name in names if name not in packed} == set(), path.name
    assert seen > 5
