"""Workers elsewhere change nothing about what comes out, nor does losing them."""
from __future__ import annotations

import os
import random
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, described, engine_over, particle_set, random_poses, write_data_set

from swiftres_plugin import layout
from swiftres_plugin.engine import worker
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.cluster import (
    BLOCKS,
    FEW_BLOCKS,
    LARGEST,
    block_bounds,
    check_cluster,
    clustered,
    sampled,
    tell_of_workers,
    workers_settings,
)
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.spectra import RowsOnDemand
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.io.mrc import MrcSource
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter, TeeReporter
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import from_flat

CPU = torch.device("cpu")
COUNT = 96
OPTIONS = {"initial_resolution": 16.0, "max_shift": 14.0, "diameter": 100.0, "iterations": 1, "threads": 2}


class Killer(SilentReporter):
    """Kills one of the `workers` (process numbers) when `delay` reports of the stage called `stage_name` came in."""

    def __init__(self, workers: list[int], stage_name: str, delay: int = 0):
        self.workers, self.stage_name, self.delay, self.there = workers, stage_name, delay, False

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        self.there = self.stage_name in name

    def advance(self, done: int) -> None:
        if self.there and self.delay == 0 and self.workers:
            os.kill(self.workers.pop(), signal.SIGKILL)
        self.delay -= self.there


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return read_particles(write_data_set(folder, particle_set(COUNT, noise=0.3), with_poses=False))


@pytest.fixture(scope="module")
def workers(files, tmp_path_factory):
    """Spectra on demand and two workers."""
    settings = from_flat({**OPTIONS, "cluster": "local:2"})
    output = tmp_path_factory.mktemp("run")
    (output / layout.CLUSTER).mkdir()
    (output / layout.CLUSTER / "left.npz").touch()  # by a run that was killed
    with clustered(files, settings, Compute(CPU, 2, 1 << 30), SilentReporter(), output) as found:
        assert not (output / layout.CLUSTER / "left.npz").exists()
        yield found
    assert not list(output.iterdir())


def one_iteration(engine):
    return next(refine(engine, start(engine, [Map(Phantom().map().voxels, 4.0)], None)))


@pytest.fixture(scope="module")
def undisturbed(workers):
    spectra, cluster = workers
    return one_iteration(replace(engine_over(spectra, 2, **OPTIONS), cluster=cluster))


def alike(one, other, tolerance: float) -> None:
    np.testing.assert_allclose(other.assignment.image_to_volume, one.assignment.image_to_volume, atol=tolerance)
    np.testing.assert_allclose(other.assignment.shift_a, one.assignment.shift_a, atol=10 * tolerance)
    np.testing.assert_allclose(other.noise, one.noise, rtol=tolerance)
    scale = np.abs(one.classes[0].combined).max()
    np.testing.assert_allclose(other.classes[0].combined, one.classes[0].combined, atol=tolerance * scale)


def test_two_workers_equal_one_process(files, undisturbed, tmp_path):
    """To rounding: sums are added in another order."""
    engine = engine_over(None, 2, **OPTIONS)
    spectra = load_spectra(MrcSource(files), engine.settings.preprocess, engine.compute, SilentReporter(), tmp_path)
    alike(one_iteration(replace(engine, spectra=spectra)), undisturbed, 2e-3)


