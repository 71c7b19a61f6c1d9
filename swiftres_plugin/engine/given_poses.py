"""Particles at poses that are known: their noise, the window their maps are seen through, and how a map fits them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import torch
from scipy.fft import next_fast_len

from swiftres_plugin.engine.align import RESIDUAL_BYTES, image_noise, residual_noise
from swiftres_plugin.engine.checks import check_mask
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.maths.fourier import filter_shells, resample_cube
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.classes import difference_gain, local_gain
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.postprocess import correlation, masked_reference, soften, solvent_mask, sphere_mask
from swiftres_plugin.engine.stages.preprocess import window_power
from swiftres_plugin.settings import ReconstructSettings

FOLDS = 4
SETS = 2 * (FOLDS - 1) / FOLDS  # halves of the folds that a map of all folds but one is made of
FOCUSINGS = 2  # a third changes nothing
COARSE_A = 20.0  # of the map whose solvent boundary is looked for
MARGIN_SHELLS = 4  # of a small box beyond the finest shell compared
ROOM_A, EDGE_PX = 10.0, 5.0  # beyond the solvent boundary
SPHERE = 0.46  # of the box: radius of the sphere that holds the particle


def opened_mask(path: str, particles: Particles) -> np.ndarray | None:
    """(n, n, n) the mask of a file, if one is given. Raises `InputError` unless it fits the particles."""
    if not path:
        return None
    mask = read_map(path)
    check_mask(mask, particles.box_px, particles.pixel_size_a, path)
    return mask.voxels


def noise_and_window(engine: Engine, poses: Assignment, half: np.ndarray,
                     mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Noise power (2, groups, S) that the map of each half leaves, as `for_shares` has it, and the window (n, n, n): the mask,
    or where none is given the solvent boundary of the map with room around it."""
    engine = at_best_poses(engine)
    box, pixel = engine.spectra.band.box_px, engine.spectra.band.pixel_size_a
    rows = [np.flatnonzero(half == h) for h in (0, 1)]
    noise = [image_noise(engine, of_half) for of_half in rows]
    sphere = sphere_mask(box, SPHERE * box)
    maps = [masked_reference(engine.solved(reconstruct_half(engine, noise[h], rows[h], poses.take(rows[h]), f"half {h + 1}")),
                             sphere) for h in (0, 1)]
    if mask is None:
        mask = with_room(solvent_mask(((maps[0] + maps[1]) / 2).cpu().numpy(), pixel, COARSE_A, SPHERE * box), pixel)
    left = [residual_noise(engine, [masked_reference(maps[h], mask)], rows[h], poses.take(rows[h])) for h in (0, 1)]
    return for_shares(engine, np.stack(left)), mask


def for_shares(engine: Engine, noise: np.ndarray) -> np.ndarray:
    """Noise power (2, groups, S) at which likelihoods of windowed images are as sharp as they should be."""
    power: np.ndarray = noise / window_power(engine.spectra.particles, engine.settings.preprocess)[:, None]
    return power.astype(np.float32)


def with_room(mask: np.ndarray, pixel_size_a: float) -> np.ndarray:
    """A solvent mask widened for a part that few of the particles have, and that the map of all hardly shows."""
    box = len(mask)
    return soften(mask > 0.5, ROOM_A / pixel_size_a, EDGE_PX) * sphere_mask(box, SPHERE * box)


def fixed_scores(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, poses: Assignment,
                 turns: np.ndarray | None = None) -> np.ndarray:
    """(n, T) log-likelihoods of the particles at `rows` against a map, at their poses turned by each of `turns` (T, 3, 3)
    (by none if left out); `poses` are those of all particles."""
    band = engine.spectra.band.to(engine.device)
    volume = engine.volume(reference, band.last_shell)
    operators = torch.from_numpy(np.eye(3)[None] if turns is None else turns).float().to(engine.device)

    def scored(part: np.ndarray) -> np.ndarray:
        batch = engine.batch(part, band)
        power = per_sample(noise, batch)
        rotation = torch.from_numpy(poses.image_to_volume[part]).float().to(engine.device)
        shift = torch.from_numpy(poses.shift_a[part]).float().to(engine.device)
        mates = [local.score_poses(batch, power, volume, operator @ rotation, shift) for operator in operators]
        return torch.stack(mates, dim=1).double().cpu().numpy()

    parts = engine.compute.batches(rows, len(band) * RESIDUAL_BYTES)
    return np.concatenate(engine.compute.map(scored, parts))


def map_of_folds(engine: Engine, window: np.ndarray, sums: Sequence[Accumulator]) -> torch.Tensor:
    """The map of some folds, without its solvent."""
    return masked_reference(engine.solved(reduce(add, sums)), window)


def damping(parts: Sequence[torch.Tensor], pixel_size_a: float, sets: float = SETS) -> Callable[[torch.Tensor], torch.Tensor]:
    """What damps a difference map, region by region and shell by shell, by how far its two `parts` agree.

    What differs stands in one place, and noise is everywhere. What agrees at all tells the region first, and how fine detail
    agrees is asked within it: noise elsewhere would hide all but the coarsest shells of a small part.

    sets: how many such parts the map to be damped is made of; by default the parts are halves of the folds, and the map is
    made of all folds but one.
    """
    focus = torch.ones_like(parts[0])
    for _ in range(FOCUSINGS):
        gain = shell_gain(parts, focus, sets)
        first, second = (filter_shells(part, gain) for part in parts)
        focus = local_gain(first, second, sets, pixel_size_a)
    gain = shell_gain(parts, focus, sets)
    return lambda voxels: filter_shells(voxels * focus, gain)


def shell_gain(parts: Sequence[torch.Tensor], focus: torch.Tensor, sets: float) -> torch.Tensor:
    """(S,) gain per shell, from how far the parts agree where `focus` lets them be seen."""
    return torch.from_numpy(difference_gain(correlation(*(part * focus for part in parts)), sets)).float()


def small_engine(engine: Engine, window: np.ndarray, resolution_a: float) -> tuple[Engine, np.ndarray]:
    """The engine on the shells up to a resolution, in a small box that holds them (of a size without large prime factors,
    since its transforms are most of the work), and the window in that box.

    It reports nothing and keeps its own accounts: what is done in many small steps is told of as a whole.
    """
    spectra = engine.spectra
    band = spectra.band.up_to(spectra.band.shell_of(resolution_a))
    box_px = min(spectra.band.box_px, 2 * next_fast_len(band.last_shell + MARGIN_SHELLS, real=True))
    small = Band(box_px, band.box_a / box_px, band.wave_px, band.shell)
    fitting = resample_cube(torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32)), box_px).clamp(0, 1)
    cut = Spectra(spectra.values[:, :len(small)], small, spectra.particles)
    return replace(at_best_poses(engine).silent(), spectra=cut), fitting.numpy()


def at_best_poses(engine: Engine) -> Engine:
    """The same run, with each particle put into maps once: files of poses tell no uncertainty."""
    return replace(engine, settings=replace(engine.settings, reconstruct=ReconstructSettings(pose_samples=1)))


def in_box_of(engine: Engine, voxels: torch.Tensor) -> torch.Tensor:
    """A map in the box of an engine of `small_engine`, on the scale where its slices stay what they were."""
    box_px = engine.spectra.band.box_px
    return resample_cube(voxels, box_px) * (len(voxels) / box_px) ** 2
