"""Where a map's symmetry axes stand: the turn and the move that bring them onto those of a point group.

The measure is the symmetry correlation. With F the transform of the map, turned by Q about a centre c,

    s(Q, c) = mean over S of  sum_k Re conj(F(Q' k)) F(Q' S k) e(k, S) / sum_k |F(Q' k)|^2,    Q' = inv(Q),

S running over the group without the identity and e being the phase of the centre: the mean correlation of the map with
itself after each operator, 1 for a map that has the group about these axes.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import affine_transform, spline_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.maths.fourier import resample_cube
from swiftres_plugin.engine.maths.geometry import direction_grid, rotation_angle, so3_grid
from swiftres_plugin.engine.maths.slices import PADDING, fourier_volume
from swiftres_plugin.engine.maths.symmetry import (
    equal_frames,
    fixed_directions,
    generators,
    in_asymmetric_unit,
    shortest_turn,
)

STEP_OF_DETAIL = 0.5  # grid step in units of the angle that the finest detail takes at the map's rim
FINEST_STEP_RAD, WIDEST_STEP_RAD = 0.05, 0.2
ROUGH_SHELLS = 8  # of the map that all turns are compared on
STARTS = 3  # best grid points that are refined
ROUGH, FINE = 120, 400  # evaluations of the refinement of each, and of the best
MOST_POINTS = 600  # of the transform that are compared


@dataclass(frozen=True, eq=False, slots=True)
class Axes:
    """How a map stands to a group: `turn` (3, 3) and `move_a` (3,) bring it onto the axes, x -> turn @ (x + move_a).

    given and found: the symmetry correlation of the map as it is, and after that.
    """

    turn: np.ndarray
    move_a: np.ndarray
    given: float
    found: float

    @property
    def angle_rad(self) -> float:
        return float(rotation_angle(self.turn, np.eye(3)))


def find_axes(density: Map, operators: np.ndarray, resolution_a: float) -> Axes:
    """The smallest turn, and the move, that bring the map, seen to `resolution_a`, onto the axes of a group.

    A group leaves some turns free (about z for Cn, to other axes of a kind for D2): of these the smallest is taken, and
    no move along directions that the group leaves as they are.
    """
    if len(operators) == 1:
        return Axes(np.eye(3), np.zeros(3), 1.0, 1.0)
    field = Field.of(density, resolution_a)
    rough = Field.of(density, max(resolution_a, field.box_a / ROUGH_SHELLS))
    given, roughly = (float(f.likeness(np.eye(3)[None], np.zeros(3), operators[1:])[0]) for f in (field, rough))
    centre = _without(fixed_directions(operators), -centre_of_mass(density))
    best = Trial(np.eye(3), np.zeros(3), roughly)
    for start in _starts(rough, operators, [np.zeros(3), centre]):
        found = _refined(rough, operators, start, ROUGH)
        best = found if found.score > best.score + 1e-4 else best
    best = _refined(field, operators, best, FINE)
    frames = equal_frames(operators, best.turn)
    smallest = frames[rotation_angle(frames, np.eye(3)).argmin()]
    return Axes(smallest, best.move_a, given, best.score)


def turned(density: Map, axes: Axes) -> Map:
    """The map after the turn and the move of `axes`, by cubic interpolation."""
    move_px = axes.move_a / density.pixel_size_a
    return Map(rotated(density.voxels, axes.turn, move_px, order=3), density.pixel_size_a, density.origin_a)


def rotated(voxels: np.ndarray, turn: np.ndarray, move_px: np.ndarray | None = None, order: int = 3) -> np.ndarray:
    """(n, n, n) float32 a cube moved by (3,) pixels, x, y, z, and then turned (3, 3) about its centre; by splines."""
    backwards = turn.T[::-1, ::-1]  # (z, y, x) order
    centre = np.full(3, len(voxels) // 2)
    move = np.zeros(3) if move_px is None else move_px
    start = centre - move[::-1] - backwards @ centre
    return affine_transform(voxels, backwards, start, order=order, mode="constant").astype(np.float32)


def symmetrised(voxels: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(n, n, n) the mean of a cube over its turns by every operator of a group."""
    filtered = spline_filter(voxels.astype(np.float64), order=3, mode="constant")
    centre, total = np.full(3, len(voxels) // 2), voxels.astype(np.float64)
    for operator in operators[1:]:
        backwards = operator.T[::-1, ::-1]
        total += affine_transform(filtered, backwards, centre - backwards @ centre, order=3, mode="constant", prefilter=False)
    return (total / len(operators)).astype(np.float32)


def centre_of_mass(density: Map) -> np.ndarray:
    """(3,) A, x, y, z from the box centre, of what stands above a fifth of the maximum."""
    weight = np.where(density.voxels > 0.2 * density.voxels.max(), density.voxels, 0.0)
    axis = (np.arange(density.box_px) - density.box_px // 2) * density.pixel_size_a
    sums = [weight.sum(axis=(0, 1)), weight.sum(axis=(0, 2)), weight.sum(axis=(1, 2))]
    return np.array([(along * axis).sum() for along in sums]) / max(weight.sum(), 1e-30)


@dataclass(frozen=True, eq=False, slots=True)
class Field:
    """The transform of a low-passed map, to be read anywhere: volume as `fourier_volume` makes it; points_px (L, 3) in
    cycles per box and their weights (L,); box_a; step_rad, the turn that shows at this resolution."""

    volume: torch.Tensor
    points_px: torch.Tensor
    weight: torch.Tensor
    box_a: float
    step_rad: float

    @staticmethod
    def of(density: Map, resolution_a: float) -> Field:
        """Points lie on spheres of the map's frequencies, each standing for its share of the ball."""
        box_a = density.box_px * density.pixel_size_a
        shells = max(2, int(box_a / resolution_a + 1e-6))
        voxels = torch.from_numpy(np.ascontiguousarray(density.voxels - np.median(density.voxels), dtype=np.float32))
        directions = direction_grid(np.sqrt(4 * np.pi * shells / MOST_POINTS))
        radii = np.arange(1, shells + 1)
        points = torch.from_numpy((radii[:, None, None] * directions).reshape(-1, 3)).float()
        weight = torch.from_numpy(np.repeat(radii ** 2.0, len(directions))).float()
        step = STEP_OF_DETAIL * resolution_a / (0.5 * box_a)
        coarse = resample_cube(voxels, min(density.box_px, 2 * ((4 * shells + 17) // 2)))
        volume = fourier_volume(coarse, shells + 2)
        return Field(volume, points, weight, box_a, float(np.clip(step, FINEST_STEP_RAD, WIDEST_STEP_RAD)))

    def values(self, rotations: torch.Tensor) -> torch.Tensor:
        """(Q, L) the transform at points turned by (Q, 3, 3)."""
        points = (rotations @ self.points_px.T).transpose(1, 2) * PADDING
        sign = 1 - 2 * (points[..., :1] < 0).float()
        limit = self.volume.shape[-1] - 1
        place = points * sign * points.new_tensor([2 / limit, 1 / limit, 1 / limit]) + points.new_tensor([-1.0, 0, 0])
        read = torch.nn.functional.grid_sample(
            self.volume[None], place.reshape(1, 1, 1, -1, 3), align_corners=True)[0].view(2, *points.shape[:2])
        return torch.complex(read[0], read[1] * sign[..., 0])

    def likeness(self, turns: np.ndarray, move_a: np.ndarray, operators: np.ndarray) -> np.ndarray:
        """(Q,) mean symmetry correlation over `operators` (without the identity) after the turns (Q, 3, 3) and the move."""
        back = torch.from_numpy(turns).float().transpose(1, 2)
        plain = self._moved(back, move_a)
        power = (plain.abs() ** 2 * self.weight).sum(1)
        total = torch.zeros(len(turns))
        for operator in torch.from_numpy(operators).float():
            total += ((plain.conj() * self._moved(back @ operator, move_a)).real * self.weight).sum(1) / power
        return (total / len(operators)).double().numpy()

    def _moved(self, rotations: torch.Tensor, move_a: np.ndarray) -> torch.Tensor:
        """(Q, L) values of the map moved by (3,) A: a move d multiplies the transform by exp(-2 pi i k . d)."""
        phase = -2 * np.pi / self.box_a * ((torch.from_numpy(move_a).float() @ rotations) @ self.points_px.T)
        return self.values(rotations) * torch.polar(torch.ones_like(phase), phase)


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """A turn (3, 3) and a move (3,) A of the map, and the symmetry correlation they give."""

    turn: np.ndarray
    move_a: np.ndarray
    score: float


def _starts(field: Field, operators: np.ndarray, moves_a: list[np.ndarray]) -> list[Trial]:
    """The map as it is, and the turns of highest symmetry correlation on a grid, each from another neighbourhood."""
    grid, few = _turn_grid(operators, field.step_rad), generators(operators)
    parts = np.array_split(grid, len(grid) // 256 + 1)
    trials = [Trial(turn, move, score) for move in moves_a for part in parts
              for turn, score in zip(part, field.likeness(part, move, few))]
    kept = [Trial(np.eye(3), moves_a[0], 0.0)]
    for trial in sorted(trials, key=lambda one: -one.score):
        if len(kept) > STARTS:
            break
        if rotation_angle(np.stack([one.turn for one in kept[1:]] or [-np.eye(3)]), trial.turn).min() > 2 * field.step_rad:
            kept.append(trial)
    return kept


def _turn_grid(operators: np.ndarray, step_rad: float) -> np.ndarray:
    """(K, 3, 3) turns that bring other directions of a map to the axes of a group."""
    axis = fixed_directions(operators)
    if axis.shape[1] == 1:  # a cyclic group: where its axis lies is all that matters, and not which way it points
        directions = direction_grid(step_rad)
        return np.stack([shortest_turn(one, axis[:, 0]) for one in directions[directions @ axis[:, 0] > -1e-9]])
    grid = so3_grid(step_rad)
    return grid[in_asymmetric_unit(grid[:, :, 2], operators)]  # S @ Q is as good as Q


def _refined(field: Field, operators: np.ndarray, start: Trial, evaluations: int) -> Trial:
    """The turn and the move nearby with the highest symmetry correlation."""
    fixed = fixed_directions(operators)
    scale_a = 0.25 * field.box_a * field.step_rad  # as far as the rim moves in a step

    def placed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turn = Rotation.from_rotvec(field.step_rad * values[:3]).as_matrix() @ start.turn
        return turn, turn.T @ _without(fixed, turn @ (start.move_a + scale_a * values[3:]))

    def loss(values: np.ndarray) -> float:
        turn, move = placed(values)
        return -float(field.likeness(turn[None], move, few)[0])

    few = generators(operators)
    simplex = np.concatenate([np.zeros((1, 6)), 0.5 * np.eye(6)])
    best = minimize(loss, np.zeros(6), method="Nelder-Mead",
                    options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6, "maxfev": evaluations})
    turn, move = placed(best.x)
    return Trial(turn, move, float(field.likeness(turn[None], move, operators[1:])[0]))


def _without(directions: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(3,) the part of a vector across the orthonormal columns `directions` (3, K)."""
    return vector - directions @ (directions.T @ vector)
