"""Code sizes of kernels are measured by the build or afterwards, and compared."""

from __future__ import annotations

import json
import subprocess

import pytest
import tiny_kernel

from uffdlab.errors import KernelError, UnknownKernel
from uffdlab.kernels import code_size
from uffdlab.kernels.code_size import Sizes, compare

LARGER = tiny_kernel.PATCH.replace("+#define MODE 2", "+#define MODE (*(volatile int *)0x12345678 * 7 + 3)")


@pytest.fixture
def pair(lab):
    (lab.toml.parent / "two.patch").write_text(LARGER)
    return lab.supply().sizes("tiny-base", "tiny-two")


def test_objects_and_functions_that_differ_are_listed(lab, pair):
    base, two = pair
    assert sorted(base.objects) == ["fs/third.o", "mm/minor.o", "mm/other.o"]
    # the object folder still has minor.o of the second kernel: size(1) must agree
    output = subprocess.run(
        ["size", "-B", "mm/minor.o"], cwd=lab.tree / "objects", capture_output=True, text=True, check=True
    )
    text = int(output.stdout.splitlines()[1].split()[0])
    assert two.objects["mm/minor.o"] == text > base.objects["mm/minor.o"]
    found = compare(base, two)
    assert [row.name for row in found.objects] == ["mm/minor.o"]
    assert [row.name for row in found.functions] == ["mm/minor.o minor"]
    assert found.objects[0].difference == two.total - base.total
    assert compare(base, base).objects == compare(base, base).functions == ()


def test_a_kernel_without_recorded_sizes_is_measured(lab, pair):
    base, _ = pair
    kernel = lab.supply().get("tiny-base")
    before = kernel.image.stat().st_mtime_ns
    (kernel.image.parent / code_size.FILE).unlink()
    assert lab.supply().sizes("tiny-base") == (base,)
    assert (kernel.image.parent / code_size.FILE).is_file()
    assert kernel.image.stat().st_mtime_ns == before
    assert lab.leftovers() == []
    assert not list((lab.cache.folder / "logs").iterdir())


def test_a_kernel_without_objects_has_no_sizes(lab):
    with pytest.raises(KernelError, match="comes as a package"):
        lab.supply().sizes("tiny-base", "packaged/here")
    with pytest.raises(UnknownKernel):
        lab.supply().sizes("none")
    assert not list(lab.cache.folder.glob("images/*"))
    with pytest.raises(KernelError, match=r"k: ar in .* ended with"):
        code_size.measure(lab.folder, "k")


def test_variants_of_a_function_are_counted_as_one(tmp_path):
    (tmp_path / "a.s").write_text(
        ".text\n"
        + "".join(
            f".type {name},@function\n{name}: .skip {size}\n.size {name},{size}\n"
            for name, size in (("f", 5), ("f.cold", 2), ("f.isra.0", 3), ("g.constprop.12", 7), ("h", 1))
        )
    )
    subprocess.run(["gcc", "-c", "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rcsT", "vmlinux.a", "a.o"], cwd=tmp_path, check=True)
    found = code_size.measure(tmp_path, "k")
    assert found.functions == {"a.o f": 10, "a.o g": 7, "a.o h": 1}
    assert found.objects == {"a.o": 18}


def test_the_largest_difference_is_first_and_a_missing_function_is_listed():
    a = Sizes("a", {"x.o": 10, "y.o": 10, "z.o": 1}, {"x.o gone": 9, "x.o f": 1})
    b = Sizes("b", {"x.o": 11, "y.o": 5, "z.o": 1}, {"x.o f": 2})
    found = compare(a, b)
    assert [(row.name, row.difference) for row in found.objects] == [("y.o", -5), ("x.o", 1)]
    assert [(row.name, row.b) for row in found.functions] == [("x.o gone", None), ("x.o f", 2)]
    assert str(found).splitlines() == [
        "text, bytes                    a             b    difference",
        "y.o                           10             5            -5",
        "x.o                           10            11            +1",
        "all that changed              20            16            -4",
        "all objects                   21            17            -4",
        "",
        "functions, bytes               a             b    difference",
        "x.o gone                       9             -            -9",
        "x.o f                          1             2            +1",
    ]
    data = json.loads(json.dumps(found.as_data()))
    assert data["total"] == {"a": 21, "b": 17, "difference": -4}
    assert data["functions"][0] == {"name": "x.o gone", "a": 9, "b": None, "difference": -9}
