"""Build ``_bulk`` with cffi in API mode, for the stable ABI (abi3), from bulk.h and the .c files beside it."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((_HERE / "bulk.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "uffdlab.bulk._bulk",
    '#include <stdint.h>\n#include "bulk.h"\n',
    sources=[f"uffdlab/bulk/{name}.c" for name in ("decode", "sum", "walk")],
    depends=[f"uffdlab/bulk/{name}.h" for name in ("bulk", "inner")],
    include_dirs=["uffdlab/bulk"],
    py_limited_api=True,
    extra_compile_args=["-std=gnu11", "-O3", "-Wall", "-Wextra"],
)
