# ruff: noqa: F401 - pytest collects what is imported
"""Tests of tests/vm on this host's kernel, as this user and as an unprivileged one.

Left out is what needs raw entries, which no witness reads here, a crash, or a kernel of a certain name. What takes
longer runs on the host too, by the parameters ``local`` of the long tests in tests/vm.
"""

import pytest

from uffdlab.scenarios import minor_wp

from ..unprivileged import UNPRIVILEGED
from ..vm.lab_fixtures import LOCAL, on_each
from ..vm.test_client_capabilities import (
    test_features_and_ioctls_agree,
    test_the_probe_leaves_the_lab_as_it_was,
)
from ..vm.test_lab import (
    registered,
    test_a_call_that_waits_in_the_kernel_is_ended_at_its_deadline,
    test_a_lost_target_fails_its_touches_and_a_new_one_works,
    test_a_touch_waits_until_its_fault_is_resolved,
    test_a_waiting_touch_can_be_withdrawn,
    test_after_unregister_the_kernel_resolves_faults_again,
    test_an_impossible_mapping_is_refused_with_a_reason,
    test_dontwake_leaves_the_thread_asleep_until_wake,
    test_errors_leave_the_lab_usable,
    test_many_touches_wait_at_once,
    test_wrong_fields_reach_the_kernel_and_their_errno_is_explained,
)
from ..vm.test_witnesses_examination import (
    test_witnesses_agree_and_every_falsified_entry_is_found,
    test_witnesses_agree_on_every_snapshot_of_a_scenario,
)
from ..vm.test_witnesses_walk import (
    test_a_snapshot_of_a_killed_target_is_refused,
    test_a_snapshot_of_a_lost_region_is_refused,
    test_a_snapshot_of_a_mapping_unmapped_without_the_lab_is_refused,
)
from ..vm.test_write_probe import (
    probed,
    test_a_probe_keeps_the_message_of_another_fault,
    test_a_probe_reports_a_copy_on_write,
    test_a_probe_that_faults_is_withdrawn_and_leaves_no_message,
    test_a_probe_that_the_kernel_refuses_is_not_a_fault_message,
)

lab = on_each(LOCAL, UNPRIVILEGED)


@pytest.fixture
def any_lab(lab):
    return lab


def undecided(check):
    """Return whether a check is open only for the bits that nobody here knows."""
    return check.observed in {
        check.expected.replace("not writable", "writable?"),
        check.expected.replace(", writable", ", writable?"),
        "not present" if check.expected == "absent" else check.expected,
    }


def test_every_check_of_the_main_job_comes_out_as_far_as_it_can_be_seen(lab):
    if lab.capabilities.missing("UFFDIO_CONTINUE WP"):
        pytest.skip(f"{lab.kernel} does not know UFFDIO_CONTINUE_MODE_WP")
    result = minor_wp(lab)
    assert len(result.checks) == 64
    assert not [f"{each}" for each in result.checks if not each.ok and not undecided(each)]
    assert sum(each.ok for each in result.checks) >= 40
