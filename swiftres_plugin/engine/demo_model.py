"""A protein-like atomic model from a seed: for demonstrations and tests without foreign coordinates.

Globular domains, most of them packed alpha helices and some of them stacked beta sheets, are grown side by side into a
chiral, asymmetric particle and joined into one chain by loops. Geometry of backbone and side chains is ideal; the density
inside the domains is that of proteins, 0.8 Da/A^3. It folds like nothing in nature and images like a protein.
"""
from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .data.atoms import Atoms

DALTON_PER_RESIDUE = 110.0
DALTON_PER_A3 = 0.8
# Backbone torsions phi and psi in degrees, and the rise in angstroms along the axis per residue.
HELIX, STRAND = (-57.0, -47.0, 1.5), (-120.0, 130.0, 3.3)
# Spacing of helices (hexagonal), and of strands within and between sheets, that gives the density above.
HELIX_SPACING_A, STRAND_SPACING_A, SHEET_SPACING_A = 9.8, 4.8, 9.0
SHEET_TWIST_RAD = np.deg2rad(-20.0)
LOOP_STEP_A, LOOP_CLEARANCE_A, LOOP_TRIALS = 3.6, 6.0, 40
DOMAIN_GAP_A = 3.0
LEAST_DISTANCE_A = 2.8
NEIGHBOUR_CA_A = 14.0
TORSIONS_CHI1 = (-60.0, 180.0, 60.0, -85.0, 155.0, -155.0, -35.0, 90.0)

# Side chains beyond CB: atom, element, the three atoms it is placed from (the last is bonded), bond length (A), angle and
# torsion (degrees); a torsion of None is the rotamer's chi1.
SIDE_CHAINS: dict[str, tuple[tuple, ...]] = {
    "ALA": (),
    "SER": (("OG", "O", "N", "CA", "CB", 1.42, 110, None),),
    "CYS": (("SG", "S", "N", "CA", "CB", 1.81, 114, None),),
    "VAL": (("CG1", "C", "N", "CA", "CB", 1.52, 110, None), ("CG2", "C", "CG1", "CA", "CB", 1.52, 110, 122)),
    "ASP": (("CG", "C", "N", "CA", "CB", 1.52, 113, None), ("OD1", "O", "CA", "CB", "CG", 1.25, 118, -20),
            ("OD2", "O", "CA", "CB", "CG", 1.25, 118, 160)),
    "LEU": (("CG", "C", "N", "CA", "CB", 1.53, 116, None), ("CD1", "C", "CA", "CB", "CG", 1.52, 110, 180),
            ("CD2", "C", "CA", "CB", "CG", 1.52, 110, 60)),
    "GLU": (("CG", "C", "N", "CA", "CB", 1.52, 114, None), ("CD", "C", "CA", "CB", "CG", 1.52, 113, 180),
            ("OE1", "O", "CB", "CG", "CD", 1.25, 118, 0), ("OE2", "O", "CB", "CG", "CD", 1.25, 118, 180)),
    "MET": (("CG", "C", "N", "CA", "CB", 1.52, 114, None), ("SD", "S", "CA", "CB", "CG", 1.81, 113, 180),
            ("CE", "C", "CB", "CG", "SD", 1.79, 101, 70)),
    "LYS": (("CG", "C", "N", "CA", "CB", 1.52, 114, None), ("CD", "C", "CA", "CB", "CG", 1.52, 112, 180),
            ("CE", "C", "CB", "CG", "CD", 1.52, 112, 180), ("NZ", "N", "CG", "CD", "CE", 1.49, 112, 180)),
    "PHE": (("CG", "C", "N", "CA", "CB", 1.50, 114, None), ("CD1", "C", "CA", "CB", "CG", 1.39, 120, 90),
            ("CD2", "C", "CA", "CB", "CG", 1.39, 120, -90), ("CE1", "C", "CB", "CG", "CD1", 1.39, 120, 180),
            ("CE2", "C", "CB", "CG", "CD2", 1.39, 120, 180), ("CZ", "C", "CG", "CD1", "CE1", 1.39, 120, 0)),
}
# Large ones often: the mean of 110 Da and eight heavy atoms a residue is that of proteins.
FREQUENCIES = {"ALA": 4, "SER": 5, "CYS": 2, "VAL": 11, "ASP": 9, "LEU": 18, "GLU": 14, "MET": 6, "LYS": 15, "PHE": 16}


