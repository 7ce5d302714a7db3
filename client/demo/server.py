"""A signalling server as a child process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from iwcodec.codec.errors import CodecError

STOP_TIMEOUT_S: Final = 30.0
"""Maximum time for the server to stop."""


@contextmanager
def local_server() -> Iterator[str]:
    """Run `iwcodec serve` on a free port of the loopback interface and yield its address.

    Raises CodecError, with the server's output, if it does not start.
    """
    command = [sys.executable, "-m", "iwcodec", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        output = []
        for line in process.stderr:
            output.append(line.strip())
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
                yield str(entry["address"])
                return
        raise CodecError(f"The server did not start: {' '.join(output)}")
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        if process.stderr:
            process.stderr.close()
