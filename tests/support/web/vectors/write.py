"""What the Python side makes of packets, files, motion, pictures and calls, as JSON for the tests of the browser's
modules.

`python -m support.web.vectors.write FOLDER`, in `tests/`, writes it for `npm test`, which reads the folder that
IWCODEC_VECTORS names.
"""

import json
import sys
from pathlib import Path

import numpy as np

from support.web.vectors import (
    bitstream,
    messages,
    motion,
    network,
    pictures,
    receiving,
    refining,
    regions,
    sending,
    sources,
)

SUBJECTS = (bitstream, messages, motion, network, pictures, receiving, refining, regions, sending, sources)


def write(folder: Path) -> None:
    """Write a file of plain values for each subject; bytes are in base64."""
    for subject in SUBJECTS:
        name = subject.__name__.rpartition(".")[2]
        values = subject.vectors(np.random.default_rng(11))
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
