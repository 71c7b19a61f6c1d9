"""What Scipion pays: python benchmarks/bench_scipion.py [--particles 100000]

Seconds of the processor for reading a set of particles (CTF, poses, half sets) into the engine's STAR and for writing a
refined STAR back to a set; and what discovering the plugin adds to Scipion's start after pwem's own share, with the heavy
modules that it imports: its protocols (every run of any protocol pays for them), and all of it (the project window does).
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEAVY = ("torch", "faiss", "pandas", "matplotlib")
DISCOVERED = {"protocols": ("protocols",), "everything": ("protocols", "viewers", "wizards")}
STACKS = 100  # that the particles are spread over
DISCOVERY = """
import sys, time
import pyworkflow as pw
domain = pw.Config.getDomain()
for part in {parts}:
    __import__("pwem." + part)
before, began = set(sys.modules), time.process_time()
domain.registerPlugin("swiftres_plugin")
for part in {parts}:
    __import__("swiftres_plugin." + part)
seconds = time.process_time() - began
print(seconds, *(name for name in {heavy!r} if name in sys.modules and name not in before))
"""


def prepare_scipion(folder: Path) -> None:
    """Set Scipion's variables; to be called before anything imports pyworkflow."""
    (folder / "hosts.conf").write_text("[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n")
    os.environ.update(
        SCIPION_HOME=str(folder), SCIPION_USER_DATA=str(folder), SCIPION_DOMAIN="pwem", SCIPION_PYTHON=sys.executable,
        SCIPION_HOSTS=str(folder / "hosts.conf"), SCIPION_CANCEL_XMIPP_BINDING_WARNING="True")


def processor_seconds(work: Callable[[], object]) -> tuple[float, object]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def make_set(folder: Path, count: int):
    """A set of `count` particles in `STACKS` stacks, with CTF, poses and half sets."""
    import mrcfile
    from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles, Transform
    from pyworkflow.object import Integer
    from scipy.spatial.transform import Rotation

    for number in range(STACKS):
        with mrcfile.new(folder / f"stack{number}.mrcs") as mrc:
            mrc.set_data(np.zeros((1, 16, 16), np.float32))
    acquisition = Acquisition(magnification=50000, voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1)
    particles = SetOfParticles(filename=str(folder / "particles.sqlite"))
    particles.setSamplingRate(1.1)
    particles.setAcquisition(acquisition)
    particles.setHasCTF(True)
    particles.setAlignmentProj()
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, random_state=1).as_matrix()
    for row in range(count):
        item, ctf = Particle(), CTFModel()
        item.setLocation(row // STACKS + 1, str(folder / f"stack{row % STACKS}.mrcs"))
        ctf.setStandardDefocus(12000.0 + row % 1000, 11000.0, 30.0)
        item.setCTF(ctf)
        item.setAcquisition(acquisition)
        item.setTransform(Transform(matrix=matrices[row]))
        item._rlnRandomSubset = Integer(row % 2 + 1)
        particles.append(item)
    particles.write()
    return particles


def write_back(particles, star: Path, folder: Path):
    """As a protocol's last step does."""
    from pwem.objects import SetOfParticles

    from swiftres_plugin import convert

    found = convert.read_refined(str(star), particles.getSamplingRate())
    refined = SetOfParticles(filename=str(folder / "refined.sqlite"))
    refined.copyInfo(particles)
    refined.setAlignmentProj()
    refined.copyItems(particles, doClone=False, updateItemCallback=found.update)
    refined.write()
    return refined


def discovery(parts: tuple[str, ...], runs: int = 3) -> tuple[float, list[str]]:
    """(least seconds of several starts, heavy modules that these parts of the plugin import)."""
    found = []
    for _ in range(runs):
        command = [sys.executable, "-c", DISCOVERY.format(parts=parts, heavy=HEAVY)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, *heavy = done.stdout.splitlines()[-1].split()
        found.append((float(seconds), heavy))
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=100_000)
    count = parser.parse_args().particles
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_scipion(folder)
        from swiftres_plugin import convert

        making, particles = processor_seconds(lambda: make_set(folder, count))
        star = folder / "particles.star"
        reading, written = processor_seconds(lambda: convert.write_particles(particles, str(star), str(folder)))
        writing, refined = processor_seconds(lambda: write_back(particles, star, folder))
        if not written == refined.getSize() == count:
            raise RuntimeError(f"{count} particles became {written} in the STAR file and {refined.getSize()} in the set")
        costs = {name: discovery(parts) for name, parts in DISCOVERED.items()}
    print(f"{count} particles: set to STAR {reading:.1f} s, STAR to set {writing:.1f} s, together {reading + writing:.1f} s "
          f"(Scipion's own making of the set: {making:.1f} s)")
    for what, (seconds, heavy) in costs.items():
        print(f"discovery of {what}: {seconds:.2f} s; heavy modules: {', '.join(heavy) or 'none'}")


if __name__ == "__main__":
    main()
