"""Builds ``_native`` with cffi in API mode from plain files: native.h and the .c files beside it.  abi3."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((_HERE / "native.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "uffdlab.agent._native",
    '#include <stdint.h>\n#include "native.h"\n',
    sources=[f"uffdlab/agent/{name}.c" for name in ("native", "native_accesses", "native_touches", "native_handlers")],
    depends=[f"uffdlab/agent/{name}.h" for name in ("native", "native_accesses", "native_threads")],
    include_dirs=["uffdlab/agent"],
    py_limited_api=True,
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread"],
    extra_link_args=["-pthread", "-Wl,-z,now"],  # a forked child must not need the dynamic linker's locks
)
