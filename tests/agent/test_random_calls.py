"""A few random calls on this host's own kernel, and that a kernel which does something else is found out."""

import pytest

from uffdlab.page_model import MISSING, WP, Model, Op
from uffdlab.random_calls import Disagreement, play, play_randomly


def test_the_kernel_and_the_model_agree_for_some_seconds(host_lab):
    count = play_randomly(host_lab, 4, seed=1)
    assert count.calls > 10
    assert not host_lab.regions


def test_another_answer_is_found_out(host_lab, monkeypatch):
    monkeypatch.setattr(Model, "_zeropage", lambda *_: "EEXIST")
    ops = [Op("register", 1, int(MISSING)), Op("zeropage", 1), Op("read", 1)]
    with pytest.raises(Disagreement, match="should give 'EEXIST' and gave 'ok'") as caught:
        play(host_lab, "anon", ops)
    assert caught.value.trail == tuple(ops[:2])


def test_another_state_is_found_out(host_lab, monkeypatch):
    monkeypatch.setattr(Model, "_protect", lambda *_: "ok")
    ops = [Op("register", 0, int(WP)), Op("write", 0, 1), Op("protect", 0, flag=True)]
    with pytest.raises(Disagreement, match=r"page 0 should be .*uffd_wp=True"):
        play(host_lab, "anon", ops)
