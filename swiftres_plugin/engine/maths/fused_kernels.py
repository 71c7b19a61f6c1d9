"""Machine code for `fused.py`. Importing this module loads Numba; what it compiles is kept on disk beside it or in the user's
cache, so that only the first run on a machine waits for it.

Names: the volume is (2K+1, 2K+1, K+1, 2) at z, y, x >= 0 and real, imaginary part; a pose's plane is spanned by the first two
columns of its rotation. The sums of a pose are its log-likelihood, the gradient over (w, t) and the upper triangle of the
curvature, as stages/local.py defines them.
"""
from __future__ import annotations

import math

import numba
import numpy as np

from swiftres_plugin.engine.maths.prefetch import prefetch
from swiftres_plugin.engine.maths.slices import PADDING

CHUNK = 64  # samples whose derivatives are kept before their products are summed, which vector instructions do
REST = 5  # row of what the model leaves, behind those of the derivatives
AHEAD = 6  # samples: so far ahead the memory of one is asked for. Planes of a volume larger than the caches wait for it else
UNSAFE = {"contract", "reassoc", "arcp", "nsz"}  # liberties of the compiler; a number that is none stays none
MOST_SQUARE = 100.0  # of a matrix that may stretch: below it samples have places that are numbers


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def square(matrix):
    """Sum of the squares of the two columns that span a plane: 2 of a rotation; no number where one of them is none."""
    size = 0.0
    for i in range(3):
        for j in range(2):
            size = size + matrix[i, j] * matrix[i, j]
    return size


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def fits(rotation, limit, furthest):
    """Whether all samples of a plane lie in the volume; not so where a number is none."""
    return square(rotation) < 2.01 and PADDING * 1.005 * furthest < limit


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def carriers(wave, shift_a, box_a, top, along_x, along_y):
    """Fill the tables (2 top + 1, 2) of exp(2 pi i k t / box) at whole frequencies k along x and y."""
    for k in range(-top, top + 1):
        for axis, table in ((0, along_x), (1, along_y)):
            angle = 2 * math.pi * k * shift_a[axis] / box_a
            table[k + top, 0], table[k + top, 1] = math.cos(angle), math.sin(angle)


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def cell(rotation, kx, ky, limit):
    """Corner (z, y, x), place in the cell, and the sign that made x non-negative, of a sample of a plane."""
    x = np.float32(PADDING) * (rotation[0, 0] * kx + rotation[0, 1] * ky)
    y = np.float32(PADDING) * (rotation[1, 0] * kx + rotation[1, 1] * ky)
    z = np.float32(PADDING) * (rotation[2, 0] * kx + rotation[2, 1] * ky)
    sign = np.float32(1.0)
    if x < 0:
        sign = np.float32(-1.0)
        x, y, z = -x, -y, -z
    below_x, below_y, below_z = np.floor(x), np.floor(y), np.floor(z)
    return (int(below_z) + limit, int(below_y) + limit, int(below_x), z - below_z, y - below_y, x - below_x, sign)


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def fetch_ahead(grid, rotation, wave, k, limit):
    """Ask for the memory of a sample of a plane that comes soon: the four rows of its cell."""
    if k + AHEAD < len(wave):
        iz, iy, ix = cell(rotation, np.float32(wave[k + AHEAD, 0]), np.float32(wave[k + AHEAD, 1]), limit)[:3]
        prefetch(grid, iz, iy, ix)
        prefetch(grid, iz, iy + 1, ix)
        prefetch(grid, iz + 1, iy, ix)
        prefetch(grid, iz + 1, iy + 1, ix)


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def value(volume, iz, iy, ix, fz, fy, fx, part):
    """The interpolated real or imaginary part."""
    a00 = volume[iz, iy, ix, part] + fx * (volume[iz, iy, ix + 1, part] - volume[iz, iy, ix, part])
    a01 = volume[iz, iy + 1, ix, part] + fx * (volume[iz, iy + 1, ix + 1, part] - volume[iz, iy + 1, ix, part])
    a10 = volume[iz + 1, iy, ix, part] + fx * (volume[iz + 1, iy, ix + 1, part] - volume[iz + 1, iy, ix, part])
    a11 = (volume[iz + 1, iy + 1, ix, part]
           + fx * (volume[iz + 1, iy + 1, ix + 1, part] - volume[iz + 1, iy + 1, ix, part]))
    near, far = a00 + fy * (a01 - a00), a10 + fy * (a11 - a10)
    return near + fz * (far - near)


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def value_and_slopes(volume, iz, iy, ix, fz, fy, fx, part):
    """The interpolated real or imaginary part and its derivatives along x, y, z of the grid."""
    c000, c001 = volume[iz, iy, ix, part], volume[iz, iy, ix + 1, part]
    c010, c011 = volume[iz, iy + 1, ix, part], volume[iz, iy + 1, ix + 1, part]
    c100, c101 = volume[iz + 1, iy, ix, part], volume[iz + 1, iy, ix + 1, part]
    c110, c111 = volume[iz + 1, iy + 1, ix, part], volume[iz + 1, iy + 1, ix + 1, part]
    d00, d01, d10, d11 = c001 - c000, c011 - c010, c101 - c100, c111 - c110
    a00, a01, a10, a11 = c000 + fx * d00, c010 + fx * d01, c100 + fx * d10, c110 + fx * d11
    near_y, far_y = a01 - a00, a11 - a10
    near, far = a00 + fy * near_y, a10 + fy * far_y
    near_x, far_x = d00 + fy * (d01 - d00), d10 + fy * (d11 - d10)
    return near + fz * (far - near), near_x + fz * (far_x - near_x), near_y + fz * (far_y - near_y), far - near


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def along(rotation, axis, x, y, z):
    """The component along an axis of the image of a vector in the volume."""
    return x * rotation[0, axis] + y * rotation[1, axis] + z * rotation[2, axis]


