"""The one place that knows both Scipion's objects and the engine's files.

Poses. Scipion keeps a 4x4 matrix M with x_image = inv(M) x_volume, in pixels about the box centre. With RELION's angles
and origins (o, in pixels) and R = Rz(rot) Ry(tilt) Rz(psi), the image_to_volume matrix of `docs/conventions.md`:

    M = [ R | R (o_x, o_y, 0) ]

Alignment in the plane is the same with rot = tilt = 0: M carries an image onto the average of its class.
"""
from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, TextIO

import mrcfile
import numpy as np
from emtable import Table
from pwem.constants import SCIPION_SYM_NAME
from pwem.emlib.image import ImageHandler
from pwem.objects import FSC, Acquisition, CTFModel, Particle, SetOfParticles, Transform, Volume
from pyworkflow.object import Float, Integer, String
from scipy.spatial.transform import Rotation

from swiftres_plugin.constants import CYCLIC_AND_DIHEDRAL, POLYHEDRAL

MRC_EXTENSIONS = (".mrc", ".mrcs", ".map")
ITEM_ID = "rlnImageId"  # Scipion's id of the particle; the engine writes unknown columns back unchanged
CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
SUBSET = "rlnRandomSubset"
CLASS = "rlnClassNumber"
OPTICS_GROUP = "rlnOpticsGroup"
# What a set and the acquisition of its particles say themselves; other columns of optics groups are kept as text.
SCIPIONS_OPTICS = {OPTICS_GROUP, "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
                   "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"}
SOURCE, MATE = "swiftresSourceParticle", "swiftresMate"  # of an expansion
RELAXED_MATE, MATE_PROBABILITY = "swiftresRelaxedMate", "swiftresRelaxedProbability"
CLASS_PROBABILITY = "swiftresClassProbability"
SCORES = {"rlnLogLikeliContribution": Float, "rlnMaxValueProbDistribution": Float, SUBSET: Integer, RELAXED_MATE: Integer,
          MATE_PROBABILITY: Float, CLASS_PROBABILITY: Float}


# ---------------------------------------------------------------- symmetry

def scipion_symmetry(group: str) -> tuple[int, int]:
    """Scipion's constant and order of a point group named as RELION does: ("D7" -> SYM_DIHEDRAL_X, 7); order 1 elsewhere.

    Raises `ValueError` for a name that is none.
    """
    name = group.strip().upper()
    if name in POLYHEDRAL:
        return POLYHEDRAL[name], 1
    kind, order = name[:1], name[1:]
    if kind not in CYCLIC_AND_DIHEDRAL or not order.isdigit() or int(order) < 1:
        raise ValueError(f"'{group}' is no point group: C1, C2, ..., D2, ..., T, O, I, I1, I2, I3 or I4.")
    return CYCLIC_AND_DIHEDRAL[kind], int(order)


def relion_symmetry(constant: int, order: int = 1) -> str:
    """RELION's name of a group that Scipion names by a constant and an order: the inverse of `scipion_symmetry`.

    Raises `ValueError` for groups whose axes stand elsewhere than RELION has them (such as cryoSPARC's Dn and T).
    """
    for kind, known in CYCLIC_AND_DIHEDRAL.items():
        if constant == known:
            return f"{kind}{order}"
    for name, known in POLYHEDRAL.items():
        if constant == known:
            return name
    raise ValueError(f"{SCIPION_SYM_NAME.get(constant, constant)} has other axes than any group of RELION. "
                     "Turn the map, or write the group's matrices to a file.")


# ---------------------------------------------------------------- poses

