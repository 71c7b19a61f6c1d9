"""The electrostatic potential of an atomic model, as a map."""
from __future__ import annotations

import numpy as np

from ..errors import InputError
from .data.atoms import Atoms
from .data.maps import Map
from .io.atoms import require_gemmi

OVERSAMPLING = 2
# The fine grid aliases exp(-BLUR_PER_PIXEL2 / 2) = 1e-4 of the signal at the map's Nyquist frequency, and less below it.
BLUR_PER_PIXEL2 = 18.0
B_FACTOR_A2 = 60.0


def render_atoms(atoms: Atoms, box_px: int, pixel_size_a: float, b_factor_a2: float = B_FACTOR_A2) -> Map:
    """Potential of `atoms` in a box whose centre voxel is the origin of the coordinates.

    The sum over atoms of occupancy * f(s) * exp(-B s^2 / 4) with the electron scattering factors f of International
    Tables C, 4.3.2.2 (five Gaussians), band-limited to the pixel size: sums of voxels times the voxel volume are sums of
    f(0). Evaluated on a finer grid under a blur that is taken away again in Fourier space.

    Raises `InputError` when gemmi is missing, or an atom lies outside the sphere that the box holds.
    """
    if atoms.radius_a > box_px * pixel_size_a / 2:
        raise InputError("the model does not fit the box", found=f"a radius of {atoms.radius_a:.0f} A",
                         expected=f"at most {box_px * pixel_size_a / 2:.0f} A",
                         remedy="Take a larger --box or --pixel-size.")
    blur_a2 = max(0.0, BLUR_PER_PIXEL2 * pixel_size_a ** 2 - b_factor_a2)
    fine = _fine_potential(atoms, OVERSAMPLING * box_px, pixel_size_a / OVERSAMPLING, b_factor_a2 + blur_a2)
    return Map(_cropped_in_fourier(fine, box_px, pixel_size_a, blur_a2), pixel_size_a)


def _fine_potential(atoms: Atoms, box_px: int, pixel_size_a: float, b_factor_a2: float) -> np.ndarray:
    """Point samples (n, n, n), (z, y, x), with the origin of the coordinates at voxel 0 (periodic box)."""
    gemmi = require_gemmi()
    density = gemmi.DensityCalculatorE()
    side = box_px * pixel_size_a
    density.grid.set_unit_cell(gemmi.UnitCell(side, side, side, 90, 90, 90))
    density.grid.spacegroup = gemmi.SpaceGroup("P1")
    density.grid.set_size(box_px, box_px, box_px)
    # A tail cut at the default 1e-5 would come back, amplified, where the blur is taken away.
    density.cutoff = 1e-7
    atom = gemmi.Atom()
    atom.b_iso = b_factor_a2
    for position, element, occupancy in zip(atoms.position_a.tolist(), atoms.element.tolist(), atoms.occupancy.tolist()):
        atom.element, atom.pos, atom.occ = gemmi.Element(element), gemmi.Position(*position), occupancy
        density.add_atom_density_to_grid(atom)
    return np.array(density.grid.array).transpose(2, 1, 0)


def _cropped_in_fourier(fine: np.ndarray, box_px: int, pixel_size_a: float, blur_a2: float) -> np.ndarray:
    """(box, box, box) float32: `fine` without frequencies at or past the Nyquist planes, sharpened by `blur_a2`."""
    highest = (box_px - 1) // 2
    spectrum = np.fft.rfftn(fine)
    wave = np.concatenate([np.arange(highest + 1), np.arange(-highest, 0)])
    half = np.arange(highest + 1)
    inner = spectrum[np.ix_(wave, wave, half)]
    square = wave[:, None, None] ** 2 + wave[None, :, None] ** 2 + half[None, None, :] ** 2
    inner = inner * np.exp(blur_a2 / 4 * square / (box_px * pixel_size_a) ** 2)
    full = np.zeros((box_px, box_px, box_px // 2 + 1), inner.dtype)
    full[np.ix_(wave, wave, half)] = inner
    coarse = np.fft.irfftn(full, s=(box_px,) * 3, axes=(0, 1, 2)) * (box_px / len(fine)) ** 3
    return np.fft.fftshift(coarse).astype(np.float32)
