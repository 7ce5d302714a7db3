"""Inputs and outputs of a command that takes one or several files."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.spool import STANDARD, is_stream
from iwcodec.codec.terminal import as_dictionary, console, fail, show_json


def jobs(sources: Sequence[str], target: str, suffix: str) -> list[tuple[str, str]]:
    """Pairs of input and output: of several inputs, or if the target is a folder, one file in it for each input, with
    the input's name and this suffix. Raises CodecError."""
    folder = Path(target)
    if target == STANDARD or (len(sources) == 1 and not folder.is_dir()):
        if len(sources) > 1:
            raise CodecError("Several inputs cannot go to standard output; give a folder.")
        return [(sources[0], target)]
    if not folder.is_dir():
        if folder.exists():
            raise CodecError(f"{target} is not a folder; several inputs need one.")
        if len(sources) > 1 and folder.suffix.lower() == suffix:
            raise CodecError(f"Several inputs need a folder to write to, not {target}.")
        if not folder.absolute().parent.is_dir():
            raise CodecError(f"The folder {folder.absolute().parent} does not exist.")
    if STANDARD in sources:
        raise CodecError("Standard input has no name; give the name of the output file.")
    pairs = [(source, str(folder / (Path(source.rstrip("/")).stem + suffix))) for source in sources]
    repeated = [name for name, count in Counter(name for _, name in pairs).items() if count > 1]
    if repeated:
        raise CodecError(f"Several inputs would be written to {repeated[0]}.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CodecError(f"The folder {target} cannot be made: {error.strerror}.") from error
    return pairs


def run_jobs(pairs: Sequence[tuple[str, str]], work: Callable[[str, str], Any], as_json: bool) -> None:
    """Do the work for each pair. Of several, one that fails does not keep the others from being done, but makes the
    exit status 1."""
    if len(pairs) == 1:
        report = work(*pairs[0])
        if as_json:
            show_json(report, sys.stderr if is_stream(pairs[0][1]) else sys.stdout)
        return
    reports, failed = [], 0
    for source, target in pairs:
        try:
            reports.append({"input": source, "output": target, **as_dictionary(work(source, target))})
        except CodecError as error:
            failed += 1
            reports.append({"input": source, "error": str(error)})
            console.print(Text("error:", "red"), str(error), soft_wrap=True)
    if as_json:
        print(json.dumps(reports, indent=2))
    if failed:
        fail(f"{failed} of {len(pairs)} inputs failed.")


def shown_name(path: str) -> str:
    """The name of an input or output in a title."""
    return path if path == STANDARD else Path(path).name
