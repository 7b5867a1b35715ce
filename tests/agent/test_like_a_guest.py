# ruff: noqa: F401 - pytest collects what is imported
"""The tests of a lab in a guest, on this host's own kernel; less those that need its raw entries or its crash."""

import pytest

from ..vm.test_lab import (  # noqa: TID252 - tests are no package that is installed
    registered,
    test_a_call_that_waits_in_the_kernel_is_ended_at_its_deadline,
    test_a_fault_can_be_held_open,
    test_a_lost_target_fails_what_waited_and_a_new_one_works,
    test_a_mapping_that_cannot_be_says_why,
    test_a_waiting_touch_can_be_taken_back,
    test_dontwake_leaves_the_reader_asleep_until_wake,
    test_errors_leave_the_lab_usable,
    test_many_touches_wait_at_once,
    test_unregister_lets_the_kernel_resolve_faults_again,
    test_wrong_words_reach_the_kernel_and_come_back_explained,
)


@pytest.fixture
def lab(host_lab):
    return host_lab
