"""Running a protocol as a user does."""
from __future__ import annotations

from pathlib import Path


def launch(project, protocol):
    problems = protocol.validate()
    assert problems == [], problems
    project.launchProtocol(protocol, wait=True)
    log = Path(protocol.getStdoutLog())
    assert protocol.isFinished(), f"{protocol.getErrorMessage()}\n{log.read_text()[-3000:] if log.exists() else ''}"
    return protocol
