"""Filling in a protocol and running it, as a user does."""
from __future__ import annotations

from pathlib import Path


def new(project, kind, label="", **choices):
    """A protocol on one thread of the processor; pointers are chosen as (protocol, name of its output)."""
    protocol = project.newProtocol(kind, **{name: value for name, value in choices.items() if not isinstance(value, tuple)})
    for name, value in (("useGpu", False), ("numberOfThreads", 1)):
        if protocol.hasAttribute(name):
            getattr(protocol, name).set(value)
    if label:
        protocol.setObjLabel(label)
    for name, value in choices.items():
        if isinstance(value, tuple):
            getattr(protocol, name).set(value[0])
            getattr(protocol, name).setExtended(value[1])
    return protocol


def launch(project, protocol):
    problems = protocol.validate()
    assert problems == [], problems
    project.launchProtocol(protocol, wait=True)
    log = Path(protocol.getStdoutLog())
    assert protocol.isFinished(), f"{protocol.getErrorMessage()}\n{log.read_text()[-3000:] if log.exists() else ''}"
    return protocol
