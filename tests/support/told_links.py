"""A call that remembers what a recorder asks of it."""

from typing import Any


class Told:
    """In place of a call."""

    def __init__(self) -> None:
        self.linked: list[Any] = []
        self.watchers: list[Any] = []
        self.notes: list[str] = []
        self.participants: dict[str, Any] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)
