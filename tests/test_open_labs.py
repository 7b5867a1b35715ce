"""Which labs are open, and how to be rid of them."""

import gc

import pytest

import uffdlab
from uffdlab import open_labs


class FakeLab:
    kernel = "6.1-<fake>"
    facts = ("qemu", "1024 MiB", "10:11:12")

    def __init__(self):
        open_labs.opened(self)

    def close(self):
        open_labs.closed(self)


@pytest.fixture(autouse=True)
def none_open(monkeypatch):
    monkeypatch.setattr(open_labs, "_OPEN", [])


def test_labs_are_listed_from_when_they_open_until_they_close():
    one, other = FakeLab(), FakeLab()
    assert uffdlab.labs() == (one, other)
    one.close()
    one.close()
    assert uffdlab.labs() == (other,)
    uffdlab.close_all()
    assert uffdlab.labs() == ()


def test_a_lab_that_is_gone_is_not_listed():
    FakeLab()
    gc.collect()
    assert len(uffdlab.labs()) == 0


def test_labs_are_shown_as_a_table():
    lab = FakeLab()
    assert repr(uffdlab.labs()) == "0, 6.1-<fake>, qemu, 1024 MiB, 10:11:12"
    shown = uffdlab.labs()._repr_html_()
    assert "6.1-&lt;fake&gt;" in shown
    assert "open since" in shown
    lab.close()
    assert repr(uffdlab.labs()) == "no lab is open"
    assert "no lab is open" in uffdlab.labs()._repr_html_()


def test_a_lab_lists_itself():
    with uffdlab.Lab(machine="local") as lab:
        assert uffdlab.labs() == (lab,)
        assert lab.facts[0] == "local"
    assert uffdlab.labs() == ()