def build_demo_model(seed: int = 7, residues: int = 2700) -> Atoms:
    """A protein-like model of about `residues` residues (2700 are some 300 kDa), centred; the same for the same seed."""
    random = np.random.default_rng(seed)
    radii_a = _domain_radii(random, residues)
    centres_a = _grow(random, radii_a)
    segments, owners = [], []
    for number, (radius_a, centre_a) in enumerate(zip(radii_a, centres_a)):
        turn = Rotation.random(random_state=random)
        for segment in _sheets(radius_a) if number % 4 == 3 else _helices(random, radius_a):
            segments.append(turn.apply(segment.reshape(-1, 3)).reshape(segment.shape) + centre_a)
            owners.append(number)
    return _with_side_chains(random, _joined(random, segments, centres_a[owners])).centred()


# --------------------------------------------------------------------------------------------- domains

def _domain_radii(random: np.random.Generator, residues: int) -> list[float]:
    """Radii of domains of 120 to 420 residues, the last one cut so that the sum is right; the loops come on top."""
    left, radii = 0.88 * residues, []
    while left > 0:
        size = min(random.uniform(120, 420), left) if left > 120 else 120.0
        left -= size
        radii.append((3 * size * DALTON_PER_RESIDUE / (4 * np.pi * DALTON_PER_A3)) ** (1 / 3))
    return radii


