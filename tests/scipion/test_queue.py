"""Through a queue: what a job asks for, and what the engine is told in it, are what the form says."""
import re
import stat
from pathlib import Path

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pyworkflow.protocol import HostConfig, StepExecutor, launch  # noqa: E402
from pyworkflow.protocol.protocol import anonimizeGPUs  # noqa: E402

from swiftres_plugin.plugin import Plugin  # noqa: E402
from swiftres_plugin.protocols import ProtSwiftres, ProtSwiftresSimulate  # noqa: E402

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
