"""swiftres: 3D refinement of single particles by vector search, for Scipion and the command line.

Importing this package imports nothing heavy. `Plugin` (what Scipion asks for) is loaded on demand, so that the engine
never needs Scipion and Scipion's discovery never imports torch.
"""
import os

__version__ = "0.1.0"
_logo = "logo.png"
_references = ["SwiftresThesis2023"]

if not os.path.isdir(os.path.join(__path__[0], "protocols")):  # source checkout: protocols/ and viewers/ lie beside us
    __path__.append(os.path.dirname(__path__[0]))


def __getattr__(name):
    if name == "Plugin":
        from swiftres_plugin.plugin import Plugin
        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
