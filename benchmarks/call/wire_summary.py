"""Summaries of `bench wire`: averages over clips and seeds, and the tables it prints."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table

from iwcodec.benchmarks.call.participants import FPS
from iwcodec.benchmarks.call.simulated_call import SCENARIOS
from iwcodec.benchmarks.experiment import text_table


def averages(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """By scenario: mean and standard deviation of each figure over clips and seeds.

    `*_to_no_loss` is the mean difference in dB from the same clip without loss, and its standard error over clips.
    """
    out: dict[str, Any] = {}
    for name in SCENARIOS:
        runs = [run for call in calls if name in call for run in call[name].get("runs", [call[name]])]
        if not runs:
            continue
        flat = [{**run, **{f"delay_ms_{share}": ms for share, ms in run["delay_ms"].items()}} for run in runs]
        keys = [key for key in flat[0] if isinstance(flat[0][key], float)]
        values = {key: [run[key] for run in flat] for key in keys}
        out[name] = {key: {"mean": float(np.mean(v)), "sd": float(np.std(v))} for key, v in values.items()}
        for key in ("psnr_db", "psnr_db_at_equal_sources"):
            costs = [
                np.mean([run[key] - call["no loss"]["psnr_db"] for run in call[name].get("runs", [call[name]])])
                for call in calls
                if name in call and "no loss" in call and key in keys
            ]
            if costs:
                error = float(np.std(costs, ddof=1) / np.sqrt(len(costs))) if len(costs) > 1 else None
                out[name][f"{key}_to_no_loss"] = {"mean": float(np.mean(costs)), "standard_error": error}
    steady_kbps = [call["steady"]["kbps"]["total"] for call in calls if "steady" in call]
    if steady_kbps:
        out["steady"] = {"kbps": {"mean": float(np.mean(steady_kbps)), "sd": float(np.std(steady_kbps))}}
    return out


def call_tables(call: dict[str, Any]) -> Iterator[Table]:
    """The results of one clip."""
    if "steady" in call:
        title = f"{call['clip']}: one direction of a steady call at {FPS} frames/s"
        layers = call["steady"]["kbps"].items()
        yield text_table(title, ("layer", "kbps"), ((name.replace("_", ", "), f"{kbps:.2f}") for name, kbps in layers))
    paths = {name: result for name, result in call.items() if isinstance(result, dict) and "psnr_db" in result}
    if paths:
        rows = (
            [
                name,
                f"{r['psnr_db']:.2f}",
                *(f"{r['delay_ms'][share]:.0f}" for share in ("p50", "p95")),
                f"{r['frames_shown_per_s']:.1f}",
                *(f"{r[key]:.2f}" if key in r else "" for key in ("longest_hold_s", "first_picture_s", "back_after_s")),
            ]
            for name, r in paths.items()
        )
        headings = ("", "dB", "p50 ms", "p95 ms", "frames/s", "longest freeze s", "first picture s", "recovery s")
        yield text_table(f"{call['clip']}: paths", headings, rows)
    others = [name for name in ("loopback", "namespaces") if name in call]
    if others:
        yield text_table(f"{call['clip']}: others", ("", "result"), ((name, json.dumps(call[name])) for name in others))


def averages_table(result: dict[str, Any]) -> Table:
    """Averages over clips and seeds."""
    columns, rows = ("psnr_db", "delay_ms_p50", "delay_ms_p95", "frames_shown_per_s", "kbps"), []
    for name, of in result["averages"].items():
        db, *others = (f"{of[key]['mean']:.2f} ± {of[key]['sd']:.2f}" if key in of else "" for key in columns)
        costs = (of.get(f"{key}_to_no_loss") for key in ("psnr_db", "psnr_db_at_equal_sources"))
        rows.append([name, db, *("" if cost is None else f"{cost['mean']:+.2f}" for cost in costs), *others])
    headings = ("", "dB", "dB to no loss", "at equal sources", "p50 ms", "p95 ms", "frames/s", "kbps")
    return text_table("all clips and seeds, mean ± standard deviation", headings, rows)