def matrices_from_poses(angles_deg: np.ndarray, origins_a: np.ndarray, pixel_size_a: float) -> np.ndarray:
    """Scipion's matrices (N, 4, 4) from RELION's rot, tilt, psi (N, 3) in degrees and origins (N, 2) in angstroms."""
    rotation = Rotation.from_euler("ZYZ", angles_deg, degrees=True).as_matrix()
    origins_px = np.column_stack([origins_a / pixel_size_a, np.zeros(len(origins_a))])
    matrices = np.tile(np.eye(4), (len(rotation), 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = np.einsum("nij,nj->ni", rotation, origins_px)
    return matrices


def poses_from_matrices(matrices: np.ndarray, pixel_size_a: float) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `matrices_from_poses`: rot, tilt, psi (N, 3) in degrees and origins (N, 2) in angstroms.

    Raises `ValueError` for matrices that are no rotation (mirrored or scaled poses have no RELION angles).
    """
    rotation, translation = matrices[:, :3, :3], matrices[:, :3, 3]
    if not np.allclose(np.linalg.det(rotation), 1, atol=1e-3):
        raise ValueError("The particles have mirrored or scaled poses, which projection alignment does not allow.")
    with warnings.catch_warnings():  # tilt 0: rot and psi are not unique, and any choice is right
        warnings.simplefilter("ignore", UserWarning)
        angles = Rotation.from_matrix(rotation).as_euler("ZYZ", degrees=True)
    origins_px = np.einsum("nji,nj->ni", rotation, translation)[:, :2]
    return angles, origins_px * pixel_size_a


# ---------------------------------------------------------------- particles to STAR

@dataclass
class StackNames:
    """Names of stacks as the engine reads them: MRC files in place, other formats converted once into `folder`.

    Names are relative to the project where Scipion's are, so that the project can be moved.
    """

    folder: str
    names: dict[str, str] = field(default_factory=dict)

    def __call__(self, filename: str) -> str:
        if filename not in self.names:
            path = ImageHandler.removeFileType(filename)
            is_mrc = path != filename or path.lower().endswith(MRC_EXTENSIONS)
            self.names[filename] = path if is_mrc else self._converted(path)
        return self.names[filename]

    def _converted(self, path: str) -> str:
        """An MRC copy of `path`, its images in the same order."""
        os.makedirs(self.folder, exist_ok=True)
        target = os.path.join(self.folder, f"stack{len(self.names) + 1:04d}.mrcs")
        handler = ImageHandler()
        x, y, _, count = handler.getDimensions(path)
        with mrcfile.new_mmap(target, shape=(count, y, x), mrc_mode=2, overwrite=True) as stack:
            for i in range(count):
                stack.data[i] = handler.read((i + 1, path)).getData()
        return target


class OpticsGroups:
    """The optics table of a set: the groups it was imported with, or one for each distinct acquisition."""

    def __init__(self, particles: SetOfParticles, pixel_size_a: float, box_px: int):
        self.shared = particles.getAcquisition()
        self.common = {
            "rlnImagePixelSize": pixel_size_a, "rlnImageSize": box_px, "rlnImageDimensionality": 2,
            "rlnCtfDataArePhaseFlipped": int(bool(particles.isPhaseFlipped()))}
        self.imported = _imported_groups(self.shared)
        self.groups: dict[object, dict[str, object]] = {}

    def number(self, particle: Particle) -> int:
        """The group of `particle`, entered into the table when it is new."""
        if self.imported:
            key = int(particle.getAttributeValue(f"_{OPTICS_GROUP}", 1))
            if key not in self.imported:
                raise ValueError(f"Particle {particle.getObjId()} is of optics group {key}, "
                                 "which the set does not describe.")
            row = self.imported[key]
        else:
            row = self._microscope(particle)
            key = tuple(row.values())
        if key not in self.groups:
            number = key if self.imported else len(self.groups) + 1
            name = {"rlnOpticsGroup": number, "rlnOpticsGroupName": f"opticsGroup{number}"}
            self.groups[key] = {**name, **row, **self.common}
        return int(self.groups[key]["rlnOpticsGroup"])  # type: ignore[call-overload]

    def rows(self) -> list[dict[str, object]]:
        """The table, with the columns of the first group."""
        rows = sorted(self.groups.values(), key=lambda row: row["rlnOpticsGroup"])  # type: ignore[arg-type, return-value]
        return [{name: row[name] for name in rows[0]} for row in rows]

    def _microscope(self, particle: Particle) -> dict[str, object]:
        own = particle.getAcquisition()
        acquisition = own if own is not None and own.getVoltage() is not None else self.shared
        return {"rlnVoltage": acquisition.getVoltage(), "rlnSphericalAberration": acquisition.getSphericalAberration(),
                "rlnAmplitudeContrast": acquisition.getAmplitudeContrast()}


def _imported_groups(acquisition: Acquisition) -> dict[int, dict[str, object]]:
    """Optics groups that an import from RELION left on the set as the text of a STAR table."""
    text = acquisition.getAttributeValue("opticsGroupInfo", None) if acquisition is not None else None
    if not text:
        return {}
    table = Table()
    table.readStar(StringIO(text), tableName="optics")
    return {int(row.rlnOpticsGroup): dict(row._asdict()) for row in table}


def forgotten_groups(particles: SetOfParticles) -> int:
    """How many optics groups a set describes without saying which of its particles are in which; 0 where all is known.

    The import of the RELION plugin (5.0) keeps the table of the groups, but not the group of each particle.
    """
    described = len(_imported_groups(particles.getAcquisition()))
    first = particles.getFirstItem()
    known = first is None or first.getAttributeValue(f"_{OPTICS_GROUP}", None) is not None
    return 0 if known or described < 2 else described


def half_sets(particles: SetOfParticles) -> set[int]:
    """The half sets, 1 and 2, that occur in a set; none where the particles are in no half set."""
    label = f"_{SUBSET}"
    first = particles.getFirstItem()
    if first is None or first.getAttributeValue(label, None) is None:
        return set()
    return {int(number) for number in particles.getUniqueValues(label)}


def write_particles(particles: SetOfParticles, star_path: str, stack_folder: str) -> int:
    """Write the enabled particles of a set as RELION 3.1 STAR and return their number.

    MRC stacks are referred to where they are; other formats are converted into `stack_folder`. Poses are written when
    the set has projection alignment, half sets when the particles carry both. Raises `ValueError` where the set lacks
    what the columns need.
    """
    pixel_size_a = particles.getSamplingRate()
    stack_name = StackNames(stack_folder)
    optics = OpticsGroups(particles, pixel_size_a, particles.getDim()[0])
    rows, matrices = [], []
    for particle in particles.iterItems():
        if particle.isEnabled():
            rows.append(_particle_row(particle, optics, stack_name))
            if particles.hasAlignmentProj():
                matrices.append(particle.getTransform().getMatrix().copy())
    if not rows:
        raise ValueError("The set holds no enabled particle.")
    if len({row.get(SUBSET) for row in rows} & {1, 2}) < 2:  # a half set without its other half is none
        for row in rows:
            row.pop(SUBSET, None)
    if matrices:
        angles, origins = poses_from_matrices(np.stack(matrices), pixel_size_a)
        for row, pose in zip(rows, np.column_stack([angles, origins])):
            row.update(zip(ANGLES + ORIGINS, pose))
    with open(star_path, "w") as star:
        write_table(star, "optics", optics.rows())
        write_table(star, "particles", rows)
    return len(rows)


def _particle_row(particle: Particle, optics: OpticsGroups, stack_name: StackNames) -> dict[str, object]:
    index, filename = particle.getLocation()
    ctf = particle.getCTF()
    if ctf is None:
        raise ValueError(f"Particle {particle.getObjId()} has no CTF.")
    defocus = (ctf.getDefocusU(), ctf.getDefocusV(), ctf.getDefocusAngle(), ctf.getPhaseShift() or 0.0)
    row = {"rlnImageName": f"{max(index, 1):06d}@{stack_name(filename)}", "rlnOpticsGroup": optics.number(particle),
           ITEM_ID: particle.getObjId(), **dict(zip(CTF, defocus))}
    subset = particle.getAttributeValue(f"_{SUBSET}", None)
    return row if subset is None else {**row, SUBSET: int(subset)}


def write_table(star: TextIO, name: str, rows: Sequence[dict[str, object]]) -> None:
    """One table of a STAR file, with the columns of its first row; words with spaces are quoted."""
    labels = list(rows[0])
    star.write(f"\ndata_{name}\n\nloop_\n" + "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 1)))
    for row in rows:
        star.write(" ".join(_star_word(row[label]) for label in labels) + "\n")
    star.write("\n")


def _table_text(name: str, rows: Sequence[dict[str, object]]) -> str:
    text = StringIO()
    write_table(text, name, rows)
    return text.getvalue()


def _star_word(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.10g}"
    word = str(value)
    return f'"{word}"' if not word or " " in word else word


# ---------------------------------------------------------------- maps

def write_map(volume: Volume, path: str) -> None:
    """Write a Scipion volume or mask of any format as MRC, with the pixel size that Scipion knows in its header."""
    voxels = np.asarray(ImageHandler().read(volume.getLocation()).getData(), dtype=np.float32)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(voxels.reshape(voxels.shape[-3:]))
        mrc.set_volume()
        mrc.voxel_size = volume.getSamplingRate()


def half_volumes(volume: Volume) -> list[Volume]:
    """The half maps of a volume that has them, as volumes of its sampling rate."""
    halves = []
    for path in volume.getHalfMaps().split(","):
        half = Volume()
        half.setFileName(path)
        half.setSamplingRate(volume.getSamplingRate())
        halves.append(half)
    return halves


# ---------------------------------------------------------------- results to Scipion

@dataclass(frozen=True)
class RefinedParticles:
    """Poses and scores of a run by the id of the particle in its Scipion set."""

    row_of_id: dict[int, int]
    matrices: np.ndarray  # (N, 4, 4)
    scores: dict[str, np.ndarray]
    class_ids: np.ndarray | None = None  # (N,) from 1

    def classify(self, particle: Particle, _row: object = None) -> None:
        """As `update`, with the class of the particle."""
        self.update(particle)
        if particle._appendItem and self.class_ids is not None:
            particle.setClassId(int(self.class_ids[self.row_of_id[particle.getObjId()]]))

    def update(self, particle: Particle, _row: object = None) -> None:
        """Callback of `copyItems`: give `particle` its refined pose; one that the run left out is not copied."""
        row = self.row_of_id.get(particle.getObjId())
        particle._appendItem = row is not None
        if row is None:
            return
        particle.setTransform(Transform(matrix=self.matrices[row]))
        for label, values in self.scores.items():
            setattr(particle, f"_{label}", SCORES[label](values[row].item()))


def read_refined(star_path: str, pixel_size_a: float) -> RefinedParticles:
    """Read the `particles.star` of a run; `pixel_size_a` is that of the Scipion set."""
    columns = read_columns(star_path, (ITEM_ID, *ANGLES, *ORIGINS, CLASS, *SCORES))
    missing = [label for label in (ITEM_ID, *ANGLES, *ORIGINS) if label not in columns]
    if missing:
        raise ValueError(f"{star_path} lacks {', '.join(missing)}.")
    scores = {label: columns[label].astype(int) if kind is Integer else columns[label]
              for label, kind in SCORES.items() if label in columns}
    row_of_id = {int(item_id): row for row, item_id in enumerate(columns[ITEM_ID])}
    return RefinedParticles(row_of_id, matrices_of(columns, pixel_size_a), scores, columns.get(CLASS))


def matrices_of(columns: dict[str, np.ndarray], pixel_size_a: float) -> np.ndarray:
    """(N, 4, 4) the poses in the columns of a STAR file, as Scipion's matrices."""
    angles, origins = (np.column_stack([columns[label] for label in labels]) for labels in (ANGLES, ORIGINS))
    return matrices_from_poses(angles, origins, pixel_size_a)


@dataclass(frozen=True)
class Mates:
    """Rows of an expansion by the id of the particle that they come from, with what they are."""

    rows_of_id: dict[int, list[int]]
    matrices: np.ndarray  # (N, 4, 4)
    numbers: dict[str, np.ndarray]  # mate and half set (N,)

    def of(self, particle: Particle) -> Iterator[Particle]:
        """`particle` at each of its mates in turn, the same object every time; none for one that was left out."""
        source = particle.getObjId()
        for row in self.rows_of_id.get(source, ()):
            particle.setObjId(row + 1)
            particle.setTransform(Transform(matrix=self.matrices[row]))
            for label, values in self.numbers.items():
                setattr(particle, f"_{label}", Integer(int(values[row])))
            setattr(particle, f"_{SOURCE}", Integer(source))
            yield particle


def read_mates(star_path: str, pixel_size_a: float) -> Mates:
    """The STAR file that `swiftres expand` wrote of particles with ids."""
    columns = read_columns(star_path, (ITEM_ID, *ANGLES, *ORIGINS, MATE, SUBSET))
    rows_of_id: dict[int, list[int]] = {}
    for row, item_id in enumerate(columns[ITEM_ID]):
        rows_of_id.setdefault(int(item_id), []).append(row)
    return Mates(rows_of_id, matrices_of(columns, pixel_size_a), {
        label: columns[label] for label in (MATE, SUBSET)})


def read_columns(star_path: str, labels: Iterable[str]) -> dict[str, np.ndarray]:
    """Number columns (N,) of a STAR file's particle table, those of `labels` that are there."""
    # no guess of types: emtable would guess from the first row, whose probability may be written as 1
    rows: Iterator = Table.iterRows(f"particles@{star_path}", guessType=False)
    first = next(rows)
    present = [label for label in labels if label in first._fields]
    values = [[float(getattr(row, label)) for label in present] for row in (first, *rows)]
    return dict(zip(present, np.array(values).T))


@dataclass(frozen=True)
class PoseDifferences:
    """What `swiftres compare` found, by the id of the particle: angle (degrees), shift (A), and whether both are small."""

    row_of_id: dict[int, int]
    angle_deg: np.ndarray
    shift_a: np.ndarray
    agreed: np.ndarray

    def __len__(self) -> int:
        return len(self.row_of_id)

    @property
    def median_angle_deg(self) -> float:
        return float(np.median(self.angle_deg))

    @property
    def median_shift_a(self) -> float:
        return float(np.median(self.shift_a))

    @property
    def agreed_count(self) -> int:
        return int(self.agreed.sum())

    def update(self, particle: Particle, _row: object = None) -> None:
        """Callback of `copyItems`: give `particle` its differences; one that is not in both sets is not copied."""
        row = self.row_of_id.get(particle.getObjId())
        particle._appendItem = row is not None
        if row is not None:
            particle._swiftresAngleDifference = Float(self.angle_deg[row].item())
            particle._swiftresShiftDifference = Float(self.shift_a[row].item())

    def keep_agreed(self, particle: Particle, _row: object = None) -> None:
        """As `update`, of particles whose poses agree only."""
        self.update(particle)
        if particle._appendItem:
            particle._appendItem = bool(self.agreed[self.row_of_id[particle.getObjId()]])


def read_differences(csv_path: str) -> PoseDifferences:
    """The table that `swiftres compare --output` wrote about particles with ids."""
    with open(csv_path, newline="") as table:
        rows = list(csv.DictReader(table))
    row_of_id = {int(row["id"]): number for number, row in enumerate(rows)}
    angle_deg, shift_a, agreed = (np.array([float(row[name]) for row in rows]) for name in ("angle_deg", "shift_a", "agreed"))
    return PoseDifferences(row_of_id, angle_deg, shift_a, agreed > 0)


def read_particles(star_path: str, particles: SetOfParticles) -> None:
    """Fill an empty set from a STAR file that the engine wrote, with CTF, poses and half sets.

    Stacks are named relative to the STAR file, and in the set relative to the project. Several optics groups, or one with
    aberrations, are kept as RELION's plugin keeps them: as text on the set, and by number on the particles.
    """
    optics = {row.rlnOpticsGroup: row for row in Table.iterRows(f"optics@{star_path}", guessType=False)}
    acquisitions = {number: _acquisition(row) for number, row in optics.items()}
    shared = next(iter(acquisitions.values())).clone()
    rows_of_optics = [row._asdict() for row in optics.values()]
    described = len(optics) > 1 or not set(rows_of_optics[0]) <= SCIPIONS_OPTICS
    if described:
        shared.opticsGroupInfo = String(_table_text("optics", rows_of_optics))
    pixel_size_a = float(rows_of_optics[0]["rlnImagePixelSize"])
    particles.setSamplingRate(pixel_size_a)
    particles.setAcquisition(shared)
    particles.setHasCTF(True)
    particles.setAlignmentProj()
    rows = list(Table.iterRows(f"particles@{star_path}", guessType=False))
    angles, origins = (np.array([[float(getattr(row, label)) for label in labels] for row in rows])
                       for labels in (ANGLES, ORIGINS))
    for row, matrix in zip(rows, matrices_from_poses(angles, origins, pixel_size_a)):
        particle = _particle_of(row, os.path.dirname(star_path))
        particle.setAcquisition(acquisitions[row.rlnOpticsGroup])
        particle.setTransform(Transform(matrix=matrix))
        if described:
            setattr(particle, f"_{OPTICS_GROUP}", Integer(int(row.rlnOpticsGroup)))
        particles.append(particle)


def _acquisition(row: Any) -> Acquisition:
    voltage, cs, contrast = (float(value) for value in (
        row.rlnVoltage, row.rlnSphericalAberration, row.rlnAmplitudeContrast))
    return Acquisition(magnification=50000, voltage=voltage, sphericalAberration=cs,  # Scipion wants some magnification
                       amplitudeContrast=contrast)


def _particle_of(row: Any, folder: str) -> Particle:
    """Image, CTF, class and half set of a row; its stack is named relative to `folder`."""
    index, stack = row.rlnImageName.split("@")
    particle, ctf = Particle(), CTFModel()
    particle.setLocation(int(index), os.path.join(folder, stack))
    ctf.setStandardDefocus(float(row.rlnDefocusU), float(row.rlnDefocusV), float(row.rlnDefocusAngle))
    particle.setCTF(ctf)
    particle.setClassId(int(row.rlnClassNumber))
    setattr(particle, f"_{SUBSET}", Integer(int(row.rlnRandomSubset)))
    return particle


def read_curves(csv_path: str) -> dict[str, list[float]]:
    """The columns of a run's FSC file by their name."""
    with open(csv_path, newline="") as table:
        rows = list(csv.DictReader(table))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def make_fsc(curves: dict[str, list[float]], curve: str, label: str) -> FSC:
    """A Scipion FSC of one of the curves. It begins at (0, 1), because pwem interpolates from the first point on."""
    points = [(x, y) for x, y in zip(curves["frequency"], curves[curve]) if x > 0 and np.isfinite(y)]
    fsc = FSC(objLabel=label)
    fsc.setData([0.0] + [x for x, _ in points], [1.0] + [y for _, y in points])
    return fsc


def half_map_curve(volume: Volume) -> dict[str, list[float]]:
    """The FSC between the half maps of a volume, shell by shell, without a mask."""
    first, second = (_spectrum(path) for path in volume.getHalfMaps().split(","))
    box = len(first)
    axis = np.fft.fftfreq(box, 1 / box)
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis[: box // 2 + 1] ** 2)).astype(int)
    cross, one, two = (np.bincount(shell.ravel(), values.ravel())[:box // 2 + 1] for values in (
        (first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2))
    frequency = np.arange(box // 2 + 1) / (box * volume.getSamplingRate())
    return {"frequency": frequency.tolist(), "unmasked": (cross / np.sqrt(one * two)).tolist()}


def _spectrum(path: str) -> np.ndarray:
    """(n, n, n//2+1) transform of the map in a file."""
    voxels = ImageHandler().read(path).getData()
    return np.fft.rfftn(voxels.reshape(voxels.shape[-3:]))


def resolution_a(curves: dict[str, list[float]], curve: str, threshold: float = 0.143) -> float:
    """Resolution (A) where a curve first falls below `threshold` for three shells, interpolated; its last one if never.

    As the engine has it: a single shell of a hollow particle may hold next to no power.
    """
    frequency, values = np.array(curves["frequency"][1:]), np.array(curves[curve][1:])
    below = np.concatenate([values < threshold, [True, True]])
    crossed = np.flatnonzero(below[:-2] & below[1:-1] & below[2:])
    if len(crossed) == 0:
        return float(1 / frequency[-1])
    if crossed[0] == 0:
        return float("inf")
    pair = slice(crossed[0] - 1, crossed[0] + 1)
    return float(1 / np.interp(-threshold, -values[pair], frequency[pair]))
