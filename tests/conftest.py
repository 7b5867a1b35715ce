"""Settings and hooks for all tests."""

import contextlib

import pytest
from hypothesis import HealthCheck, settings

from uffdlab.errors import AgentError, IoctlError, UsageError

from .unprivileged import UNPRIVILEGED, needs_root

# No deadlines: on a busy machine an example may take long.
settings.register_profile("uffdlab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("uffdlab")


def _lab_of(item):
    return item.callspec.params.get("lab") if hasattr(item, "callspec") else None


@contextlib.contextmanager
def _skip_if_root_is_needed(item):
    # A test as an unprivileged user is skipped if the kernel or the agent refuses what only root may do.
    try:
        yield
    except (IoctlError, AgentError, UsageError) as error:
        if _lab_of(item) != UNPRIVILEGED or not needs_root(error):
            raise
        pytest.skip(f"as an unprivileged user: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with _skip_if_root_is_needed(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with _skip_if_root_is_needed(item):
        return (yield)
