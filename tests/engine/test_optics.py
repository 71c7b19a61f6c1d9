"""Aberrations of the optics table: what RELION makes of every column, and what the engine makes of such images."""
from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import Phantom, described, random_poses, write_stack, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import ArraySource, Optics, Particles, Poses
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.maths.aberrations import (
    even_order,
    magnification_matrix,
    odd_order,
    odd_phase,
    shift_of_image,
    shift_of_particle,
)
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra, phase_ramp
from swiftres_plugin.engine.maths.resample import spectra_at
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.maths.transfer import particle_transfer
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.simulate import Projector
from swiftres_plugin.engine.stages.postprocess import correlation
from swiftres_plugin.engine.stages.preprocess import held_by, load_spectra, make_batch
from swiftres_plugin.settings import PreprocessSettings

BOX, PIXEL_A = 48, 2.0
PLAIN = Optics(300.0, 2.7, 0.1, PIXEL_A, BOX)
# At Nyquist (1/4 A) the phases are some radians. No two coefficients have the same effect.
TILTED = replace(PLAIN, beam_tilt_rad=(3e-3, -1.7e-3))
TREFOIL = replace(PLAIN, odd_zernike=(1.5, -1.0, 90.0, 2.0, -3.0, -60.0, 500.0, -15.0, 1.2, -1.0, 20.0, 600.0))
STRETCHED = replace(PLAIN, magnification=(1.1, 0.06, -0.03, 0.94))
EVEN = (0.4, 9.0, -2.0, 12.0, 200.0, -8.0, 2.0, 6.0, -250.0)
ALL = replace(STRETCHED, beam_tilt_rad=(2e-3, 1e-3), even_zernike=EVEN)


def with_defocus(particles: Particles, u_a: float, v_a: float, phase_rad: float = 0.0) -> Particles:
    u, v, phase = (np.full(len(particles), value) for value in (u_a, v_a, phase_rad))
    return replace(particles, ctf=replace(particles.ctf, defocus_u_a=u, defocus_v_a=v, phase_shift_rad=phase))


def one_each(groups: list[Optics], poses: Poses | None = None) -> Particles:
    """One particle of each group, with astigmatism and a phase shift."""
    count = len(groups)
    turned = Poses(np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2))) if poses is None else poses
    particles = described(turned, BOX, PIXEL_A)
    return with_defocus(replace(particles, optics=tuple(groups), optics_group=np.arange(count)), 7200.0, 6100.0, 0.3)