@numba.njit(cache=True, nogil=True, fastmath=UNSAFE)
def scores(volume, rotation, shift_a, wave, images, ctf, noise, box_a, sums):
    """Log-likelihood of each pose into sums (B, 1)."""
    limit, top = volume.shape[2] - 1, np.abs(wave).max()
    furthest = math.sqrt((wave[:, 0] ** 2 + wave[:, 1] ** 2).max())
    along_x, along_y = np.empty((2 * top + 1, 2), np.float32), np.empty((2 * top + 1, 2), np.float32)
    for b in range(len(rotation)):
        if not fits(rotation[b], limit, furthest):
            sums[b, 0] = np.nan
            continue
        carriers(wave, shift_a[b], box_a, top, along_x, along_y)
        total = 0.0
        for k in range(len(wave)):
            fetch_ahead(volume, rotation[b], wave, k, limit)
            kx, ky = wave[k, 0], wave[k, 1]
            iz, iy, ix, fz, fy, fx, sign = cell(rotation[b], np.float32(kx), np.float32(ky), limit)
            real, imaginary = value(volume, iz, iy, ix, fz, fy, fx, 0), sign * value(volume, iz, iy, ix, fz, fy, fx, 1)
            xr, xi, yr, yi = along_x[kx + top, 0], along_x[kx + top, 1], along_y[ky + top, 0], along_y[ky + top, 1]
            carrier_r, carrier_i = (xr * yr - xi * yi) * ctf[b, k], (xr * yi + xi * yr) * ctf[b, k]
            model_r = carrier_r * real - carrier_i * imaginary
            model_i = carrier_r * imaginary + carrier_i * real
            image = images[b, k]
            total += (model_r * (2 * image.real - model_r) + model_i * (2 * image.imag - model_i)) / noise[b, k]
        sums[b, 0] = total


@numba.njit(cache=True, nogil=True, fastmath=UNSAFE)
def scores_and_derivatives(volume, rotation, shift_a, wave, images, ctf, noise, box_a, sums):
    """Log-likelihood, gradient and curvature of each pose into sums (B, 21)."""
    limit, top = volume.shape[2] - 1, np.abs(wave).max()
    furthest = math.sqrt((wave[:, 0] ** 2 + wave[:, 1] ** 2).max())
    along_x, along_y = np.empty((2 * top + 1, 2), np.float32), np.empty((2 * top + 1, 2), np.float32)
    turning = np.float32(2 * math.pi / box_a)
    real, imaginary = np.empty((REST + 1, CHUNK), np.float32), np.empty((REST + 1, CHUNK), np.float32)
    for b in range(len(rotation)):
        if not fits(rotation[b], limit, furthest):
            sums[b] = np.nan
            continue
        carriers(wave, shift_a[b], box_a, top, along_x, along_y)
        sums[b] = 0.0
        for first in range(0, len(wave), CHUNK):
            count = min(CHUNK, len(wave) - first)
            sums[b, 0] += compare(volume, rotation[b], wave, first, count, images[b], ctf[b], noise[b], along_x, along_y, top,
                                  turning, limit, real, imaginary)
            add_products(real, imaginary, count, sums[b])


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def compare(volume, r, wave, first, count, image, ctf, noise, along_x, along_y, top, turning, limit, real, imaginary):
    """Log-likelihood of some samples; what is left of each, and its derivatives over (w, t), in units of the noise, into
    `real` and `imaginary` (6, CHUNK)."""
    total = np.float32(0.0)
    for c in range(count):
        k = first + c
        fetch_ahead(volume, r, wave, k, limit)
        kx, ky = np.float32(wave[k, 0]), np.float32(wave[k, 1])
        iz, iy, ix, fz, fy, fx, sign = cell(r, kx, ky, limit)
        vr, xr, yr, zr = value_and_slopes(volume, iz, iy, ix, fz, fy, fx, 0)
        vi, xi, yi, zi = value_and_slopes(volume, iz, iy, ix, fz, fy, fx, 1)
        # against the flipped coordinate the value's imaginary and the slope's real part change their sign
        vi, scale_r, scale_i = sign * vi, sign * np.float32(PADDING), np.float32(PADDING)
        first_r, first_i = scale_r * along(r, 0, xr, yr, zr), scale_i * along(r, 0, xi, yi, zi)
        second_r, second_i = scale_r * along(r, 1, xr, yr, zr), scale_i * along(r, 1, xi, yi, zi)
        third_r, third_i = scale_r * along(r, 2, xr, yr, zr), scale_i * along(r, 2, xi, yi, zi)
        ar, ai = along_x[wave[k, 0] + top, 0], along_x[wave[k, 0] + top, 1]
        br, bi = along_y[wave[k, 1] + top, 0], along_y[wave[k, 1] + top, 1]
        root = np.float32(1.0) / np.sqrt(noise[k])
        strength = ctf[k] * root
        cr, ci = (ar * br - ai * bi) * strength, (ar * bi + ai * br) * strength
        model_r, model_i = cr * vr - ci * vi, cr * vi + ci * vr
        image_r, image_i = image[k].real * root, image[k].imag * root
        total += model_r * (2 * image_r - model_r) + model_i * (2 * image_i - model_i)
        beam_r, beam_i = cr * third_r - ci * third_i, cr * third_i + ci * third_r
        round_r, round_i = kx * second_r - ky * first_r, kx * second_i - ky * first_i
        real[0, c], imaginary[0, c] = ky * beam_r, ky * beam_i
        real[1, c], imaginary[1, c] = -kx * beam_r, -kx * beam_i
        real[2, c], imaginary[2, c] = cr * round_r - ci * round_i, cr * round_i + ci * round_r
        real[3, c], imaginary[3, c] = -turning * kx * model_i, turning * kx * model_r
        real[4, c], imaginary[4, c] = -turning * ky * model_i, turning * ky * model_r
        real[REST, c], imaginary[REST, c] = image_r - model_r, image_i - model_i
    return total


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def add_products(real, imaginary, count, out):
    """Add the gradient and the upper triangle of the curvature of some samples to `out` (21,): products of the rows."""
    place = 1 + REST
    for i in range(REST):
        for j in range(i, REST + 1):
            product = np.float32(0.0)
            for c in range(count):
                product += real[i, c] * real[j, c] + imaginary[i, c] * imaginary[j, c]
            if j == REST:
                out[1 + i] += 2 * product
            else:
                out[place] += 2 * product
                place += 1


