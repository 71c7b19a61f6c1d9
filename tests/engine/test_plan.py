"""Plans follow from what was reached; nothing else."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from synthetic import assignment_of, random_poses

from swiftres_plugin.engine.data.state import ClassState, IterationRecord, RefinementState
from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.plan import at_rest, next_last_shell, plan_iteration
from swiftres_plugin.settings import from_flat

BAND = image_band(100, 2.0)  # 200 A wide: shell s stands for 200 / s angstroms
DIAMETER_A = 120.0


def record(number: int, resolution_a: float, exhaustive: bool = True, turn_deg: float = 5.0) -> IterationRecord:
    return IterationRecord(number, exhaustive, 1 / resolution_a, resolution_a, math.radians(turn_deg), 1.0, 0.9)


def state(last_shell: int = 4, records: tuple[IterationRecord, ...] = ()) -> RefinementState:
    poses = random_poses(3)
    assignment = assignment_of(poses) if records else None
    reference = torch.zeros(2, 2, 2)
    return RefinementState(len(records), (ClassState((reference, reference), last_shell, 60.0),), np.ones((2, 1, 2)),
                           np.array([0, 1, 0]), assignment, history=records)


def planned(now: RefinementState, **settings: object):
    return plan_iteration(now, BAND, DIAMETER_A, from_flat(settings))


def test_the_first_iteration_searches_everywhere():
    plan = planned(state(), initial_resolution=50.0, max_shift=17.0)
    assert plan.number == 1 and plan.exhaustive
    assert plan.last_shell == plan.search_shell == 4
    assert plan.shift_range_a == 17.0


def test_shifts_reach_a_tenth_of_the_box_when_nothing_is_said():
    assert planned(state()).shift_range_a == pytest.approx(20.0)


def test_steps_follow_the_resolution_of_the_search():
    """Finer data, finer steps; never finer than the search's own limit asks."""
    coarse, fine = planned(state(4)), planned(state(8))
    assert fine.angular_step_rad < coarse.angular_step_rad and fine.shift_step_a == coarse.shift_step_a / 2
    deep, deeper = (planned(state(shell), search_resolution=20.0) for shell in (30, 45))
    assert deep.search_shell == deeper.search_shell == 10
    assert deep.angular_step_rad == deeper.angular_step_rad and deep.last_shell == 30 and deeper.last_shell == 45


def test_a_search_goes_as_far_as_the_particles_need():
    """And no farther than the map does; what the user says is the least."""
    def plan(telling: int, **settings: object):
        return plan_iteration(state(30), BAND, DIAMETER_A, from_flat(settings), telling)

    assert [plan(shell).search_shell for shell in (0, 5, 18, 40)] == [10, 10, 18, 30]
    assert plan(18, search_resolution=8.0).search_shell == 25
    assert plan(18).angular_step_rad < plan(0).angular_step_rad


def test_a_larger_particle_needs_finer_angles():
    small, large = (plan_iteration(state(), BAND, d, from_flat({})) for d in (60.0, 180.0))
    assert large.angular_step_rad < small.angular_step_rad


def test_the_same_state_gives_the_same_plan():
    now = state(6, (record(1, 20.0),))
    assert dataclasses.asdict(planned(now)) == dataclasses.asdict(planned(now))


def test_known_positions_are_searched_less_widely():
    first, second = (planned(now, max_shift=60.0) for now in (state(4), state(20, (record(1, 10.0),))))
    assert second.shift_range_a < first.shift_range_a
    assert second.shift_range_a >= second.shift_step_a


def test_searches_go_on_while_poses_turn_farther_than_they_can_be_misjudged():
    """At 20 A particles of 120 A are misjudged by some ten degrees."""
    def searches(turn_deg: float, count: int) -> bool:
        return planned(state(20, tuple(record(n + 1, 20.0, turn_deg=turn_deg) for n in range(count)))).exhaustive

    assert searches(5.0, 2) and not searches(5.0, 3)
    assert searches(25.0, 3) and searches(25.0, 7) and not searches(25.0, 8)


def test_the_first_searches_ask_settled_particles_too():
    """Unless most are settled."""
    sure = np.array([True, False, False])
    plans = [planned(dataclasses.replace(state(18, tuple(record(k, 40.0 - 8 * k) for k in range(1, done + 1))), settled=sure))
             for done in (2, 3)]
    assert all(plan.exhaustive for plan in plans)
    assert plans[0].settled is None and np.array_equal(plans[1].settled, sure)
    most = dataclasses.replace(state(8, (record(1, 32.0), record(2, 24.0))), settled=~sure)
    assert np.array_equal(planned(most).settled, ~sure)


def test_local_alignment_never_searches():
    assert not planned(state(), alignment="local").exhaustive
    assert not planned(state(4, (record(1, 20.0, False),)), alignment="local").exhaustive


