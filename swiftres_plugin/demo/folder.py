"""Where the demonstration puts what. Standard library only."""
from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftres_plugin.errors import InputError

STATE = "demo.json"


@dataclass(frozen=True)
class DemoFolder:
    """The output folder and the names in it."""

    root: Path

    @property
    def data(self) -> Path:
        """Written by `swiftres simulate`: particles, true map and poses, starting map, mask."""
        return self.root / "data"

    @property
    def refined(self) -> Path:
        """Written by `swiftres refine`."""
        return self.root / "refine"

    @property
    def judged(self) -> Path:
        """Comparisons with the truth."""
        return self.root / "truth"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def scipion(self) -> Path:
        """SCIPION_HOME of the project; the project stands below it."""
        return self.root / "scipion"

    @property
    def opener(self) -> Path:
        """The script that opens the Scipion project."""
        return self.root / "open_project.sh"

    @property
    def summary(self) -> Path:
        return self.root / "summary.txt"

    @property
    def state(self) -> Path:
        """What was asked and found; also tells that this folder is a demonstration's."""
        return self.root / STATE

    def prepare(self) -> None:
        """Make the folder; one that an unfinished demonstration left is emptied first.

        Raises `InputError` when it holds anything else.
        """
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            if self._finished() is not False:
                raise InputError("this folder is in use", where=self.root, remedy=(
                    f"Remove it (rm -r {self.root}) or choose another one: --output DIR, or make demo OUTPUT=DIR."))
            shutil.rmtree(self.root)
        for folder in (self.root, self.judged, self.pictures):
            folder.mkdir(parents=True, exist_ok=True)
        self.save({"finished": False})

    def save(self, facts: dict[str, Any]) -> None:
        """Write `facts`, which have the switch `finished`."""
        self.state.write_text(json.dumps(facts, indent=1))

    def _finished(self) -> bool | None:
        """Whether the demonstration in the folder was finished; None when there is none."""
        try:
            return bool(json.loads(self.state.read_text())["finished"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
