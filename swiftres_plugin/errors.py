"""The errors a user can cause. Standard library only.

    SwiftresError
     +-- InputError   something given is wrong: what, where, found, expected, remedy
     +-- StateError   a saved run does not fit what is asked of it
"""
from __future__ import annotations


class SwiftresError(Exception):
    """Base of every error that is shown to the user as one line."""


class InputError(SwiftresError):
    """Something the user gave cannot be used.

    `what` is wrong at `where`; `found` this, `expected` that; `remedy` says what to do. All but `what` may be left out.
    """

    def __init__(self, what: str, *, where: object = "", found: object = "", expected: object = "", remedy: str = ""):
        self.what, self.where, self.found, self.expected, self.remedy = what, str(where), str(found), str(expected), remedy
        parts = [f"{self.where}: {what}" if self.where else what]
        if self.found:
            parts.append(f"found {self.found}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        text = "; ".join(parts)
        super().__init__(f"{text}. {remedy}" if remedy else text)


class StateError(SwiftresError):
    """A checkpoint or result folder does not fit what is asked."""
