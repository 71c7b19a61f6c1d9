"""Classes within a refinement: a structure at rest divided into several, and the shares in them after each alignment.

Structures that began as several maps, and turn out to be conformations of one, are parted anew when they are at rest:
alignment compares each particle with maps that differ in noise everywhere, and with maps that hold it.

Alignment gives each particle one pose, that of the class where it is likeliest. Its shares are then found at that pose as
engine/classify.py does it, from maps that the particle is not in: the maps it was aligned to hold it, and would keep it.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from swiftres_plugin.engine.class_maps import LEAST_SHARE, Setting
from swiftres_plugin.engine.classify import classify, rounds
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import for_shares, with_room

FINEST_A = 7.0  # classes that differ at all differ here; finer detail adds noise and little else
ROUNDS = 3  # of new shares after an alignment
STARTS = 2
LEAST_WEIGHT = 1e-6  # of a member
ALIKE = 0.5  # correlation of the maps of two classes, above which they are conformations of one structure in one frame
ENOUGH_PX = 64  # points along an edge that tell it


def changes_classes(engine: Engine, state: RefinementState) -> bool:
    """Whether structures at rest are to be divided, or parted anew."""
    return state.at_rest and (wants_classes(engine, state) or of_one_structure(state))


def wants_classes(engine: Engine, state: RefinementState) -> bool:
    """Whether a structure is at rest that is to be divided."""
    return state.at_rest and len(state.classes) < engine.settings.classes.classes


def of_one_structure(state: RefinementState) -> bool:
    """Whether the classes of several starting maps are alike but for a part, and were only told apart by the alignment."""
    maps = [one.combined for one in state.classes if one.combined is not None]
    if len(maps) < 2 or len(maps) < len(state.classes) or state.shares is not None:
        return False
    step = max(1, len(maps[0]) // ENOUGH_PX)
    return bool(np.corrcoef([one[::step, ::step, ::step].ravel() for one in maps]).min() > ALIKE)


def parted_anew(engine: Engine, state: RefinementState) -> RefinementState:
    """The state of several structures with the particles' shares in them, found as those of a division; it stays at rest where
    these are doubtful."""
    if state.assignment is None:
        raise ValueError("particles without poses cannot be parted")
    whole = np.eye(len(state.classes))[state.assignment.class_id]
    resolution_a = max(FINEST_A, min(one.resolution_a for one in state.classes))
    last = rounds(engine, setting_of(engine, state, state.assignment), whole, resolution_a)[-1]
    if last.doubt:
        engine.reporter.message(f"The structures stay as the alignment told them apart. {last.doubt}")
        return state
    shares = counted(last.shares)
    return replace(state, shares=shares, at_rest=False, assignment=with_classes(state.assignment, shares))


def divided(engine: Engine, state: RefinementState) -> RefinementState:
    """The state of one class with the particles' shares in several, each of which has the map of all for now."""
    if state.assignment is None:
        raise ValueError("particles without poses cannot be divided")
    wanted = engine.settings.classes.classes
    resolution_a = max(FINEST_A, state.classes[0].resolution_a)
    found = classify(engine, setting_of(engine, state, state.assignment), wanted, resolution_a, STARTS,
                     engine.settings.compute.seed)
    if found[-1].doubt:
        engine.reporter.warning(found[-1].doubt)
    shares = counted(found[-1].shares)
    more = wanted - 1  # classes that held nothing until now
    history = tuple(replace(one, class_sizes=one.class_sizes + (0,) * more,
                            class_resolution_a=one.class_resolution_a + (np.inf,) * more) for one in state.history)
    return replace(state, classes=(state.classes[0],) * wanted, shares=shares, at_rest=False, history=history,
                   assignment=with_classes(state.assignment, shares))


def new_shares(engine: Engine, state: RefinementState, plan: IterationPlan, assignment: Assignment) -> np.ndarray | None:
    """(N, K) shares of the particles in the classes at new poses; None where they go whole where the alignment finds them
    likeliest: those of several starting maps until these are at rest."""
    if state.shares is None:
        return None
    resolution_a = max(FINEST_A, engine.spectra.band.box_a / plan.last_shell)
    with engine.timed("classes"):
        found = rounds(engine, setting_of(engine, state, assignment), state.shares, resolution_a, ROUNDS)
    return counted(found[-1].shares)


def setting_of(engine: Engine, state: RefinementState, assignment: Assignment) -> Setting:
    """What the shares are found with: the poses, the noise, and a window on all that any class's mask holds, or the user's."""
    masks = [one.mask for one in state.classes if one.mask is not None]
    window = engine.user_mask
    if window is None:
        window = with_room(np.max(masks, axis=0), engine.spectra.band.pixel_size_a)
    hard = engine.settings.classes.assignment == "hard"
    return Setting(assignment, for_shares(engine, state.noise), state.half, window, hard, state.trust)


def counted(shares: np.ndarray) -> np.ndarray:
    """Shares (N, K) without those that are too small to matter; each particle's still add up to one."""
    kept = np.where(shares > LEAST_SHARE, shares, 0)
    return kept / kept.sum(axis=1, keepdims=True)


def with_classes(assignment: Assignment, shares: np.ndarray | None) -> Assignment:
    """Each particle in the class of its largest share."""
    return assignment if shares is None else replace(assignment, class_id=shares.argmax(axis=1))


def weight_in_class(state: RefinementState, assignment: Assignment, number: int) -> np.ndarray:
    """(N,) how much each particle counts in the map of class `number`; exactly 0 where it is no member."""
    share = (assignment.class_id == number).astype(float) if state.shares is None else state.shares[:, number]
    return share if state.trust is None else np.where(share > 0, share * state.trust.clip(min=LEAST_WEIGHT), 0)