@pytest.mark.parametrize("stage", ["search", pytest.param("reconstruction", marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_changes_nothing(workers, undisturbed, stage):
    """Its blocks and sums are made again; sums that lack a particle, or hold one twice, would raise."""
    killed_run(workers, undisturbed, stage, 0)


@pytest.mark.slow
def test_twenty_kills_change_nothing(workers, undisturbed):
    chance = random.Random(1)
    for _ in range(20):
        killed_run(workers, undisturbed, chance.choice(["search", "reconstruction"]), chance.randrange(4))


def killed_run(workers, undisturbed, stage, delay):
    spectra, cluster = workers
    cluster.client.wait_for_workers(2)
    killer = Killer([next(iter(cluster.client.run(os.getpid).values()))], stage, delay)
    engine = replace(engine_over(spectra, 2, **OPTIONS), cluster=cluster, reporter=killer)
    found = one_iteration(engine)
    assert not killer.workers, "no worker was killed"
    alike(undisturbed, found, 1e-6)
    rows = np.arange(COUNT)
    assert cluster.reconstruct_half(engine, found.noise[0], rows, found.assignment, "", 8).count == COUNT


@pytest.mark.slow
def test_jobs_of_slurm_are_workers(files, tmp_path, monkeypatch):
    """With a stand-in for Slurm's programs that runs jobs on this machine."""
    commands = {"sbatch": 'setsid bash "$1" > /dev/null 2>&1 &\necho "Submitted batch job $!"', "scancel": 'kill -- -"$1"'}
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    settings = from_flat({**OPTIONS, "cluster": "slurm:1,cores=1,memory=2GB"})
    with clustered(files, settings, Compute(CPU, 1, 1 << 30), SilentReporter(), tmp_path / "run") as (spectra, cluster):
        power = cluster.image_power(engine_over(spectra, **OPTIONS), np.arange(COUNT))
        assert sum(counts.sum() for _, counts in power) == COUNT


# ------------------------------------------------------------------------------------------- without workers

def test_particles_travel_as_arrays():
    particles = described(random_poses(5), groups=2).take(np.array([4, 2]))
    back = worker.particles_from(worker.described(particles))
    assert [asdict(optics) for optics in back.optics] == [asdict(optics) for optics in particles.optics]
    assert back.stack_paths == particles.stack_paths
    for name in ("particle_id", "slice_index", "optics_group"):
        np.testing.assert_array_equal(getattr(back, name), getattr(particles, name))
    np.testing.assert_array_equal(back.ctf.defocus_angle_rad, particles.ctf.defocus_angle_rad)
    np.testing.assert_array_equal(back.poses.shift_a, particles.poses.shift_a)
    assert all(isinstance(array, np.ndarray) for array in worker.described(particles).values())


def test_a_job_travels_as_a_file(tmp_path):
    plan = IterationPlan(3, 9, True, 6, 0.2, 5.0, 14.0)
    job = worker.Job(from_flat(OPTIONS), np.eye(3)[None], noise=np.ones((1, 9), np.float32), plan=plan, diameter_a=50.0,
                     sample={"values": np.ones((2, 3), np.float16)})
    worker.write_job(tmp_path / "job.npz", job)
    back = worker.read_job(str(tmp_path / "job.npz"))
    assert back.settings == job.settings and back.reference is None and back.diameter_a == 50.0
    assert (back.plan.number, back.plan.exhaustive, back.plan.shift_range_a) == (3, True, 14.0)
    np.testing.assert_array_equal(back.sample["values"], job.sample["values"])


def test_a_worker_of_another_version_is_named(tmp_path, monkeypatch):
    worker.write_job(tmp_path / "job.npz", worker.Job(from_flat({}), np.eye(3)[None]))
    monkeypatch.setattr(worker, "__version__", "0.0.7")
    with pytest.raises(InputError, match="another version.*0.0.7"):
        worker.read_job(str(tmp_path / "job.npz"))


@pytest.mark.parametrize("count", [1, 31, 500, 10 ** 6])
def test_blocks_hold_every_particle(count):
    bounds = block_bounds(count)
    assert bounds[0] == 0 and bounds[-1] == count and (np.diff(bounds) > 0).all()
    assert np.diff(bounds).max() <= max(LARGEST, count / FEW_BLOCKS + 1)
    assert len(bounds) - 1 <= BLOCKS or np.diff(bounds).max() > LARGEST / 2


def test_rows_are_read_when_they_are_asked_for():
    made = []

    def load(rows):
        made.append(rows.tolist())
        return torch.arange(100).view(10, 10)[torch.from_numpy(rows)]

    rows = RowsOnDemand(10, load, most=4)
    np.testing.assert_array_equal(rows[torch.tensor([3, 1, 3]), :2], [[30, 31], [10, 11], [30, 31]])
    np.testing.assert_array_equal(rows[slice(1, 3), :1], [[10], [20]])
    rows[slice(5, 8), :1]
    rows[slice(1, 2), :1]
    assert made == [[1, 3], [2], [5, 6, 7], [1]] and len(rows) == 10


def test_the_sample_is_cut_to_what_is_searched(files, workers):
    spectra, _ = workers
    sample = sampled(engine_over(spectra), np.arange(0, COUNT, 2), 6)
    assert sample["values"].shape == (COUNT // 2, len(spectra.band.up_to(6)), 2)


def test_workers_of_one_machine_divide_it():
    found = workers_settings(from_flat({"cluster": "local:4"}), Compute(CPU, 8, 8 << 30)).compute
    assert found.threads == 2 and found.memory == pytest.approx(2 * 2 ** 30 / 1e9)
    assert workers_settings(from_flat({"cluster": "node:8786"}), Compute(CPU, 8, 8 << 30)).compute.threads == 0


def test_workers_that_come_and_go_are_told_of():
    told = []
    reporter = TeeReporter(SilentReporter())
    reporter.message = told.append
    tell_of_workers({"a", "b"}, {"b", "c", "d"}, reporter)
    assert told == ["1 of 2 workers lost: what they held is done again.", "2 workers joined: 3 now."]
    tell_of_workers({"a"}, set(), reporter)
    assert "No workers are left" in reporter.warnings[0]


@pytest.mark.parametrize("place", ["local:0", "local:x", "slurm:", "slurm:2,queue", "slurm:2,cores=many", "nowhere"])
def test_a_cluster_that_cannot_be_is_refused(place):
    with pytest.raises(InputError, match="not understood.*slurm:N"):
        check_cluster(place)


def test_a_scheduler_that_does_not_answer_is_named(files, tmp_path, monkeypatch):
    monkeypatch.setattr("swiftres_plugin.engine.cluster.ANSWER_S", 0.2)
    settings = from_flat({"cluster": "127.0.0.1:9"})
    with pytest.raises(InputError, match="127.0.0.1:9.*cannot be reached"):
        with clustered(files, settings, Compute(CPU, 1, 1 << 30), SilentReporter(), tmp_path):
            pass


def test_the_command_line_refuses_before_any_work(tmp_path, capsys):
    assert main(["refine", "--particles", "none.star", "--reference", "none.mrc", "--output", str(tmp_path / "run"),
                 "--cluster", "local:two"]) == 2
    assert "the cluster is not understood; found 'local:two'" in capsys.readouterr().err
