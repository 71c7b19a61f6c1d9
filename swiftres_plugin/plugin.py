"""What Scipion asks of a plugin, and the command line that starts the engine. Nothing heavy is imported here."""
from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import pwem
import pyworkflow.utils as pwutils
from pyworkflow.plugin import VarTypes

import swiftres_plugin
from swiftres_plugin.constants import ENGINE_MODULES, ENV_ACTIVATION

PACKAGE_FOLDER = os.path.dirname(os.path.abspath(swiftres_plugin.__file__))


class Plugin(pwem.Plugin):
    """The engine runs as a child process, in Scipion's own Python or in another environment."""

    _url = ""
    _supportedVersions = [swiftres_plugin.__version__]
    _processingField = ["SPA"]

    def getName(self) -> str:
        return "swiftres_plugin"

    def getPath(self) -> str:
        return PACKAGE_FOLDER

    @classmethod
    def _defineVariables(cls) -> None:
        cls._defineVar(
            ENV_ACTIVATION, "", var_type=VarTypes.STRING,
            description="Command that activates the environment in which the swiftres engine is installed, for example "
                        "'source /opt/swiftres/bin/activate'. Empty: the engine runs with Scipion's own Python.")

    @classmethod
    def getActiveVersion(cls, *args, **kwargs) -> str:
        return swiftres_plugin.__version__

    @classmethod
    def getActivation(cls) -> str:
        return (cls.getVar(ENV_ACTIVATION) or "").strip()

    @classmethod
    def validateInstallation(cls) -> list[str]:
        """Problems of the installation; quick, because the project window asks it for every protocol it lists."""
        if cls.getActivation():
            return []
        missing = [name for name in ENGINE_MODULES if find_spec(name) is None]
        if not missing:
            return []
        return [f"swiftres needs {', '.join(missing)}, which this Python ({sys.executable}) does not have.",
                "Install with: pip install scipion-em-swiftres",
                f"or set {ENV_ACTIVATION} to the command that activates an environment which has the engine."]

    @classmethod
    def getEnviron(cls) -> pwutils.Environ:
        """The environment of the child process."""
        environ = pwutils.Environ(os.environ)
        if cls.getActivation():  # another Python must not see the modules of this one
            environ.pop("PYTHONPATH", None)
            environ.pop("PYTHONHOME", None)
        elif not os.path.isdir(os.path.join(PACKAGE_FOLDER, "protocols")):  # a checkout that may not be installed
            environ.set("PYTHONPATH", os.path.dirname(PACKAGE_FOLDER), position=pwutils.Environ.BEGIN)
        return environ

    @classmethod
    def getEngineCommand(cls, arguments: Sequence[str]) -> tuple[str, str]:
        """(program, arguments) for `runJob`, quoted for the shell."""
        quoted = " ".join(shlex.quote(str(argument)) for argument in arguments)
        module = f"-m swiftres_plugin.engine {quoted}"
        if cls.getActivation():
            return f"{cls.getActivation()} && python", module
        return shlex.quote(sys.executable), module

    @classmethod
    def hasGpu(cls) -> bool:
        """Whether this machine has an NVIDIA driver; asked without importing torch."""
        return shutil.which("nvidia-smi") is not None

    @classmethod
    def defineBinaries(cls, env) -> None:
        """Everything is installed by pip."""