SEARCHES = tuple(record(n, 10.0) for n in range(1, 5))
IDLE = tuple(record(n, 10.0, False, 0.1) for n in range(5, 8))


def test_search_ends_when_it_improves_nothing():
    assert planned(state(4, SEARCHES[:1])).exhaustive
    better = (record(1, 20.0), record(2, 12.0), record(3, 9.0), record(4, 7.0, turn_deg=1.0))
    assert planned(state(30, better)).exhaustive
    assert not planned(state(28, better)).exhaustive  # no finer than the iteration that improved it,
    assert planned(state(28, (*better[:3], record(4, 7.0, turn_deg=2.0)))).exhaustive  # but where poses still turn
    assert not planned(state(20, SEARCHES)).exhaustive


def test_a_last_search_follows_when_the_refinement_has_settled():
    """Once only: particles that coarse maps misplaced get another chance."""
    moving = (*SEARCHES, record(5, 9.0, False), record(6, 8.0, False))
    settled = (*SEARCHES, *IDLE)
    again = (*settled, record(8, 10.0), *(record(n, 10.0, False, 0.1) for n in (9, 10, 11)))
    assert [planned(state(20, h)).exhaustive for h in (moving, settled, again)] == [False, True, False]


def test_all_begins_anew_where_the_last_search_improves_the_resolution():
    """Searches of all particles, local iterations and a last search follow, until that improves nothing."""
    settled = (*SEARCHES, *IDLE)
    better = (*settled, record(8, 8.0), record(9, 8.0), record(10, 8.0, turn_deg=0.1))
    rest = (*better, *(record(n, 8.0, False, 0.1) for n in (11, 12, 13)))
    plans = [planned(state(20, h)) for h in (better[:-2], better[:-1], better, rest)]
    assert [plan.exhaustive for plan in plans] == [True, True, False, True]
    assert [plan.share for plan in plans if plan.exhaustive] == [1.0, 1.0, plans[-1].share] and plans[-1].share < 0.5
    assert not rests(rest)
    assert rests((*rest, record(14, 8.0), *(record(n, 8.0, False, 0.1) for n in (15, 16, 17))))


def test_the_last_search_asks_those_that_fit_worst_more_finely_and_more_widely():
    settled = (*SEARCHES, *IDLE)
    first, last = planned(state(20, SEARCHES[:2])), planned(state(20, settled))
    assert first.share == 1.0 and 0 < last.share < 0.5
    assert last.search_shell > first.search_shell and last.shift_range_a > first.shift_range_a
    assert planned(state(20, settled), max_shift=7.0).shift_range_a == 7.0


@pytest.mark.parametrize("resolution_a, settings, expected", [
    (10.0, {}, range(21, 30)),  # shell 20 and some more
    (10.0, {"maximum_resolution": 12.5}, range(16, 17)),  # never past what the user allows
    (4.0, {}, range(49, 50)),  # never past Nyquist
    (np.inf, {}, range(5, 6)),  # nothing reached: the starting map's limit, 40 A
    (150.0, {"initial_resolution": 60.0}, range(3, 4))])
def test_next_limit(resolution_a, settings, expected):
    assert next_last_shell(resolution_a, BAND, from_flat(settings)) in expected


def test_a_better_resolution_never_lowers_the_limit():
    shells = [next_last_shell(r, BAND, from_flat({})) for r in (40.0, 20.0, 12.0, 8.0, 5.0)]
    assert shells == sorted(shells)


def rests(history: tuple[IterationRecord, ...], **settings: object) -> bool:
    return at_rest(history, DIAMETER_A, from_flat(settings))


def test_rest_comes_after_idle_iterations():
    assert rests(IDLE, alignment="local")
    assert not rests(IDLE[:1], alignment="local")


def test_no_rest_while_particles_change_class():
    changing = tuple(dataclasses.replace(r, class_changes=0.05) for r in IDLE)
    assert not rests(changing, alignment="local")


def test_all_classes_are_compared_to_what_the_best_supports():
    one = state(4)
    finer = dataclasses.replace(one.classes[0], last_shell=9)
    assert planned(dataclasses.replace(one, classes=(*one.classes, finer))).last_shell == 9


def test_rest_comes_only_after_the_last_search():
    settled = (*SEARCHES, *IDLE)
    assert not rests(settled)
    assert not rests((*settled, record(8, 10.0, True, 0.1)))
    assert rests((*settled, record(8, 10.0), *(record(n, 10.0, False, 0.1) for n in (9, 10, 11))))


def test_no_rest_while_the_resolution_improves_or_poses_move():
    improving = tuple(record(n, 12.0 - n, False, 0.1) for n in range(1, 6))
    moving = tuple(record(n, 10.0, False, 9.0) for n in range(1, 6))
    assert not rests(improving, alignment="local")
    assert not rests(moving, alignment="local")
