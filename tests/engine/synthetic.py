"""Small data with a known answer: a chiral phantom of five Gaussians, its map, its images, and both as files.

Images and maps are written in real space from docs/conventions.md, without the engine's mathematics.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import mrcfile
import numpy as np
import reference
import torch
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import ArraySource, Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.settings import from_flat

PIXEL_A = 4.0
BOX_PX = 32
# No symmetry, no mirror image, and no two of the same weight; x, y, z in angstroms.
PLACES_A = np.array([[26.0, 5, 0], [-13, 22, 8], [0, -17, 26], [8, 8, -30], [-22, -13, -9]])
WEIGHTS = np.array([1.0, 0.8, 0.6, 0.9, 0.7])
WIDTH_A = 6.0
STAR_COLUMNS = ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
                "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


@dataclass(frozen=True)
class Phantom:
    """Gaussians of one width at `places_a` (K, 3) x, y, z."""

    places_a: np.ndarray = field(default_factory=lambda: PLACES_A)
    weights: np.ndarray = field(default_factory=lambda: WEIGHTS)
    width_a: float = WIDTH_A

    def map(self, box_px: int = BOX_PX, pixel_size_a: float = PIXEL_A) -> Map:
        z, y, x = (np.indices((box_px,) * 3) - box_px // 2) * pixel_size_a
        voxels = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * self.width_a ** 2))
                     for w, (a, b, c) in zip(self.weights, self.places_a))
        return Map(np.asarray(voxels, dtype=np.float32), pixel_size_a)

    def projections(self, poses: Poses, box_px: int = BOX_PX, pixel_size_a: float = PIXEL_A) -> np.ndarray:
        """(N, n, n) sums of voxels along the beam: a Gaussian projects to a Gaussian, at inv(R) @ place - shift."""
        places = (self.places_a @ poses.image_to_volume)[..., :2] - poses.shift_a[:, None]
        axis = (np.arange(box_px) - box_px // 2) * pixel_size_a
        across, down = (np.exp(-(axis - places[..., i, None]) ** 2 / (2 * self.width_a ** 2)) for i in (0, 1))
        height = self.weights * np.sqrt(2 * np.pi) * self.width_a / pixel_size_a
        return np.einsum("k,nky,nkx->nyx", height, down, across)

    def symmetric(self, operators: np.ndarray) -> Phantom:
        """The phantom and all its mates."""
        places = np.concatenate([self.places_a @ operator.T for operator in operators])
        return replace(self, places_a=places, weights=np.tile(self.weights, len(operators)))


def random_poses(count: int, seed: int = 3, shift_a: float = 5.0) -> Poses:
    generator = np.random.default_rng(seed)
    return Poses(Rotation.random(count, random_state=seed).as_matrix(), generator.normal(size=(count, 2)) * shift_a)


def assignment_of(poses: Poses, seed: int = 1) -> Assignment:
    """The poses with arbitrary scores and widths, as an alignment would have left them."""
    random = np.random.default_rng(seed)
    count = len(poses)
    root = random.random((count, 5, 5)) / 10
    return Assignment(poses.image_to_volume, poses.shift_a, log_likelihood=random.random(count) * 100,
                      max_probability=random.random(count), covariance=root @ root.transpose(0, 2, 1),
                      class_id=random.integers(0, 2, count))


def described(poses: Poses, box_px: int = BOX_PX, pixel_size_a: float = PIXEL_A, seed: int = 5,
              astigmatism_a: float = 3000.0, groups: int = 1) -> Particles:
    """Particles in one (missing) stack, with drawn defocus and the given poses."""
    count = len(poses)
    generator = np.random.default_rng(seed)
    defocus = generator.uniform(8000, 22000, count)
    ctf = Ctf(defocus + astigmatism_a / 2, defocus - astigmatism_a / 2, generator.uniform(0, np.pi, count), np.zeros(count))
    optics = tuple(Optics(300.0, 2.7, 0.1, pixel_size_a, box_px, name=f"opticsGroup{g + 1}") for g in range(groups))
    return Particles(
        particle_id=np.arange(count), stack_paths=("none.mrcs",), stack_index=np.zeros(count, np.int64),
        slice_index=np.arange(count), optics=optics, optics_group=np.arange(count) % groups, ctf=ctf, poses=poses)


def images_of(phantom: Phantom, particles: Particles, noise: float = 0.0, seed: int = 7) -> np.ndarray:
    """(N, n, n) float32 images through each particle's CTF; `noise` is the deviation of the white noise added.

    The mean of an image is left as it is: the engine removes it.
    """
    box, pixel = particles.box_px, particles.pixel_size_a
    plain = phantom.projections(particles.poses, box, pixel)
    seen = np.stack([reference.through_ctf(image, reference.transfer_of(particles, i)) for i, image in enumerate(plain)])
    return (seen + noise * np.random.default_rng(seed).standard_normal(seen.shape)).astype(np.float32)


def particle_set(count: int, noise: float = 0.0, phantom: Phantom | None = None, **described_as: object) -> ArraySource:
    """Images of the phantom in memory, at random poses."""
    shift_a = float(described_as.pop("shift_a", 5.0))
    particles = described(random_poses(count, shift_a=shift_a), **described_as)
    return ArraySource(particles, images_of(phantom or Phantom(), particles, noise))


def write_stack(path: Path, images: np.ndarray, pixel_size_a: float = PIXEL_A) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size_a


def write_volume(path: Path, voxels: np.ndarray, pixel_size_a: float = PIXEL_A) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.asarray(voxels, dtype=np.float32))
        mrc.voxel_size = pixel_size_a
    return path


def write_data_set(folder: Path, source: ArraySource, with_poses: bool = True, half: np.ndarray | None = None) -> Path:
    """particles.star and particles.mrcs in `folder`, by mrcfile and a plain text; angles by scipy."""
    particles = source.particles
    write_stack(folder / "particles.mrcs", source.images, particles.pixel_size_a)
    # 'ZYZ' in capitals: Rz(rot) @ Ry(tilt) @ Rz(psi), active
    angles = Rotation.from_matrix(particles.poses.image_to_volume).as_euler("ZYZ", degrees=True)
    ctf = particles.ctf
    numbers = np.column_stack([
        ctf.defocus_u_a, ctf.defocus_v_a, np.rad2deg(ctf.defocus_angle_rad), np.rad2deg(ctf.phase_shift_rad), angles,
        particles.poses.shift_a])
    columns = list(STAR_COLUMNS if with_poses else STAR_COLUMNS[:6])
    rows = [[f"{i + 1:06d}@particles.mrcs", str(particles.optics_group[i] + 1), *(f"{v:.6f}" for v in values)]
            for i, values in enumerate(numbers)]
    if half is not None:
        columns.insert(6, "rlnRandomSubset")
        for row, h in zip(rows, half):
            row.insert(6, str(h + 1))
    return write_star(folder / "particles.star", particles.optics, columns, [row[:len(columns)] for row in rows])


def write_star(path: Path, optics: tuple[Optics, ...], columns: list[str], rows: list[list[str]]) -> Path:
    """A RELION 3.1 STAR file."""
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup #1", "_rlnOpticsGroupName #2", "_rlnVoltage #3",
             "_rlnSphericalAberration #4", "_rlnAmplitudeContrast #5", "_rlnImagePixelSize #6", "_rlnImageSize #7",
             "_rlnImageDimensionality #8"]
    lines += [f"{g + 1} {o.name} {o.voltage_kv} {o.spherical_aberration_mm} {o.amplitude_contrast} {o.pixel_size_a} "
              f"{o.box_px} 2" for g, o in enumerate(optics)]
    lines += ["", "data_particles", "", "loop_", *(f"_{name} #{i + 1}" for i, name in enumerate(columns))]
    path.write_text("\n".join(lines + [" ".join(row) for row in rows]) + "\n")
    return path


def plain_spectra(source: ArraySource) -> Spectra:
    """Transforms of the images as they are, without normalisation or mask."""
    band = image_band(source.particles.box_px, source.particles.pixel_size_a)
    values = torch.view_as_real(images_to_spectra(torch.from_numpy(source.images), band)).to(torch.float16)
    return Spectra(values, band, source.particles)


def engine_over(spectra: Spectra, workers: int = 1, user_mask: np.ndarray | None = None, **settings: object) -> Engine:
    """An engine on the processor with so many workers."""
    chosen = from_flat(settings)
    compute = Compute(torch.device("cpu"), workers, 1 << 30)
    return Engine(spectra, compute, symmetry_operators(chosen.schedule.symmetry), chosen, SilentReporter(), user_mask)
