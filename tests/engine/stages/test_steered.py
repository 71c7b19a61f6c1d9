"""The search from coarse to fine: the whole grid beside every product, its parts, and what two grids find of one."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra
from torch.overrides import TorchFunctionMode

from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.maths import steering
from swiftres_plugin.engine.maths.slices import fourier_volume
from swiftres_plugin.engine.maths.vectors import as_real
from swiftres_plugin.engine.searching import prepare_search
from swiftres_plugin.engine.stages import steered
from swiftres_plugin.engine.stages.exhaustive import exhaustive_search, holds_best
from swiftres_plugin.engine.stages.steered import SteeredSearch, best_over_shifts, promising

COUNT, NOISE, LAST_SHELL = 60, 0.4, 8


@pytest.fixture(scope="module")
def engine():
    return engine_over(plain_spectra(particle_set(COUNT, noise=NOISE, shift_a=3.0)))


def search_of(engine, step_deg: float) -> SteeredSearch:
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    plan = IterationPlan(1, LAST_SHELL, True, LAST_SHELL, np.deg2rad(step_deg), 4.0, 8.0)
    noise = np.full((1, engine.spectra.band.last_shell + 1), NOISE ** 2)
    found = prepare_search(engine, volume, noise, np.arange(COUNT), plan)
    assert isinstance(found, SteeredSearch)
    return found


def asked(engine, search):
    batch = engine.batch(np.arange(COUNT), search.band)
    return batch, torch.full(batch.ctf.shape, NOISE ** 2), torch.zeros(COUNT, 2)


@pytest.fixture(scope="module")
def two_grids(engine):
    """The first with cells of 8 degrees."""
    found = search_of(engine, 4.0)
    assert [len(level.gallery) for level in found.levels] == [len(found.levels[0].gallery), 8 * len(found.levels[0].gallery)]
    return found


def test_wide_grids_are_searched_at_once(engine):
    assert len(search_of(engine, 9.0).levels) == 1


def test_every_product_is_made_and_the_best_shift_kept(engine, two_grids):
    """Beside references turned one by one: also those half a turn on, which are never made."""
    level = two_grids.levels[0]
    queries = level.asked(*asked(engine, two_grids))[0][:5]
    found = best_over_shifts(level.gallery, queries)
    for p in (0, 7, len(level.gallery.psi_rad) // 2 + 3, len(level.gallery.psi_rad) - 1):
        vectors = as_real(level.gallery.numbers * level.gallery.phases()[p])
        np.testing.assert_allclose(found[:, p], (as_real(queries) @ vectors.T).amax(1), rtol=1e-4, atol=1e-2)


def test_small_blocks_and_few_particles_at_a_time_change_nothing(engine, two_grids, monkeypatch):
    whole = two_grids.search(*asked(engine, two_grids), 8)
    monkeypatch.setattr(steered, "BLOCK_SCORES", 20_000)
    monkeypatch.setattr(steered, "PART_BYTES", 1)
    parts = two_grids.search(*asked(engine, two_grids), 8)
    torch.testing.assert_close(parts.score, whole.score, rtol=1e-4, atol=1e-3)
    assert (parts.image_to_volume - whole.image_to_volume).abs().amax((2, 3)).lt(1e-5).float().mean() > 0.99


def test_one_grid_finds_what_the_exhaustive_search_finds(engine, monkeypatch):
    """With every component: the same pose for most, a neighbour for the others, by nearly the same score."""
    monkeypatch.setattr(steering, "ENOUGH", 1.0)
    search = search_of(engine, 9.0)
    batch, noise, centre = asked(engine, search)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    best = exhaustive_search(batch, noise, volume, search.orientations(), search.shifts_a.expand(COUNT, -1, -1))
    found = search.search(batch, noise, centre, 1)
    torch.testing.assert_close(found.score, best.score, rtol=0.08, atol=1.0)  # the powers of the innermost rings differ
    assert holds_best(found, best, engine.operators, 1.5 * search.angular_step_rad, 1e-3).mean() > 0.95
    assert holds_best(found, best, engine.operators, 1e-3, 1e-3).mean() > 0.7


def test_two_grids_find_what_one_finds(engine, two_grids):
    """For nearly all: five spots at four shells look alike from several sides."""
    batch, noise, centre = asked(engine, two_grids)
    alone = SteeredSearch(two_grids.levels[1:])
    expected, found = alone.search(batch, noise, centre, 1), two_grids.search(batch, noise, centre, 8)
    assert holds_best(found, expected, engine.operators, 1.5 * two_grids.angular_step_rad, 6.0).mean() >= 0.9
    assert (found.score[:, :1] > 0.98 * expected.score).float().mean() >= 0.95


def test_found_poses_lie_on_the_grid_with_their_score(engine, two_grids):
    """The number of a pose says where it lies: its score is that of its own orientation and shift."""
    level = two_grids.levels[0]
    batch, noise, centre = asked(engine, two_grids)
    queries, power = level.asked(batch, noise, centre)
    found = promising(level, queries, power)
    row, place = torch.arange(COUNT), 3
    direction, turn, shift = found.direction[:, place], found.turn[:, place], found.shift[:, place]
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    numbers, shells = level.steering.of_references(volume, level.gallery.orientations(direction, turn))
    score = (queries[row, shift].conj() * numbers).real.sum(1)
    few = batch.up_to(level.steering.band.last_shell)
    score -= (level.steering.power_of_particles(few, noise[:, :len(few.band)]) * shells).sum(1)
    # a slice is sampled anew at every angle here, where the search turns its series
    assert float((score - found.score[:, place]).abs().max()) < 0.05 * float(found.score[:, 0].median())


@pytest.mark.parametrize("components", [1, 2])
def test_few_components_still_search(components):
    one = engine_over(plain_spectra(particle_set(COUNT, noise=NOISE)), components=components)
    search = search_of(one, 9.0)
    assert len(search.levels[0].steering.order) == 1
    assert search.search(*asked(one, search), 2).score[:, 0].isfinite().all()


class RoundedProducts(TorchFunctionMode):
    """Matrix products whose factors are rounded to the ten bits of TF32, as GPUs do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in ("matmul", "__matmul__") and all(factor.dtype == torch.float32 for factor in args):
            self.seen += 1
            args = tuple(((factor.contiguous().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)
                         for factor in args)
        return function(*args, **(kwargs or {}))


def test_products_of_ten_bits_find_the_same_poses(engine, two_grids):
    """Scores change by less than a thousandth, and the best candidate stays one."""
    exact = two_grids.search(*asked(engine, two_grids), 8)
    with RoundedProducts() as mode:
        rounded = two_grids.search(*asked(engine, two_grids), 8)
    assert mode.seen > 4 and not torch.equal(exact.score, rounded.score)
    torch.testing.assert_close(rounded.score[:, 0], exact.score[:, 0], rtol=1e-3, atol=0)
    assert holds_best(rounded, exact.best(1), engine.operators, 1e-3, 1e-3).all()
