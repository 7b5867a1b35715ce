"""Agents that are gone, with their threads, when the test is over."""

import threading

import pytest

from .agents import Agent, AgentAndTarget


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
