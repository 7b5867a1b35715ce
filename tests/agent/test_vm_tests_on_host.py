# ruff: noqa: F401 - pytest collects what is imported
"""Tests of tests/vm on this host's kernel, as this user and as an unprivileged one.

Left out is what needs raw entries, which no witness reads here, a crash, or a kernel of a certain name. What takes
longer runs on the host too, by the parameters ``local`` of the long tests in tests/vm.
"""

import pytest

from uffdlab.scenarios import minor_wp

from ..unprivileged import UNPRIVILEGED
from ..vm.test_client_capabilities import (
    test_features_and_ioctls_agree,
    test_the_probe_leaves_the_lab_as_it_was,
)
from ..vm.test_lab import (
    registered,
    test_a_call_that_waits_in_the_kernel_is_ended_at_its_deadline,
    test_a_fault_can_be_held_open,
    test_a_lost_target_fails_what_waited_and_a_new_one_works,
    test_a_waiting_touch_can_be_withdrawn,
    test_an_impossible_mapping_says_why,
    test_dontwake_leaves_the_reader_asleep_until_wake,
    test_errors_leave_the_lab_usable,
    test_many_touches_wait_at_once,
    test_unregister_lets_the_kernel_resolve_faults_again,
    test_wrong_fields_reach_the_kernel_and_their_errno_is_explained,
)
from ..vm.test_witnesses_examination import (
    test_witnesses_agree_on_every_snapshot_of_a_scenario,
    test_witnesses_agree_over_memories_and_modes_and_every_planted_error_is_found,
)
from ..vm.test_witnesses_walk import (
    test_a_mapping_that_went_away_behind_the_lab_s_back,
    test_a_target_that_died,
    test_no_snapshot_of_a_region_that_is_gone,
)
from ..vm.test_write_probe import (
    four,
    test_a_copy_on_write_is_seen,
    test_a_write_that_the_kernel_refuses_is_no_trap,
    test_a_write_that_trapped_is_withdrawn_and_leaves_no_message,
    test_a_write_while_another_fault_waits,
)
from ..vm.where import LOCAL, on_each

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
