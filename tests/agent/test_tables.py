"""Every object that a student looks at is a table in a notebook, also after its end."""

import pytest

from uffdlab import jupyter
from uffdlab.lab import Lab


def shown(what):
    return jupyter._table_of(what)


def test_objects_are_tables(host_lab):
    region = host_lab.map(8)
    region.alias.fill()
    with host_lab.userfaultfd() as uffd:
        uffd.register(region[2:], "minor", "wp")
        touch = region.read(5)
        fault = uffd.read_fault()
        assert "waiting" in shown(touch)
        assert "5 of region-" in shown(fault)
        assert "minor" in shown(fault)
        assert "WP" in shown(region)
        assert "lab.userfaultfds[" in shown(region)
        result = uffd.continue_(region[5])
        assert "4,096 bytes" in shown(result)
        touch.result()
        assert "<td " in shown(touch)
        assert ">6<" in shown(touch)
        assert "MINOR_SHMEM" in shown(uffd)
    assert "closed" in shown(uffd)
    assert ">no<" in shown(region)
    region.unmap()
    assert "it was unmapped" in shown(region)
    done = host_lab.exec(["sh", "-c", "echo '<b>'; exit 3"])
    assert "&lt;b&gt;" in shown(done)
    assert ">3<" in shown(done)
    assert host_lab.release in shown(host_lab)


def test_a_closed_lab_is_a_table():
    lab = Lab(machine="local")
    region, uffd = lab.map(2), lab.userfaultfd()
    touch = region.read(0)
    touch.result()
    lab.close()
    assert "closed" in shown(lab)
    for each in (region, uffd, touch):
        assert "<table>" in shown(each)


def test_every_table_belongs_to_a_class():
    import importlib

    assert set(jupyter._ROWS) == set(jupyter._MODULES)
    for name, module in jupyter._MODULES.items():
        assert getattr(importlib.import_module(f"uffdlab.{module}"), name).__name__ == name


@pytest.mark.parametrize("wrong", [{"pages": "8"}, {"memory": 5}])
def test_the_bench_checks_its_arguments(host_lab, wrong):
    with pytest.raises(ValueError, match=r"lab\.bench\("):
        host_lab.bench(**wrong)
