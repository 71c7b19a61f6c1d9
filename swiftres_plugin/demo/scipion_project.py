"""The demonstration in Scipion: a project with the particles and the starting map imported, and refined by ProtSwiftres.

A child process of the demonstration, because Scipion reads its variables when it is first imported. It sees the Scipion
wing and not the engine.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swiftres_plugin import layout

PROJECT = "swiftres_demo"
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
DATA, HOSTS_FILE = "data", "hosts.conf"  # below the folder that is SCIPION_HOME
RUN_LINK = "run"  # a link beside them to what the engine wrote
PAUSE_S = 0.5
MAGNIFICATION = 50000  # Scipion wants one; nothing depends on it


def scipion_problem() -> str:
    """Why the project cannot be made with this Python; empty when it can."""
    missing = [name for name in ("pyworkflow", "pwem", "tkinter") if find_spec(name) is None]
    if missing:
        return f"this Python ({sys.version_info.major}.{sys.version_info.minor}) has no {', '.join(missing)}"
    if not any(entry.name == "swiftres_plugin" for entry in entry_points(group="pyworkflow.plugin")):
        return "the plugin is not installed, so Scipion does not find it (pip install -e .)"
    return ""


def environment(home: str) -> dict[str, str]:
    """What Scipion needs to know without its launcher, for a project below the folder `home`."""
    return {
        "SCIPION_HOME": home, "SCIPION_USER_DATA": f"{home}/{DATA}", "SCIPION_HOSTS": f"{home}/{HOSTS_FILE}",
        "SCIPION_DOMAIN": "pwem", "SCIPION_PYTHON": sys.executable, "SCIPION_NOTIFY": "False",
        "SCIPION_CANCEL_XMIPP_BINDING_WARNING": "True"}


def opener(home_name: str) -> str:
    """A shell script that opens the project; it finds the folder `home_name` beside itself."""
    variables = environment(f"$here/{home_name}")
    exports = "\n".join(f"export {name}={_word(value)}" for name, value in variables.items())
    return f"""#!/bin/sh
# Opens the Scipion project of the swiftres demonstration.
here=$(cd "$(dirname "$0")" && pwd)
{exports}
if [ -z "$DISPLAY" ]; then
    echo "Scipion opens windows: run this where there is a display (or log in with ssh -X)." >&2
    exit 1
