"""`swiftres doctor`: what is installed, what work can run on, and whether a small refinement comes out right."""
from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

from swiftres_plugin import __version__

NAME = "doctor"
HELP = "say what is installed and which devices there are, and run a ten-second self-test"

OK, WARNING, FAILED = "OK", "WARNING", "FAILED"

# (distribution, module) and what is missing without it
REQUIRED = (
    ("numpy", "numpy"), ("scipy", "scipy"), ("torch", "torch"), ("mrcfile", "mrcfile"), ("healpix", "healpix"))
OPTIONAL = (
    ("gemmi", "gemmi", "'swiftres simulate' cannot read atomic models"),
    ("matplotlib", "matplotlib", "no pictures in the viewers and the demo"),
    ("scipion-em", "pwem", "no Scipion protocol; the command line works without"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    status: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.status:<8} {self.name:<11} {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="where the self-test runs: 'auto', 'cpu', 'cuda' or 'cuda:0,1' "
                        "(default: auto)")
    parser.add_argument("--no-self-test", action="store_true", help="only look, do not run the self-test")


def run(args: argparse.Namespace) -> int:
    usable = True
    for finding in findings(args):
        print(finding, flush=True)
        usable &= finding.status != FAILED
    print("swiftres is ready" if usable else "swiftres is not usable: see FAILED above")
    return 0 if usable else 1


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """The lines of the report, each as soon as it is known."""
    yield Finding(OK, "swiftres", __version__)
    yield Finding(OK, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    packages = [required(*names) for names in REQUIRED]
    yield from packages
    yield from (optional(*names) for names in OPTIONAL)
    if any(package.status == FAILED for package in packages):
        return
    yield faiss()
    yield processor()
    yield from gpus()
    if not args.no_self_test:
        yield self_test(args.device)


def required(distribution: str, module: str) -> Finding:
    """A package that nothing works without."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, AttributeError) as error:  # a broken build may fail in any of these ways
        return Finding(FAILED, distribution, f"cannot be imported: {error}. Install it again.")
    return Finding(OK, distribution, version(distribution, module))


def optional(distribution: str, module: str, without: str) -> Finding:
    """A package that only some things need; not imported, as some take seconds."""
    if importlib.util.find_spec(module) is None:
        return Finding(WARNING, distribution, f"not installed: {without}")
    return Finding(OK, distribution, version(distribution, module))


def version(distribution: str, module: str) -> str:
    """The version of a package, as its distribution or else its module says it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(module), "__version__", "unknown version"))


def faiss() -> Finding:
    from swiftres_plugin.engine.stages.index import faiss_problem
    problem = faiss_problem()
    if problem:
        return Finding(WARNING, "faiss", f"not usable ({problem}): references are searched with torch instead")
    build = importlib.import_module("faiss")
    return Finding(OK, "faiss", f"{build.__version__}, {getattr(build, 'get_num_gpus', int)()} GPUs")


def processor() -> Finding:
    from swiftres_plugin.engine.compute import free_host_bytes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(OK, "processor", f"{cores} cores, {free_host_bytes() / 1e9:.1f} GB of memory free")


def gpus() -> Iterator[Finding]:
    """One line for each GPU, or why there is none."""
    torch = importlib.import_module("torch")
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        yield Finding(OK, "GPU", "none: this torch is built for the processor only")
    elif not torch.cuda.is_available():
        yield Finding(WARNING, "GPU", "none that torch can use (no GPU, or its driver is older than "
                      f"CUDA {torch.version.cuda} wants): work runs on the processor")
    else:
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            yield Finding(OK, f"cuda:{number}", f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")


def self_test(device: str) -> Finding:
    """A small refinement with a known answer, on `device`. Raises `InputError` when there is no such device."""
    from swiftres_plugin.engine.compute import open_compute
    from swiftres_plugin.engine.selftest import run_self_test
    compute = open_compute(device)
    try:
        result = run_self_test(compute)
    except Exception as error:  # whatever it is, it is the finding
        return Finding(FAILED, "self-test", f"{type(error).__name__}: {error}")
    devices = ", ".join(str(device) for device in compute.devices)
    text = (f"on {devices}: poses within {result.angle_deg:.1f} degrees and {result.shift_a:.1f} A, map right to "
            f"{result.resolution_a:.1f} A, in {result.seconds:.1f} s")
    return Finding(OK if result.passed else FAILED, "self-test", text)
