"""What holds for all tests."""

import contextlib

import pytest
from hypothesis import HealthCheck, settings

from uffdlab.errors import AgentError, IoctlError, UsageError

from .unprivileged import UNPRIVILEGED, needs_root

# A busy machine is no failure: how long a draw or an example takes says nothing about the code.
settings.register_profile("uffdlab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("uffdlab")


def _lab_of(item):
    return item.callspec.params.get("lab") if hasattr(item, "callspec") else None


@contextlib.contextmanager
def _for_root_alone(item):
    # On a host as somebody who may do nothing, what the kernel or the agent refuses for that reason is skipped.
    try:
        yield
    except (IoctlError, AgentError, UsageError) as error:
        if _lab_of(item) != UNPRIVILEGED or not needs_root(error):
            raise
        pytest.skip(f"as an unprivileged user: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with _for_root_alone(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with _for_root_alone(item):
        return (yield)