@numba.njit(cache=True, inline="always", fastmath=UNSAFE)
def inside(iz, iy, ix, limit):
    """Whether all eight corners of a cell lie on the grid."""
    return 0 <= iz < 2 * limit and 0 <= iy < 2 * limit and 0 <= ix < limit


@numba.njit(cache=True, nogil=True, fastmath=UNSAFE)
def extract(volume, rotation, wave, slices):
    """Slices at rotations (B, 3, 3), sampled at `wave` (L, 2) float32, into `slices` (B, L, 2); zero outside the volume."""
    limit = volume.shape[2] - 1
    for b in range(len(rotation)):
        usable = square(rotation[b]) < MOST_SQUARE
        for k in range(len(wave)):
            slices[b, k, 0] = slices[b, k, 1] = 0.0
            if usable:
                fetch_ahead(volume, rotation[b], wave, k, limit)
                iz, iy, ix, fz, fy, fx, sign = cell(rotation[b], wave[k, 0], wave[k, 1], limit)
                if inside(iz, iy, ix, limit):
                    slices[b, k, 0] = value(volume, iz, iy, ix, fz, fy, fx, 0)
                    slices[b, k, 1] = sign * value(volume, iz, iy, ix, fz, fy, fx, 1)


@numba.njit(cache=True, nogil=True, fastmath=UNSAFE)
def insert(sums, rotation, wave, values, weights, place):
    """Add slices `values` (B, L) complex and `weights` (B, L) into `sums` (2K+1, 2K+1, K+1, 3): the adjoint of `extract`.

    place: None, or the row of `sums` that holds each plane y of the grid, negative where none does. What is asked of None is
    settled when the kernel is compiled, and costs nothing.
    """
    limit = sums.shape[2] - 1
    for b in range(len(rotation)):
        if not square(rotation[b]) < MOST_SQUARE:
            continue
        for k in range(len(wave)):
            if place is None:
                fetch_ahead(sums, rotation[b], wave, k, limit)
            iz, iy, ix, fz, fy, fx, sign = cell(rotation[b], wave[k, 0], wave[k, 1], limit)
            if not inside(iz, iy, ix, limit):
                continue
            if place is not None:
                if place[iy] < 0 and place[iy + 1] < 0:
                    continue
            real, imaginary, weight = values[b, k].real, sign * values[b, k].imag, weights[b, k]
            for corner in range(8):
                dz, dy, dx = corner >> 2, (corner >> 1) & 1, corner & 1
                row = iy + dy
                if place is not None:
                    row = place[iy + dy]
                    if row < 0:
                        continue
                share = (fz if dz else 1 - fz) * (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
                sums[iz + dz, row, ix + dx, 0] += share * real
                sums[iz + dz, row, ix + dx, 1] += share * imaginary
                sums[iz + dz, row, ix + dx, 2] += share * weight
