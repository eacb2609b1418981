"""The simulation of runs on many GPUs follows the rules that it states."""

from dataclasses import replace

import pytest

from benchmarks.cluster import Run, Times

PLAIN = Times(
    start=10.0, load=5.0, evidence=20.0, cached=1.0, turns=(3, 3), call=2.0, spread=0.0, judge=4.0, asks=2, decode=1.0,
    crowding=0.0, python=0.0, grade=0.0, claim=0.0, entry=0.0, absorb=0.0, threads=1,
)  # fmt: skip
AUDIT = 3 * 2.0 + 2 * 1.0 + 4.0


def test_one_worker_does_one_thing_after_another():
    out = Run(2, 3, 1, PLAIN).join()
    assert out.makespan == pytest.approx(10 + 2 * (5 + 20 + 3 * AUDIT))
    assert out.gpu == pytest.approx(2 * (5 + 20 + 3 * 2 * 1.0) / out.makespan)
    assert out.endpoint == pytest.approx(2 * 3 * (3 * 2.0 + 4.0) / out.makespan)


def test_threads_wait_together_and_a_pair_ends_with_its_last_audit():
    assert Run(2, 5, 1, replace(PLAIN, threads=4)).join().makespan == pytest.approx(10 + 2 * (25 + 2 * AUDIT))


def test_rows_slow_each_other():
    crowding = replace(PLAIN, crowding=0.5, asks=1)
    alone = Run(1, 1, 1, crowding).join().makespan
    assert Run(1, 4, 1, replace(crowding, threads=4)).join().makespan == pytest.approx(alone + 0.5 * 3)


def test_an_endpoint_answers_no_more_than_its_limit_at_once():
    out = Run(8, 8, 8, replace(PLAIN, threads=8, endpoint=4)).join()
    calls = 8 * 8 * (3 * 2.0 + 4.0) / 4
    assert calls < out.makespan < calls + 10 + 25 + AUDIT
    assert out.endpoint == pytest.approx(calls / out.makespan)


def test_workers_take_pairs_apart_and_help_once_none_is_left():
    assert Run(6, 4, 3, PLAIN).join().loads == 6
    alone, helped = Run(1, 9, 1, PLAIN).join(), Run(1, 9, 3, PLAIN).join()
    assert (alone.loads, helped.loads) == (1, 3)
    assert helped.makespan == pytest.approx(10 + 25 + 3 * AUDIT)


def test_the_head_takes_over_what_others_made_once_its_own_are_made():
    plain, told = Run(4, 3, 4, PLAIN).join(), Run(4, 3, 4, replace(PLAIN, absorb=7.0)).join()
    assert told.makespan == pytest.approx(plain.makespan + 9 * 7.0)
    assert told.ledger == pytest.approx(9 * 7.0 / told.makespan)


def test_an_array_starts_a_process_for_each_pair_and_ray_waits_for_each_lot():
    assert Run(4, 3, 2, PLAIN).slurm().makespan == pytest.approx(2 * (10 + 25 + 3 * AUDIT))
    uneven = replace(PLAIN, turns=(1, 9))
    slurm, ray = Run(12, 3, 3, uneven).slurm(), Run(12, 3, 3, uneven).ray()
    assert ray.makespan > slurm.makespan
    assert ray.loads == slurm.loads == 12


def test_python_and_the_ledger_of_a_process_serve_one_audit_at_a_time():
    many = replace(PLAIN, call=0.0, judge=0.0, decode=0.0, asks=0, threads=6)
    assert Run(1, 6, 1, replace(many, python=1.0)).join().makespan == pytest.approx(10 + 25 + 6 * 3 * 1.0)
    out = Run(1, 6, 1, replace(many, entry=1.0)).join()
    assert out.makespan == pytest.approx(10 + 25 + 6 * 4 * 1.0)
    assert out.ledger == pytest.approx(24 / out.makespan)


def test_claims_of_all_workers_are_made_one_after_another():
    quick = replace(PLAIN, call=0.0, judge=0.0, decode=0.0, asks=0)
    out = Run(4, 1, 4, replace(quick, claim=1.0)).join()
    assert 10 + 25 + 4 <= out.makespan <= 10 + 25 + 4 + 4 * 0.05


def test_the_same_seed_gives_the_same_run():
    uneven = replace(PLAIN, turns=(1, 9), spread=0.5)
    assert Run(3, 3, 2, uneven, seed=4).join() == Run(3, 3, 2, uneven, seed=4).join()
    assert Run(3, 3, 2, uneven, seed=4).join() != Run(3, 3, 2, uneven, seed=5).join()
