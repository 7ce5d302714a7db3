"""A stand-in for Call that records what a recorder does to it."""

from typing import Any


class RecordedCall:
    def __init__(self) -> None:
        self.link_listeners: list[Any] = []
        self.frame_listeners: list[Any] = []
        self.notices: list[str] = []
        self.participants: dict[str, Any] = {}

    def notify(self, text: str) -> None:
        self.notices.append(text)
