"""Agents that are gone, with their threads, when the test is over; the world of a vagrant that takes notes."""

import os
import threading

import pytest

from .agents import Agent, AgentAndTarget
from .vagrants import World


@pytest.fixture
def agent():
    before = threading.active_count()
    agent = Agent()
    yield agent
    agent.close()
    assert threading.active_count() == before


@pytest.fixture
def both():
    before = threading.active_count()
    both = AgentAndTarget()
    both.hello()
    yield both
    both.close()
    assert threading.active_count() == before


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("VAGRANT_DOTFILE_PATH", "VAGRANT_DEFAULT_PROVIDER", "UFFDLAB_BOX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant-home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return World(tmp_path)
