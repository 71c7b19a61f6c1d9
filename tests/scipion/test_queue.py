"""Through a queue: what a job asks for, and what the engine is told in it, are what the form says."""
import re
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pyworkflow.object import Pointer  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402
from pyworkflow.protocol import HostConfig, StepExecutor, launch  # noqa: E402
from pyworkflow.protocol.protocol import anonimizeGPUs  # noqa: E402

from swiftres_plugin import layout  # noqa: E402
from swiftres_plugin.plugin import Plugin  # noqa: E402
from swiftres_plugin.protocols import ProtSwiftres, ProtSwiftresSimulate  # noqa: E402
from swiftres_plugin.protocols.protocol_simulate import FROM_DEMO  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "docs" / "hosts_slurm.conf"
SBATCH = '#!/bin/bash\ncp "$1" submitted.sh\necho Submitted batch job 4711\n'


@pytest.fixture
def slurm(project, monkeypatch, tmp_path):
    """The host of the example file, with an `sbatch` that keeps the script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    pw.Config.getDomain().findClass("ProtSwiftres")
    return HostConfig.load(str(EXAMPLE))["localhost"]


def submitted(project, host, kind, **choices):
    """(protocol, {option of sbatch: value}, script) of a protocol that is launched through the queue."""
    protocol = project.newProtocol(kind, **choices)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    protocol.setHostConfig(host)
    protocol._useQueue.set(True)
    protocol.setQueueParams(("gpu", {"JOB_MEMORY": "32", "QUEUE_FOR_JOBS": "N"}))
    launch(protocol)
    script = Path("submitted.sh").read_text()
    return protocol, dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE)), script


@pytest.mark.parametrize("choices, count, device", [
    ({"gpuList": "0"}, "1", "cuda:0"), ({"gpuList": "2 3"}, "2", "cuda:0,1"), ({"gpuList": "1,5,6"}, "3", "cuda:0,1,2"),
    ({"gpuList": "0 1", "useGpu": False}, "0", "cpu")])
def test_a_job_gets_the_gpus_and_threads_of_the_form(project, slurm, monkeypatch, choices, count, device):
    protocol, asked, script = submitted(project, slurm, ProtSwiftres, numberOfThreads=6, **choices)
    assert (asked["gres"], asked["cpus-per-task"], asked["ntasks"]) == (f"gpu:{count}", "6", "1")
    assert (asked["partition"], asked["mem"], asked["time"]) == ("gpu", "32G", "2-00:00:00")
    assert script.startswith("#!/bin/bash\n") and "OMP_NUM_THREADS=6" in script and "%" not in script
    assert re.search(rf'pw_protocol_run.py "{project.path}" ".*run.db" {protocol.getObjId()} ', script)
    assert protocol.getJobIds() == [4711]
    # in the job, as Scipion starts it there
    monkeypatch.setattr(Plugin, "hasGpu", classmethod(lambda cls: True))
    protocol.setStepsExecutor(StepExecutor(slurm, gpuList=anonimizeGPUs(protocol.getGpuList())))
    assert protocol._computeOptions() == ["--device", device, "--threads", "6"]


def test_a_job_without_gpu_parameters_asks_for_none(project, slurm):
    _, asked, script = submitted(project, slurm, ProtSwiftresSimulate)
    assert asked["gres"] == "gpu:0" and asked["cpus-per-task"] == "1"


def test_a_finished_job_is_known_by_silence(slurm):
    assert slurm.getCheckCommand() % {"JOB_ID": 4711} == "squeue --noheader --jobs 4711"
    assert slurm.getCancelCommand() % {"JOB_ID": 4711} == "scancel 4711"


def test_a_step_with_a_job_of_its_own_is_waited_for_in_its_thread(project, slurm, monkeypatch):
    """Scipion asks that thread which step it is; whether there are GPUs is not asked here, where the job does not run."""
    protocol = project.newProtocol(ProtSwiftres, gpuList="0 1")
    protocol.setHostConfig(slurm)
    protocol._useQueue.set(True)
    protocol.setQueueParams(("gpu", {"QUEUE_FOR_JOBS": "Y"}))
    monkeypatch.setattr(Plugin, "hasGpu", classmethod(lambda cls: False))
    threads = []
    monkeypatch.setattr(protocol, "_runEngine", lambda _: threads.append(threading.current_thread()))
    protocol._runEngineWatched([], pytest.fail)
    assert threads == [threading.current_thread()]
    assert protocol._device() == "cuda:0,1"


# ---------------------------------------------------------------- a Slurm that is there

def partition():
    """A partition of the Slurm of this machine; empty where none answers."""
    if shutil.which("sinfo") is None:
        return ""
    answer = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True)
    return answer.stdout.split("\n")[0].strip() if answer.returncode == 0 else ""


@pytest.fixture
def real_slurm(tmp_path, monkeypatch):
    """A project whose host is the example file, with the name of a partition that there is."""
    there = partition()
    if not there:
        pytest.skip("no Slurm answers on this machine: nothing is sent to a real queue")
    hosts = tmp_path / "hosts.conf"
    hosts.write_text(EXAMPLE.read_text().replace('"gpu": [', f'"{there}": ['))
    monkeypatch.setattr(pw.Config, "SCIPION_HOSTS", str(hosts))
    monkeypatch.setenv("SCIPION_HOSTS", str(hosts))
    pw.Config.getDomain().findClass("ProtSwiftres")
    monkeypatch.chdir(tmp_path)
    project = Manager().createProject("queue", location=str(tmp_path))
    monkeypatch.chdir(project.path)
    return project, there


def send(real_slurm, protocol, by_steps):
    project, there = real_slurm
    protocol._useQueue.set(True)
    protocol.setQueueParams((there, {"JOB_MEMORY": "2", "JOB_TIME": "0-00:10:00", "QUEUE_FOR_JOBS": by_steps}))
    project.launchProtocol(protocol, wait=False)


def watch(real_slurm, protocol, until):
    """The protocol as it is stored, once `until(protocol)` or its end has come."""
    project, _ = real_slurm
    end = time.monotonic() + 300
    while protocol.isActive() and not until(protocol):
        assert time.monotonic() < end, Path(protocol.getStdoutLog()).read_text()[-2000:]
        time.sleep(1)
        project._updateProtocol(protocol)
    return project.getProtocol(protocol.getObjId())


@pytest.mark.slow
@pytest.mark.parametrize("by_steps", ["N", "Y"])
def test_jobs_of_a_real_slurm_give_outputs_and_are_cancelled_by_stop(real_slurm, by_steps):
    project, _ = real_slurm
    simulation = project.newProtocol(ProtSwiftresSimulate, source=FROM_DEMO, count=60, box=32, pixelSize=7.5)
    send(real_slurm, simulation, by_steps)
    simulation = watch(real_slurm, simulation, lambda _: False)
    assert simulation.isFinished(), simulation.getErrorMessage()

    def new_refinement():
        protocol = project.newProtocol(ProtSwiftres, useGpu=False, numberOfThreads=1, iterations=1)
        protocol.inputParticles.set(simulation)
        protocol.inputParticles.setExtended("outputParticles")
        protocol.inputVolumes.append(Pointer(simulation, extended="outputInitialVolume"))
        send(real_slurm, protocol, by_steps)
        return protocol

    refinement = watch(real_slurm, new_refinement(), lambda _: False)
    assert refinement.isFinished(), refinement.getErrorMessage()
    assert refinement.outputParticles.getSize() == 60 and refinement.outputVolume.hasHalfMaps()

    stopped = watch(real_slurm, new_refinement(), lambda p: Path(p._getRunPath(layout.PROGRESS)).exists())
    (job,) = stopped.getJobIds()
    assert str(job) in queued()
    project.stopProtocol(stopped)
    assert project.getProtocol(stopped.getObjId()).isAborted()
    end = time.monotonic() + 60
    while str(job) in queued():
        assert time.monotonic() < end, "the job goes on"
        time.sleep(1)


def queued():
    return subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True).stdout.split()
