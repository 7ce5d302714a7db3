"""Firefox, driven over WebDriver BiDi."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
needs_firefox = pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed")
POLL_S = 0.2


class Page:
    """A page of Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._count = connection, 0
        self._call("session.new", capabilities={})
        self._context = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of its promise, by way of JSON."""
        answer = self._call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(JSON.stringify)",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def wait(self, expression: str, longest_s: float) -> None:
        """Wait until an expression is true. Fails after `longest_s`."""
        end_s = time.monotonic() + longest_s
        while not self.evaluate(expression):
            assert time.monotonic() < end_s, f"{expression}: {self.evaluate('document.body.innerText')}"
            time.sleep(POLL_S)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while (answer := json.loads(self._connection.recv())).get("id") != self._count:
            pass  # an event
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result


@contextmanager
def firefox() -> Iterator[Page]:
    """Run Firefox without a window, with a profile of its own."""
    assert FIREFOX is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [FIREFOX, "--headless", "--remote-debugging-port", "0", "--profile", profile, "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                found = (re.search(r"BiDi listening on (ws://\S+)", line) for line in process.stderr)
                address = next(filter(None, found))[1]
                with connect(f"{address}/session", max_size=None) as connection:
                    yield Page(connection)
            finally:
                process.terminate()