def relion(program: str, *options: str, folder: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed: the optics table is not checked against RELION")
    subprocess.run([program, *options], cwd=folder, check=True, capture_output=True)


def frequencies_of_particle(optics: Optics) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = image_band(optics.box_px, optics.pixel_size_a).frequency()
    x, y = torch.from_numpy(magnification_matrix(optics)).float() @ torch.stack([x, y])
    return x, y


# ------------------------------------------------------------------------------------------ RELION's opinion

@pytest.mark.relion
def test_relion_has_the_same_transfer(tmp_path):
    """The images of a point are the CTFs themselves: every even coefficient alone, magnification, B-factor, scale."""
    single = [replace(PLAIN, even_zernike=(0.0,) * i + (c,)) for i, c in enumerate(EVEN)]
    both = replace(STRETCHED, even_zernike=EVEN)
    particles = one_each([PLAIN, *single, STRETCHED, both, PLAIN, PLAIN])
    damped = np.zeros(len(particles)), np.ones(len(particles))
    damped[0][-2], damped[1][-1] = 25.0, 0.6
    particles = replace(particles, ctf=replace(particles.ctf, b_factor_a2=damped[0], scale=damped[1]))
    point = np.zeros((BOX,) * 3, np.float32)
    point[BOX // 2, BOX // 2, BOX // 2] = 1
    write_volume(tmp_path / "point.mrc", point, PIXEL_A)
    write_particles(tmp_path / "p.star", particles)
    for name, options in (("plain", []), ("seen", ["--ctf"])):
        relion("relion_project", "--i", "point.mrc", "--ang", "p.star", "--o", name, *options, folder=tmp_path)
    band = image_band(BOX, PIXEL_A).up_to(BOX // 2 - 2)
    plain, seen = (images_to_spectra(torch.from_numpy(stack(tmp_path / f"{name}.mrcs")), band) for name in ("plain", "seen"))
    theirs = (seen / plain).real
    for row, optics in enumerate(particles.optics):
        ours = particle_transfer(particles.take(np.array([row])), *frequencies_of_particle(optics))[0, :len(band)]
        torch.testing.assert_close(theirs[row], ours, atol=0.01, rtol=0)
    # each of them matters by far more than the tolerance
    assert float((theirs[1:] - theirs[0]).abs().amax(1).min()) > 0.2


def stack(path: Path) -> np.ndarray:
    import mrcfile
    with mrcfile.open(path) as mrc:
        return np.array(mrc.data, dtype=np.float32)


@pytest.mark.relion
@pytest.mark.parametrize("optics", [TILTED, TREFOIL], ids=["beam tilt", "odd Zernike"])
def test_relion_takes_back_the_same_phases(optics, tmp_path):
    """The map of a single unturned image is that image without its odd aberrations."""
    image = np.zeros((1, BOX, BOX), np.float32)
    image[0, BOX // 2 + 2, BOX // 2 - 3] = 1
    band = image_band(BOX, PIXEL_A)
    found, given = (images_to_spectra(one, band)[0] for one in (single_image_map(tmp_path, optics, image),
                                                                torch.from_numpy(image)))
    phase = odd_phase(optics, *band.frequency()).float()
    turn = torch.angle(found * given.conj() * torch.polar(torch.ones_like(phase), phase))
    inside = (band.shell > 2) & (band.shell < BOX // 2 - 2)
    assert float(phase[inside].abs().max()) > 1.5
    # what is left is RELION's gridding
    assert float(turn[inside].abs().max()) < 0.1


def single_image_map(folder: Path, optics: Optics, image: np.ndarray) -> torch.Tensor:
    """(1, n, n) the projection of what RELION reconstructs from one unturned image (1, n, n), whose transfer is nearly 1."""
    write_stack(folder / "p.mrcs", image, PIXEL_A)
    # cos(chi), with Cs and defocus in balance
    particles = with_defocus(one_each([replace(optics, amplitude_contrast=1.0)]), 250.0, 250.0)
    write_particles(folder / "p.star", replace(particles, stack_paths=(str(folder / "p.mrcs"),)))
    relion("relion_reconstruct", "--i", "p.star", "--o", "map.mrc", "--ctf", folder=folder)
    return torch.from_numpy(read_map(folder / "map.mrc").voxels.sum(0)[None].copy())


def centre_of(image: np.ndarray) -> np.ndarray:
    """x and y (px from the middle) of the centre of mass of what is brightest."""
    y, x = np.indices(image.shape) - image.shape[0] // 2
    peak = np.where(image > 0.3 * image.max(), image, 0)
    return np.array([(peak * x).sum(), (peak * y).sum()]) / peak.sum()


@pytest.mark.relion
@pytest.mark.parametrize("place", [(12.0, 3.0), (-5.0, 11.0)])
def test_relion_puts_a_stretched_image_back(place, tmp_path):
    """A spot at r in the image is at inv(M)^T r in the particle, along both axes and across."""
    y, x = np.indices((BOX, BOX)) - BOX // 2
    image = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 1.5 ** 2)).astype(np.float32)[None]
    found = centre_of(single_image_map(tmp_path, STRETCHED, image)[0].numpy())
    expected = np.linalg.inv(magnification_matrix(STRETCHED)).T @ place
    assert np.linalg.norm(expected - place) > 0.8
    np.testing.assert_allclose(found, expected, atol=0.1)


# ------------------------------------------------------------------------------------------ projections

def test_a_projection_is_stretched_by_the_matrix():
    """The spot of the particle at r' is at M^T r' in the image: the inverse of what RELION does to images."""
    spot = Phantom(places_a=np.array([[20.0, -8.0, 0.0]]), weights=np.ones(1), width_a=3.0).map(BOX, PIXEL_A)
    image = Projector(spot).project(one_each([STRETCHED]), with_ctf=False)[0]
    np.testing.assert_allclose(centre_of(image), magnification_matrix(STRETCHED).T @ [10.0, -4.0], atol=0.1)


def test_a_projection_has_phase_and_transfer():
    """The image of a point carries CTF(M k) exp(i phase(M k)), as far as it fits the box."""
    optics = replace(ALL, odd_zernike=(0, 0, 60.0, 0, 0, -30.0))
    particles = with_defocus(one_each([optics]), 900.0, 700.0)
    spot = Phantom(places_a=np.zeros((1, 3)), weights=np.ones(1), width_a=1.5).map(BOX, PIXEL_A)
    band = image_band(BOX, PIXEL_A).up_to(BOX // 3)
    projector = Projector(spot)
    plain, seen = (images_to_spectra(torch.from_numpy(projector.project(particles, flag)), band)[0] for flag in (False, True))
    x, y = (values[:len(band)] for values in frequencies_of_particle(optics))
    phase = odd_phase(optics, x, y).float()
    expected = particle_transfer(particles, x, y)[0] * torch.polar(torch.ones_like(phase), phase)
    assert float(phase.abs().max()) > 1
    torch.testing.assert_close(seen / plain, expected, atol=0.03, rtol=0)


# ------------------------------------------------------------------------------------------ Zernike, shifts, resampling

def test_order_of_the_coefficients():
    """Written out from RELION's table: numbers of all coefficients up to the fifth and fourth order."""
    assert [odd_order(i) for i in range(12)] == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3),
                                                 (-5, 5), (-3, 5), (-1, 5), (1, 5), (3, 5), (5, 5)]
    assert [even_order(i) for i in range(9)] == [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]


def test_beam_tilt_is_two_zernike_terms():
    """-2 pi Cs lambda^2 t k^3 cos(phi) = c Z(1, 3) + 2 c Z(1, 1) with c a third of the factor."""
    x, y = image_band(BOX, PIXEL_A).frequency()
    c = -2 * np.pi * 2.7e7 * 0.01968749 ** 2 * 3e-3 / 3
    as_zernike = replace(PLAIN, odd_zernike=(0.0, 2 * c, 0.0, 0.0, c, 0.0))
    torch.testing.assert_close(odd_phase(replace(PLAIN, beam_tilt_rad=(3e-3, 0.0)), x, y), odd_phase(as_zernike, x, y),
                               rtol=1e-4, atol=1e-9)


def test_shifts_go_to_the_particle_and_back():
    particles = one_each([PLAIN, STRETCHED], Poses(np.tile(np.eye(3), (2, 1, 1)), np.array([[3.0, -4.0], [3.0, -4.0]])))
    moved = shift_of_particle(particles, particles.poses.shift_a)
    np.testing.assert_array_equal(moved[0], [3.0, -4.0])
    k = np.array([0.1, 0.07])
    assert np.dot(magnification_matrix(STRETCHED) @ k, moved[1]) == pytest.approx(np.dot(k, [3.0, -4.0]))
    np.testing.assert_allclose(shift_of_image(particles, moved), particles.poses.shift_a, atol=1e-12)


@pytest.mark.parametrize("box", [32, 33])
def test_transforms_between_the_grid_are_sums_over_pixels(box):
    random = np.random.default_rng(4)
    images = random.standard_normal((2, box, box)).astype(np.float32)
    wave = random.uniform(-box / 2, box / 2, (50, 2))
    axis = np.arange(box) - box // 2
    across, down = (np.exp(-2j * np.pi / box * np.outer(wave[:, i], axis)) for i in (0, 1))
    expected = np.einsum("ly,byx,lx->bl", down, images.astype(np.float64), across) / box
    # coefficients of white noise of variance 1 are about 1
    np.testing.assert_allclose(spectra_at(torch.from_numpy(images), torch.from_numpy(wave)), expected, atol=5e-4)


# ------------------------------------------------------------------------------------------ images to spectra

@pytest.mark.parametrize("optics", [TILTED, TREFOIL, STRETCHED, ALL], ids=["tilt", "trefoil", "stretched", "all"])
def test_spectra_are_those_of_the_undistorted_particle(optics, tmp_path):
    """The engine's model, slices on the plain band at the particle's shifts times its CTF, explains distorted images."""
    density = Phantom(places_a=Phantom().places_a * 0.8, width_a=1.6).map(BOX, PIXEL_A)
    particles = with_defocus(described(random_poses(6, shift_a=2.0), BOX, PIXEL_A), 2400.0, 2000.0)
    distorted = replace(particles, optics=(optics,))
    images = Projector(density).project(distorted, with_ctf=True)
    images += 1e-3 * images.std() * np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    assert likeness_to_model(ArraySource(distorted, images), density, tmp_path) > 0.985
    assert likeness_to_model(ArraySource(particles, images), density, tmp_path) < 0.96


def likeness_to_model(source: ArraySource, density: Map, folder: Path) -> float:
    """Of the least like of the images."""
    particles = source.particles
    compute = Compute(torch.device("cpu"), 1, 1 << 28)
    spectra = load_spectra(source, PreprocessSettings(), compute, SilentReporter(), folder / "c")
    batch = make_batch(spectra, np.arange(len(particles)), spectra.band.up_to(BOX // 2 - 4), torch.device("cpu"))
    band = batch.band
    shift = torch.from_numpy(shift_of_particle(particles, particles.poses.shift_a)).float()
    volume = fourier_volume(torch.from_numpy(density.voxels), band.last_shell)
    slices = extract_slices(volume, torch.from_numpy(particles.poses.image_to_volume).float(), band.wave_px)
    model = batch.ctf * slices * phase_ramp(band.wave_px.float() / band.box_a, shift)
    return float(((model * batch.images.conj()).sum(1).real / model.norm(dim=1) / batch.images.norm(dim=1)).min())


def test_nothing_is_made_of_what_the_images_do_not_hold():
    """A stretch makes the circle of Nyquist an ellipse, beyond which the transfer is zero."""
    band = image_band(BOX, PIXEL_A)
    held = held_by(replace(PLAIN, magnification=(0.9, 0, 0, 1.1)), band)
    kx, ky = band.wave_px.T
    assert bool(held_by(PLAIN, band).all())
    assert int(kx[held & (ky == 0)].max()) == int(0.9 * 23.5) and int(ky[held & (kx == 0)].max()) == 23


# ------------------------------------------------------------------------------------------ several samplings

@dataclass(frozen=True, eq=False)
class GroupSource:
    """Images of groups with boxes of their own, a list (N) of (n, n)."""

    particles: Particles
    images: list[np.ndarray]

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.images[row] for row in rows])


def noisy_images(count: int = 8) -> np.ndarray:
    """Images of a point-like particle in noise that falls with frequency, (N, 60, 60) at PIXEL_A."""
    random = np.random.default_rng(3)
    k = np.hypot(np.fft.fftfreq(60)[:, None], np.fft.fftfreq(60)[None, :])
    white = np.fft.fft2(random.standard_normal((count, 60, 60)))
    images = np.fft.ifft2(white / (1 + 20 * k ** 2)).real
    images[:, 28:32, 28:32] += 8 * random.standard_normal((count, 4, 4))
    return images.astype(np.float32)


def rescaled(image: np.ndarray, box_px: int) -> np.ndarray:
    """The image on fewer pixels, grey values kept, by cropping its transform (the Nyquist plane is left out)."""
    n = len(image)
    wave = np.arange(-(box_px // 2) + 1, box_px // 2)
    part = np.zeros((box_px, box_px), complex)
    part[np.ix_(wave % box_px, wave % box_px)] = np.fft.fft2(np.fft.ifftshift(image))[np.ix_(wave % n, wave % n)]
    return np.fft.fftshift(np.fft.ifft2(part).real * (box_px / n) ** 2).astype(np.float32)


def test_rescaled_images_have_the_spectra_of_the_originals(tmp_path):
    """Coarser pixels, a larger box, or both: the same coefficients at the same frequencies, on the same scale."""
    wide = noisy_images()
    inner = wide[:, 6:54, 6:54]
    # 48 px of 2 A, 60 of 2, 32 of 3, 40 of 3: each of the images in every form
    forms = [list(inner), list(wide), [rescaled(i, 32) for i in inner], [rescaled(i, 40) for i in wide]]
    optics = tuple(replace(PLAIN, box_px=len(form[0]), pixel_size_a=pixel) for form, pixel in zip(forms, (2.0, 2.0, 3.0, 3.0)))
    count = len(wide)
    particles = described(random_poses(4 * count), BOX, PIXEL_A)
    particles = replace(particles, optics=optics, optics_group=np.repeat(np.arange(4), count))
    source = GroupSource(particles, [image for form in forms for image in form])
    settings, compute = PreprocessSettings(diameter=24.0), Compute(torch.device("cpu"), 1, 1 << 28)
    spectra = load_spectra(source, settings, compute, SilentReporter(), tmp_path / "c")
    band = spectra.band.up_to(14)
    first, *others = torch.view_as_complex(spectra.values.float())[:, :len(band)].view(4, count, -1)
    for other in others:
        share = float((other * first.conj()).sum().real) / float((first.abs() ** 2).sum())
        likeness = float((other * first.conj()).sum().real) / float(other.norm() * first.norm())
        # the soft edges of the windows are of five pixels, whatever their size
        assert share == pytest.approx(1, abs=0.04) and likeness > 0.98
    batch = make_batch(spectra, np.arange(4 * count), spectra.band, torch.device("cpu"))
    assert bool((batch.ctf[2 * count:, spectra.band.shell > 16] == 0).all())
    assert bool((batch.ctf[:2 * count, spectra.band.shell > 16] != 0).any())


@pytest.fixture(scope="module")
def two_samplings(tmp_path_factory) -> Path:
    """300 particles, half of them with strong aberrations, half in a smaller box of larger pixels, in two stacks."""
    folder = tmp_path_factory.mktemp("two")
    phantom, count, pixels, boxes = Phantom(), 300, (4.0, 5.0), (32, 28)
    odd = tuple(8 * c for c in TREFOIL.odd_zernike[:6])
    optics = (replace(STRETCHED, box_px=boxes[0], pixel_size_a=pixels[0], beam_tilt_rad=(2e-2, -1e-2), odd_zernike=odd),
              replace(PLAIN, box_px=boxes[1], pixel_size_a=pixels[1], name="second"))
    group = np.arange(count) % 2
    particles = replace(described(random_poses(count)), optics=optics, optics_group=group, stack_index=group,
                        slice_index=np.arange(count) // 2, half=np.arange(count) // 2 % 2,
                        stack_paths=(str(folder / "a.mrcs"), str(folder / "b.mrcs")))
    for number, (path, pixel_a, box_px) in enumerate(zip(particles.stack_paths, pixels, boxes)):
        members = particles.take(np.flatnonzero(group == number))
        # one thickness has one grey value and one dose, whatever the pixel
        images = Projector(phantom.map(box_px, pixel_a)).project(members, with_ctf=True) * pixel_a
        noise = np.random.default_rng(number).standard_normal(images.shape) / pixel_a
        write_stack(Path(path), (images + 3.0 * noise).astype(np.float32), pixel_a)
    write_particles(folder / "all.star", particles)
    plain = tuple(replace(PLAIN, box_px=o.box_px, pixel_size_a=o.pixel_size_a, name=o.name) for o in optics)
    write_particles(folder / "ignored.star", replace(particles, optics=plain))
    for number, name in enumerate(("first", "second")):
        write_particles(folder / f"{name}.star", particles.take(np.flatnonzero(group == number)))
    return folder


def likeness_of_map(folder: Path, name: str) -> float:
    """Mean Fourier shell correlation with the truth, 20 to 13 A, of what `swiftres reconstruct` makes of `name`.star."""
    options = ["--device", "cpu", "--threads", "1", "--no-auto-mask"]
    assert main(["reconstruct", "--particles", str(folder / f"{name}.star"), "--output", str(folder / name), *options]) == 0
    found = read_map(folder / name / layout.map_name())
    truth = Phantom().map(found.box_px, found.pixel_size_a)
    curve = correlation(*(torch.from_numpy(one.voxels.copy()) for one in (found, truth)))
    frequency = np.arange(len(curve)) / (found.box_px * found.pixel_size_a)
    return float(np.interp([1 / 20, 1 / 17, 1 / 15, 1 / 13], frequency, curve).mean())


def test_two_samplings_and_aberrations_make_one_map(two_samplings):
    """Better than either group alone, and than both with their aberrations ignored (0.88, 0.81, 0.82 and 0.67)."""
    likeness = {name: likeness_of_map(two_samplings, name) for name in ("all", "first", "second", "ignored")}
    assert read_map(two_samplings / "all" / layout.map_name()).voxels.shape == (32, 32, 32)
    assert likeness["all"] > max(likeness["first"], likeness["second"]) + 0.03, likeness
    assert likeness["all"] > likeness["ignored"] + 0.1, likeness


def test_boxes_too_different_are_refused(two_samplings, tmp_path, capsys):
    particles = read_particles(two_samplings / "second.star")
    write_particles(tmp_path / "p.star", replace(
        particles, optics=(particles.optics[0], replace(particles.optics[0], box_px=16)),
        optics_group=np.arange(len(particles)) % 2, extra_optics={}))
    assert main(["reconstruct", "--particles", str(tmp_path / "p.star"), "--output", str(tmp_path / "out")]) == 2
    assert "too different" in capsys.readouterr().err


def test_a_stack_of_two_samplings_is_refused(two_samplings, tmp_path, capsys):
    write_volume(tmp_path / "map.mrc", Phantom().map().voxels, 4.0)
    assert main(["project", "--map", str(tmp_path / "map.mrc"), "--particles", str(two_samplings / "all.star"), "--output",
                 str(tmp_path / "p.mrcs")]) == 2
    assert "mixed boxes" in capsys.readouterr().err


def test_simulated_particles_take_optics_groups_in_turn(tmp_path):
    write_particles(tmp_path / "optics.star", one_each([ALL, TREFOIL]))
    write_volume(tmp_path / "map.mrc", Phantom().map().voxels, 4.0)
    assert main(["simulate", "--map", str(tmp_path / "map.mrc"), "--count", "5", "--optics", str(tmp_path / "optics.star"),
                 "--output", str(tmp_path / "out")]) == 0
    found = read_particles(tmp_path / "out" / "particles_true.star")
    assert found.optics_group.tolist() == [0, 1, 0, 1, 0] and {(o.box_px, o.pixel_size_a) for o in found.optics} == {(32, 4.0)}
    assert found.optics[0].magnification == ALL.magnification and found.optics[1].odd_zernike == TREFOIL.odd_zernike


# ------------------------------------------------------------------------------------------ STAR

def test_aberrations_survive_a_round_trip(tmp_path):
    particles = one_each([replace(TREFOIL, beam_tilt_rad=(-1e-4, 2e-3)), replace(STRETCHED, even_zernike=EVEN, name="second")])
    ctf = replace(particles.ctf, b_factor_a2=np.array([0.0, 31.5]), scale=np.array([1.0, 0.25]))
    write_particles(tmp_path / "p.star", replace(particles, ctf=ctf))
    found = read_particles(tmp_path / "p.star")
    for ours, theirs in zip(particles.optics, found.optics):
        for name in ("beam_tilt_rad", "odd_zernike", "even_zernike", "magnification"):
            given, came = (np.array(getattr(o, name)) for o in (ours, theirs))
            np.testing.assert_allclose(came[:len(given)], given, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(found.ctf.b_factor_a2, ctf.b_factor_a2)
    np.testing.assert_array_equal(found.ctf.scale, ctf.scale)
    write_particles(tmp_path / "again.star", found)
    assert (tmp_path / "again.star").read_text() == (tmp_path / "p.star").read_text()


def test_columns_that_change_nothing_are_kept_as_they_are(tmp_path):
    particles = replace(one_each([PLAIN]), extra_optics={"rlnBeamTiltX": ("0.000000",), "rlnOddZernike": ("[0,0]",)},
                        extra={"rlnCtfBfactor": np.array(["0.0"]), "rlnCtfScalefactor": np.array(["1.000"])})
    write_particles(tmp_path / "p.star", particles)
    found = read_particles(tmp_path / "p.star")
    assert not found.optics[0].shifts_phases and found.ctf.b_factor_a2 is None and found.ctf.scale is None
    assert found.extra_optics["rlnBeamTiltX"] == ("0.000000",) and found.extra_optics["rlnOddZernike"] == ("[0,0]",)
    assert found.extra["rlnCtfBfactor"].tolist() == ["0.0"] and found.extra["rlnCtfScalefactor"].tolist() == ["1.000"]