def _grow(random: np.random.Generator, radii_a: list[float]) -> np.ndarray:
    """(D, 3) centres: each domain touches the one before, overlaps none, and of many places takes one near the middle.

    The places of the second are equally near: distances are rounded, so that every machine takes the same one of them.
    """
    centres = [np.zeros(3)]
    for number, radius in enumerate(radii_a[1:], start=1):
        directions = random.normal(size=(200, 3))
        places = centres[-1] + directions / np.linalg.norm(directions, axis=1, keepdims=True) * (
            radius + radii_a[number - 1] + DOMAIN_GAP_A)
        gaps = np.linalg.norm(places[:, None] - np.array(centres), axis=2) - (radius + np.array(radii_a[:number]))
        free = places[gaps.min(axis=1) > 0]
        distance = np.linalg.norm(free - np.mean(centres, axis=0), axis=1).round(6)
        centres.append(free[np.argsort(distance, kind="stable")[len(free) // 20]])
    return np.array(centres)


def _helices(random: np.random.Generator, radius_a: float) -> list[np.ndarray]:
    """Helices up and down on a hexagonal lattice that fill a sphere, each tilted a little and turned about its axis."""
    steps = np.arange(-3, 4)
    u, v = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    sites = HELIX_SPACING_A * np.stack([u + v / 2, v * np.sqrt(3) / 2], axis=1)
    segments: list[np.ndarray] = []
    for site in _in_a_walk(sites[np.linalg.norm(sites, axis=1) < radius_a - 3]):
        length_a = 2 * np.sqrt(radius_a ** 2 - site @ site) - 3
        if length_a < 8:
            continue
        helix = _ideal(HELIX, max(5, round(length_a / HELIX[2])))
        up = 1 if len(segments) % 2 == 0 else -1
        tilt = Rotation.from_rotvec([*(random.normal(size=2) * 0.08), 0])
        turn = Rotation.from_euler("x", 90 - 90 * up, degrees=True) * Rotation.from_euler("z", random.uniform(0, 360),
                                                                                         degrees=True)
        segments.append((tilt * turn).apply(helix.reshape(-1, 3)).reshape(helix.shape) + [*site, 0])
    return segments


def _sheets(radius_a: float) -> list[np.ndarray]:
    """Antiparallel strands in stacked sheets that fill a sphere; every sheet twists the way those of proteins do."""
    segments = []
    layers = np.arange(-radius_a + 5, radius_a - 3, SHEET_SPACING_A)
    for layer, height_a in enumerate(layers - layers.mean()):
        width_a = np.sqrt(max(radius_a ** 2 - height_a ** 2, 0))
        across = np.arange(-width_a + 3, width_a - 2, STRAND_SPACING_A)
        for number, x in enumerate((across - across.mean())[:: 1 if layer % 2 == 0 else -1]):
            length_a = 2 * np.sqrt(max(width_a ** 2 - x ** 2, 36.0))
            strand = _ideal(STRAND, max(4, round(length_a / STRAND[2])))
            turn = Rotation.from_rotvec([SHEET_TWIST_RAD * x / STRAND_SPACING_A / 2, 0, 0])
            if number % 2:
                turn = turn * Rotation.from_euler("x", 180, degrees=True)
            segments.append(turn.apply(strand.reshape(-1, 3)).reshape(strand.shape) + [x, height_a, 0])
    return segments


def _in_a_walk(sites: np.ndarray) -> np.ndarray:
    """The sites in an order in which each is the nearest one left to the one before.

    On a lattice many are equally near: distances are rounded, so that every machine takes the same one of them.
    """
    left = list(range(len(sites)))
    order = [left.pop(int(np.argmax(sites[:, 0])))]
    while left:
        nearest = int(np.argmin(np.linalg.norm(sites[left] - sites[order[-1]], axis=1).round(6)))
        order.append(left.pop(nearest))
    return sites[order]


# -------------------------------------------------------------------------------------------- backbone

def _ideal(kind: tuple[float, float, float], residues: int) -> np.ndarray:
    """(residues, 4, 3) N, CA, C, O of a regular stretch along +z, centred on its axis."""
    phi, psi, _ = kind
    atoms = [np.array([0.0, 0.0, 0.0]), np.array([1.46, 0.0, 0.0]), np.array([2.0, 1.42, 0.0])]
    for _ in range(residues):
        for bond_a, angle, torsion in ((1.33, 116.5, psi), (1.46, 121.5, 180.0), (1.52, 111.0, phi)):
            atoms.append(place(atoms[-3], atoms[-2], atoms[-1], bond_a, angle, torsion))
    chain = np.array(atoms).reshape(-1, 3, 3)
    # The carbonyl oxygen lies in the plane of the peptide, opposite to the next nitrogen.
    oxygen = np.array([place(n, ca, c, 1.23, 120.5, psi + 180) for n, ca, c in chain[:-1]])
    backbone = np.concatenate([chain[:-1], oxygen[:, None]], axis=1)
    return _along_z(backbone, chain[:, 1])


def _along_z(backbone: np.ndarray, alpha_carbons: np.ndarray) -> np.ndarray:
    """The stretch with its axis on z, first residue below. The axis of a screw passes its own repeats: fit it to them."""
    count = len(alpha_carbons) - 1
    turn, _ = Rotation.align_vectors(np.diff(alpha_carbons[1:], axis=0), np.diff(alpha_carbons[:-1], axis=0))
    axis = turn.as_rotvec() / turn.magnitude()
    axis = axis * np.sign(axis @ (alpha_carbons[-1] - alpha_carbons[0]))
    # x -> T x + t has its axis through the points that T moves only along itself.
    move = (alpha_carbons[1:] - turn.apply(alpha_carbons[:-1])).mean(axis=0)
    across = move - axis * (axis @ move)
    on_axis = np.linalg.lstsq(np.eye(3) - turn.as_matrix(), across, rcond=None)[0]
    tilt = np.cross(axis, [0.0, 0.0, 1.0])
    upright = Rotation.from_rotvec(tilt * np.arccos(axis[2]) / np.linalg.norm(tilt))
    placed = upright.apply((backbone - on_axis).reshape(-1, 3)).reshape(backbone.shape)
    return placed - [0, 0, placed[:count, 1, 2].mean()]


def _joined(random: np.random.Generator, segments: list[np.ndarray], centres_a: np.ndarray) -> np.ndarray:
    """(n, 4, 3) one backbone: the segments in order, between them loops that take the freest of some random ways."""
    occupied = [segment[:, 1] for segment in segments]
    pieces = [segments[0]]
    for before, after, centre_a in zip(segments, segments[1:], centres_a):
        tree = cKDTree(np.concatenate(occupied))
        ways = [_way(random, before[-1, 1], after[0, 1], centre_a) for _ in range(LOOP_TRIALS)]
        crowding = [tree.query_ball_point(way[1:-1], LOOP_CLEARANCE_A, return_length=True).sum() for way in ways]
        way = ways[int(np.argmin(crowding))]
        occupied.append(way[1:-1])
        pieces += [_loop(way), after]
    return np.concatenate(pieces)


def _way(random: np.random.Generator, start: np.ndarray, end: np.ndarray, centre_a: np.ndarray) -> np.ndarray:
    """(k, 3) evenly spaced points from `start` to `end` on an arc that bulges away from the domain's centre."""
    middle, span_a = (start + end) / 2, np.linalg.norm(end - start)
    outward = (middle - centre_a) / max(np.linalg.norm(middle - centre_a), 1e-6)
    outward = outward + 0.7 * random.normal(size=3)
    bulge = middle + outward / np.linalg.norm(outward) * (4.0 + random.uniform(0.2, 0.9) * span_a)
    t = np.linspace(0, 1, 200)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bulge + t ** 2 * end
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    places = np.linspace(0, length[-1], max(2, round(length[-1] / LOOP_STEP_A) - 1) + 2)
    return np.stack([np.interp(places, length, curve[:, axis]) for axis in range(3)], axis=1)


def _loop(way: np.ndarray) -> np.ndarray:
    """(k - 2, 4, 3) backbone of residues at all but the end points of a way (k, 3), in a zigzag about it."""
    across = np.cross(way[1:-1] - way[0], way[-1] - way[1:-1])
    across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    alpha = way[1:-1] + 0.6 * across * np.where(np.arange(len(across)) % 2, 1, -1)[:, None]
    step = np.diff(np.concatenate([way[:1], alpha, way[-1:]]), axis=0)
    side = np.cross(across, step[1:])
    side = side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    nitrogen, carbon = alpha - 0.36 * step[:-1] + 0.4 * side, alpha + 0.36 * step[1:] - 0.4 * side
    return np.stack([nitrogen, alpha, carbon, carbon - 1.23 * side], axis=1)


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond_a: float, angle_deg: float, torsion_deg: float) -> np.ndarray:
    """The point bonded to `c` at the angle with `b` and the torsion about b-c with `a` (Parsons et al. 2005, NeRF)."""
    angle, torsion = np.deg2rad(angle_deg), np.deg2rad(torsion_deg)
    local = np.array([-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)])
    return c + bond_a * local @ _frame(a, b, c)


def _frame(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(3, 3) rows: along b-c; across it, away from `a` by the right hand; normal to the plane of the three."""
    forward = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, forward)
    normal = normal / np.linalg.norm(normal)
    return np.stack([forward, np.cross(normal, forward), normal])


# ----------------------------------------------------------------------------------------- side chains

def _with_side_chains(random: np.random.Generator, backbone: np.ndarray) -> Atoms:
    """All atoms: each residue takes the first of a few random types and rotamers that is free of clashes, else alanine."""
    near = cKDTree(backbone[:, 1]).query_ball_point(backbone[:, 1], NEIGHBOUR_CA_A)
    beta = np.stack([place(c, n, ca, 1.53, 110.5, -122.5) for n, ca, c, _ in backbone])
    placed = [np.vstack([residue, cb]) for residue, cb in zip(backbone, beta)]
    rotamers = _rotamers()
    chosen = []
    for number in range(len(backbone)):
        others = np.concatenate([placed[i] for i in near[number] if i != number])
        name, tail = _side_chain(random, rotamers, placed[number], others)
        placed[number] = np.vstack([placed[number], tail])
        chosen.append(name)
    return _gathered(placed, chosen)


def _rotamers() -> dict[str, np.ndarray]:
    """Of each type (rotamers, k, 3): its atoms beyond CB from CB, in the frame of N, CA and CB."""
    n, ca = np.array([1.46, 0.0, 0.0]), np.zeros(3)
    cb = 1.53 * np.array([np.cos(np.deg2rad(110.5)), np.sin(np.deg2rad(110.5)), 0.0])
    found = {}
    for name, atoms in SIDE_CHAINS.items():
        tails = []
        for chi1 in TORSIONS_CHI1:
            at = {"N": n, "CA": ca, "CB": cb}
            for atom, _, a, b, c, bond_a, angle, torsion in atoms:
                at[atom] = place(at[a], at[b], at[c], bond_a, angle, chi1 if torsion is None else torsion)
            tails.append([at[atom[0]] - cb for atom in atoms])
        found[name] = np.array(tails).reshape(len(TORSIONS_CHI1), len(atoms), 3) @ _frame(n, ca, cb).T
    return found


def _side_chain(random: np.random.Generator, rotamers: dict[str, np.ndarray], core: np.ndarray,
                others: np.ndarray) -> tuple[str, np.ndarray]:
    """Type and the atoms beyond CB (k, 3) of a residue with N, CA, C, O, CB at `core`."""
    frame = _frame(core[0], core[1], core[4])
    weights = np.array(list(FREQUENCIES.values()), float)
    for name in random.choice(list(FREQUENCIES), size=8, p=weights / weights.sum()).tolist():
        tails = core[4] + random.permutation(rotamers[name]) @ frame
        squares = np.square(tails[:, :, None] - others).sum(axis=3)
        free = np.flatnonzero((squares > LEAST_DISTANCE_A ** 2).all(axis=(1, 2)))
        if len(free):
            return name, tails[free[0]]
    return "ALA", np.empty((0, 3))


def _gathered(placed: list[np.ndarray], names: list[str]) -> Atoms:
    atoms = [("N", "N"), ("CA", "C"), ("C", "C"), ("O", "O"), ("CB", "C")]
    labels = [[*atoms, *((atom[0], atom[1]) for atom in SIDE_CHAINS[name])] for name in names]
    counts = [len(residue) for residue in placed]
    position = np.concatenate(placed)
    name, element = (np.array(column) for column in zip(*(label for residue in labels for label in residue)))
    return Atoms(position, element, np.ones(len(position)), name, np.repeat(names, counts),
                 np.repeat(np.arange(1, len(names) + 1), counts), np.full(len(position), "A"))
