"""Fixtures: an agent whose end of the stream the test has, and scripts in place of vagrant and ssh."""

import os
import threading

import pytest

from .agents import Agent, AgentAndTarget
from .vagrants import ScriptedVagrant


@pytest.fixture
def agent():
    before = threading.active_count()
    agent = Agent()
    yield agent
    agent.close()
    assert threading.active_count() == before


@pytest.fixture
def agent_and_target():
    before = threading.active_count()
    agent_and_target = AgentAndTarget()
    agent_and_target.hello()
    yield agent_and_target
    agent_and_target.close()
    assert threading.active_count() == before


@pytest.fixture
def vagrant(tmp_path, monkeypatch):
    for name in ("VAGRANT_DOTFILE_PATH", "VAGRANT_DEFAULT_PROVIDER", "UFFDLAB_BOX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant-home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return ScriptedVagrant(tmp_path)