fi
exec "$SCIPION_PYTHON" -O -m pyworkflow.apps.pw_project {PROJECT}
"""


def _word(value: str) -> str:
    """Quoted for the shell, a leading $here left to be replaced."""
    return f'"{value}"' if value.startswith("$here/") else shlex.quote(value)


def prepare_home(home: Path) -> None:
    """Folders and the hosts file that Scipion expects."""
    (home / DATA / "projects").mkdir(parents=True)
    (home / HOSTS_FILE).write_text(HOSTS)


def main() -> None:
    """Make and run the project."""
    parser = argparse.ArgumentParser(description="The Scipion part of the swiftres demonstration.")
    parser.add_argument("--data", type=Path, required=True, help="folder written by 'swiftres simulate'")
    parser.add_argument("--home", type=Path, required=True, help="new folder for SCIPION_HOME")
    parser.add_argument("--pixel-size", type=float, required=True)
    parser.add_argument("--initial-resolution", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    data, home = args.data.resolve(), args.home.resolve()
    prepare_home(home)
    os.environ.update(environment(str(home)))
    project = new_project()
    imported = import_data(project, data, home, args.pixel_size)
    refined = refine(project, *imported, initialResolution=args.initial_resolution, seed=args.seed)
    (home / RUN_LINK).symlink_to(os.path.relpath(Path(project.path, refined._getRunPath()), home))
    for line in refined.summary():
        say(line.replace("*", ""))


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def new_project() -> Any:
    """A new project; the process then works in it, because paths of Scipion are relative to the project."""
    import pyworkflow
    from pyworkflow.project import Manager
    project = Manager().createProject(PROJECT)
    os.chdir(project.path)
    if pyworkflow.Config.getDomain().findClass("ProtSwiftres") is None:
        sys.exit("Scipion does not find the protocol ProtSwiftres; its messages above say why.")
    return project


def import_data(project: Any, data: Path, home: Path, pixel_size_a: float) -> tuple[Any, Any]:
    """The import protocols of the particles and of the starting map, finished."""
    from pwem.protocols import ProtImportParticles, ProtImportVolumes
    sqlite = home / "particles.sqlite"
    write_set(data / "particles.star", sqlite, pixel_size_a)
    particles = project.newProtocol(
        ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_SCIPION, sqliteFile=str(sqlite),
        samplingRate=pixel_size_a, magnification=MAGNIFICATION)
    volume = project.newProtocol(ProtImportVolumes, filesPath=str(data / "initial_map.mrc"), samplingRate=pixel_size_a)
    return launch(project, particles, "import particles"), launch(project, volume, "import starting map")


def refine(project: Any, particles: Any, volume: Any, **choices: Any) -> Any:
    """The protocol `swiftres`, finished."""
    import pyworkflow
    from pyworkflow.object import Pointer
    protocol = project.newProtocol(
        pyworkflow.Config.getDomain().findClass("ProtSwiftres"), numberOfThreads=os.cpu_count() or 1, **choices)
    protocol.inputParticles.set(particles)
    protocol.inputParticles.setExtended("outputParticles")
    protocol.inputVolumes.append(Pointer(volume, extended="outputVolume"))
    problems = protocol.validate()
    if problems:
        sys.exit("\n".join(problems))
    project.saveProtocol(protocol)  # gives it its folder
    with telling(Path(protocol._getRunPath(layout.PROGRESS))):
        return launch(project, protocol, "swiftres")


def launch(project: Any, protocol: Any, label: str) -> Any:
    """Run a protocol to its end; ends the process when it fails."""
    say(f"protocol '{protocol.getClassLabel()}': {label}")
    protocol.setObjLabel(label)
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        sys.exit(f"The protocol '{label}' failed: {protocol.getErrorMessage()} (log: {protocol.getStdoutLog()})")
    return protocol


@contextlib.contextmanager
def telling(progress: Path) -> Iterator[None]:
    """Say the messages that the engine writes to its progress file while the block runs."""
    ended = threading.Event()
    listener = threading.Thread(target=_follow, args=(progress, ended))
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


def _follow(progress: Path, ended: threading.Event) -> None:
    seen, last_look = 0, False
    while not last_look:
        last_look = ended.wait(PAUSE_S)
        texts = list(messages(progress))
        for text in texts[seen:]:
            say(text)
        seen = len(texts)


def messages(progress: Path) -> Iterator[str]:
    """What the engine told a person so far, from whole lines of its progress file."""
    try:
        lines = progress.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return
    for line in lines:
        if line.endswith("\n"):
            entry = json.loads(line)
            text = entry.get("message") or entry.get("warning")
            if text:
                yield text


def write_set(star: Path, sqlite: Path, pixel_size_a: float) -> None:
    """A Scipion set of the simulated particles, with CTF and without poses, for pwem's import."""
    from emtable import Table
    from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles
    (optics,) = Table.iterRows(f"optics@{star}", guessType=False)
    acquisition = Acquisition(magnification=MAGNIFICATION, voltage=float(optics.rlnVoltage),
                              sphericalAberration=float(optics.rlnSphericalAberration),
                              amplitudeContrast=float(optics.rlnAmplitudeContrast))
    particles = SetOfParticles(filename=str(sqlite))
    particles.setSamplingRate(pixel_size_a)
    particles.setAcquisition(acquisition)
    particles.setHasCTF(True)
    for row in Table.iterRows(f"particles@{star}", guessType=False):
        index, stack = row.rlnImageName.split("@")
        particle, ctf = Particle(), CTFModel()
        particle.setLocation(int(index), str(star.parent / stack))
        ctf.setStandardDefocus(float(row.rlnDefocusU), float(row.rlnDefocusV), float(row.rlnDefocusAngle))
        particle.setCTF(ctf)
        particle.setAcquisition(acquisition)
        particles.append(particle)
    particles.write()
    particles.close()


if __name__ == "__main__":
    main()
