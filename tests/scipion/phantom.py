"""Blob particles with analytic projections, as a stack and a Scipion set."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles, Transform
from scipy.spatial.transform import Rotation

BOX_PX = 32
PIXEL_SIZE_A = 5.0
SIGMA_A = 9.0
CENTRES_A = np.array(
    [[0, 0, 0], [34, 0, 0], [18, 26, 0], [-12, 10, 30], [-26, -18, 10], [4, -30, -22], [10, 8, -38]], dtype=float)
HEIGHTS = np.array([1.0, 1.4, 0.8, 1.2, 1.0, 0.7, 1.1])


@dataclass(frozen=True)
class Truth:
    """image_to_volume (N, 3, 3) and shift_a (N, 2), as in docs/conventions.md."""

    image_to_volume: np.ndarray
    shift_a: np.ndarray


def volume(centres_a: np.ndarray = CENTRES_A, heights: np.ndarray = HEIGHTS) -> np.ndarray:
    """The phantom (n, n, n) in (z, y, x) order; the scale is that of `projections`."""
    axis = (np.arange(BOX_PX) - BOX_PX // 2) * PIXEL_SIZE_A
    lines = np.exp(-0.5 * ((axis[None, :, None] - centres_a[:, None, :]) / SIGMA_A) ** 2)  # (blob, place, axis)
    return np.einsum("b,bz,by,bx->zyx", heights, lines[..., 2], lines[..., 1], lines[..., 0]).astype(np.float32)


def random_truth(count: int, seed: int = 1) -> Truth:
    random = np.random.default_rng(seed)
    return Truth(Rotation.random(count, random_state=seed).as_matrix(), random.normal(0, PIXEL_SIZE_A, (count, 2)))


def projections(truth: Truth, centres_a: np.ndarray = CENTRES_A, heights: np.ndarray = HEIGHTS) -> np.ndarray:
    """Sums of the phantom along the beam (N, n, n), without CTF: R^T x - shift is where a blob appears."""
    axis = (np.arange(BOX_PX) - BOX_PX // 2) * PIXEL_SIZE_A
    centres = np.einsum("nji,bj->nbi", truth.image_to_volume, centres_a)[..., :2] - truth.shift_a[:, None]
    lines = np.exp(-0.5 * ((axis[None, None, :, None] - centres[:, :, None, :]) / SIGMA_A) ** 2)
    depth = SIGMA_A * np.sqrt(2 * np.pi) / PIXEL_SIZE_A
    return depth * np.einsum("b,nby,nbx->nyx", heights, lines[..., 1], lines[..., 0])


def apply_ctf(images: np.ndarray, defocus_a: np.ndarray, voltage_kv: np.ndarray | float = 300.0,
              flipped: bool = False) -> np.ndarray:
    """CTF of round defocus at 2.7 mm, 0.1 (docs/conventions.md), of the voltage of each; `flipped`: its absolute value."""
    k = np.fft.fftfreq(BOX_PX, PIXEL_SIZE_A)
    k2 = k[:, None] ** 2 + k[None, :] ** 2
    volts = 1e3 * np.broadcast_to(voltage_kv, len(images))[:, None, None]
    wave_a = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    chi = np.pi * wave_a * defocus_a[:, None, None] * k2 - np.pi / 2 * 2.7e7 * wave_a**3 * k2**2
    ctf = np.sin(chi + np.arcsin(0.1))
    return np.fft.ifft2(np.fft.fft2(images) * (np.abs(ctf) if flipped else ctf)).real


def acquisition(voltage: float = 300.0) -> Acquisition:
    return Acquisition(magnification=50000, voltage=voltage, sphericalAberration=2.7, amplitudeContrast=0.1)


def scipion_matrix(truth: Truth, i: int) -> np.ndarray:
    """Scipion's matrix of particle `i`, by its definition x_image = inv(M) x_volume."""
    inverse = np.eye(4)
    inverse[:3, :3] = truth.image_to_volume[i].T
    inverse[:2, 3] = -truth.shift_a[i] / PIXEL_SIZE_A
    return np.linalg.inv(inverse)


def write_data(folder: Path, count: int, noise: float = 1.0, seed: int = 1) -> tuple[Truth, Path]:
    """Write `particles.mrcs`, `reference.mrc`, `mask.mrc` and `particles.sqlite`; the set holds no poses.

    Ids are not contiguous. Returns the truth and the path of the set.
    """
    random = np.random.default_rng(seed)
    truth = random_truth(count, seed)
    defocus_a = random.uniform(8000, 16000, count)
    images = apply_ctf(projections(truth), defocus_a)
    images += random.normal(0, noise * images.std(), images.shape)
    write_mrc(folder / "particles.mrcs", images, stack=True)
    write_mrc(folder / "reference.mrc", volume())
    radius_a = np.linalg.norm(np.indices((BOX_PX,) * 3) - BOX_PX // 2, axis=0) * PIXEL_SIZE_A
    write_mrc(folder / "mask.mrc", np.clip((75 - radius_a) / 10, 0, 1))
    particles = empty_set(folder / "particles.sqlite")
    for i in range(count):
        particles.append(particle(folder / "particles.mrcs", i, defocus_a[i], item_id=3 * i + 5))
    particles.write()
    particles.close()
    return truth, folder / "particles.sqlite"


def empty_set(path: Path) -> SetOfParticles:
    particles = SetOfParticles(filename=str(path))
    particles.setSamplingRate(PIXEL_SIZE_A)
    particles.setAcquisition(acquisition())
    particles.setHasCTF(True)
    return particles


def particle(stack: Path, index: int, defocus_a: float, item_id: int, matrix: np.ndarray | None = None) -> Particle:
    """Image `index` (from 0) of `stack`."""
    item = Particle()
    item.setObjId(item_id)
    item.setLocation(index + 1, str(stack))
    ctf = CTFModel()
    ctf.setStandardDefocus(float(defocus_a), float(defocus_a), 0.0)
    item.setCTF(ctf)
    item.setAcquisition(acquisition())
    if matrix is not None:
        item.setTransform(Transform(matrix=matrix))
    return item


def write_mrc(path: Path, data: np.ndarray, stack: bool = False) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data.astype(np.float32))
        if stack:
            mrc.set_image_stack()
        mrc.voxel_size = PIXEL_SIZE_A
