"""The labs that are open are listed, and can be closed together."""

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
def _no_open_labs(monkeypatch):
    monkeypatch.setattr(open_labs, "_OPEN", [])


def test_labs_are_listed_while_they_are_open():
    first, second = FakeLab(), FakeLab()
    assert uffdlab.labs() == (first, second)
    first.close()
    first.close()
    assert uffdlab.labs() == (second,)
    uffdlab.close_all()
    assert uffdlab.labs() == ()


def test_an_unreachable_lab_is_not_listed():
    FakeLab()
    gc.collect()
    assert len(uffdlab.labs()) == 0


def test_labs_are_shown_as_a_table():
    lab = FakeLab()
    assert repr(uffdlab.labs()) == "0, 6.1-<fake>, qemu, 1024 MiB, 10:11:12"
    page = uffdlab.labs()._repr_html_()
    assert "6.1-&lt;fake&gt;" in page
    assert "open since" in page
    lab.close()
    assert repr(uffdlab.labs()) == "no lab is open"
    assert "no lab is open" in uffdlab.labs()._repr_html_()


def test_a_lab_is_listed_while_it_is_open():
    with uffdlab.Lab(machine="local") as lab:
        assert uffdlab.labs() == (lab,)
        assert lab.facts[0] == "local"
    assert uffdlab.labs() == ()
