"""The guest's first process, as far as it can be tried outside of a guest."""

import os
import threading

import pytest

from uffdlab.agent import init


@pytest.fixture
def ports(monkeypatch, tmp_path):
    monkeypatch.setattr(init, "_PORTS", str(tmp_path / "ports"))
    monkeypatch.setattr(os, "open", lambda path, _: path)
    return tmp_path / "ports"


def test_a_port_is_found_whenever_it_and_its_name_come(ports):
    def come():
        (ports / "vport0p1").mkdir(parents=True)  # the name comes later
        (ports / "vport0p2").mkdir()
        (ports / "vport0p2" / "name").write_text("another\n")
        (ports / "vport0p1" / "name").write_text("mine\n")

    later = threading.Timer(0.05, come)
    later.start()
    assert init._open_port("mine") == "/dev/vport0p1"
    later.join()


def test_a_port_without_a_name_is_not_an_end(ports, monkeypatch):
    (ports / "vport0p1").mkdir(parents=True)
    monkeypatch.setattr(init, "_PORT_DEADLINE", 0.05)
    with pytest.raises(TimeoutError, match="no virtio port is named mine"):
        init._open_port("mine")
