"""A few random calls on this host's own kernel, and that a kernel which does something else is found out."""

import pytest

from uffdlab.fuzz.generator import random_ops
from uffdlab.fuzz.memory import MISSING, WP, ExpectedMemory
from uffdlab.fuzz.model import CALLS, Model
from uffdlab.fuzz.rules import Op, Rules
from uffdlab.fuzz.run import Mismatch, caused_by_calls, play, play_randomly, rules_of, shrink

ANON, SHMEM = Rules("anon", leave_out=frozenset({"rwprotect"})), Rules("shmem", leave_out=frozenset({"rwprotect"}))


def test_the_kernel_and_the_model_agree_for_some_seconds(host_lab):
    count = play_randomly(host_lab, 4, seed=1, memories=("anon", "shmem", "shmem-private"))
    assert count.calls > 10
    assert not host_lab.regions


def test_another_answer_is_a_mismatch(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "zeropage", lambda *_: "EEXIST")
    ops = [Op("register", 1, int(MISSING)), Op("zeropage", 1), Op("read", 1)]
    with pytest.raises(Mismatch, match="should return 'EEXIST' and returned 'ok'") as caught:
        play(host_lab, ANON, ops)
    assert caught.value.calls == tuple(ops[:2])
    assert caught.value.rules == ANON


def test_another_state_is_a_mismatch(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "protect", lambda *_: "ok")
    ops = [Op("register", 0, int(WP)), Op("write", 0, 1), Op("protect", 0, mode_bit=True)]
    with pytest.raises(Mismatch, match=r"page 0 should be .*wp=True"):
        play(host_lab, ANON, ops)


def test_another_content_is_a_mismatch(host_lab, monkeypatch):
    monkeypatch.setattr(ExpectedMemory, "put_in_file", lambda self, number, _: self.file.__setitem__(number, 1))
    with pytest.raises(Mismatch, match="should return '= 1' and returned '= 2'"):
        play(host_lab, SHMEM, [Op("write", 0, 2)])


def test_a_message_that_should_not_come_is_a_mismatch(host_lab, monkeypatch):
    monkeypatch.setattr(ExpectedMemory, "send_messages", lambda *_: None)
    rules = rules_of(host_lab, "anon", events=True)
    ops = [Op("register", 0, int(MISSING), count=4), Op("dontneed", 0)]
    with pytest.raises(Mismatch, match=r"sent Remove.* which it should not send"):
        play(host_lab, rules, ops)


def test_a_message_that_does_not_come_is_a_mismatch(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "wake", lambda memory, _: memory.messages.append("remove") or "ok")
    with pytest.raises(Mismatch, match="sent no remove message"):
        play(host_lab, ANON, [Op("wake", 0)])


def test_the_pages_of_a_child_are_compared_with_the_model(host_lab, monkeypatch):
    ops = [Op("write", 0, 1), Op("fork", 0)]
    play(host_lab, ANON, ops)
    monkeypatch.setattr(Model, "child", lambda self: Model(self.rules, len(self.pages)))
    with pytest.raises(Mismatch, match="page 0 of the child should be"):
        play(host_lab, ANON, ops)


def test_a_disagreement_is_made_small(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "protect", lambda *_: "ok")
    with pytest.raises(Mismatch) as caught:
        play(host_lab, ANON, random_ops(ANON, 4, 5))
    small = shrink(host_lab, caught.value)
    assert len(small.calls) <= len(caught.value.calls)
    assert [op.call for op in small.calls][-1] == "protect"
    assert len(small.calls) <= 4


def once(times=1):
    """Return an answer of the model that is wrong so many times."""
    left = [times]

    def answer(*_):
        left[0] -= 1
        return "EEXIST" if left[0] >= 0 else "ok"

    return answer


def test_what_does_not_come_again_is_unknown_where_others_use_the_kernel(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "wake", once())
    with pytest.raises(Mismatch) as caught:
        play(host_lab, ANON, [Op("write", 0, 1), Op("wake", 0)])
    assert not caused_by_calls(host_lab, caught.value)


def test_what_comes_again_is_the_doing_of_the_calls(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "wake", once(3))
    with pytest.raises(Mismatch) as caught:
        play(host_lab, ANON, [Op("write", 0, 1), Op("wake", 0)])
    assert caused_by_calls(host_lab, caught.value)


def test_in_a_guest_of_its_own_all_is_the_doing_of_the_calls(host_lab, monkeypatch):
    monkeypatch.setitem(CALLS, "wake", once())
    with pytest.raises(Mismatch) as caught:
        play(host_lab, ANON, [Op("wake", 0)])
    monkeypatch.setattr(host_lab.machine, "name", "qemu")
    assert caused_by_calls(host_lab, caught.value)


def test_random_calls_count_unknown_results_and_go_on(host_lab, monkeypatch, capsys):
    monkeypatch.setitem(CALLS, "wake", once())
    count = play_randomly(host_lab, 8, seed=1, memories=("anon",))
    assert count.unknown == 1
    assert count.regions > 1
    assert "did not happen again: Op(call='wake'" in capsys.readouterr().err
    monkeypatch.setitem(CALLS, "wake", lambda *_: "EEXIST")
    with pytest.raises(Mismatch):
        play_randomly(host_lab, 2, seed=1, memories=("anon",))
