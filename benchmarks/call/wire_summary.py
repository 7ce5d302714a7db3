"""Summaries of `bench wire`: averages over clips and seeds, and the tables it prints."""

import json
from typing import Any

import numpy as np
from rich.table import Table

from iwcodec.benchmarks.call.participants import FPS
from iwcodec.benchmarks.call.simulated_call import SCENARIOS
from iwcodec.codec.cli import console


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


def show(call: dict[str, Any]) -> None:
    """Print the results of one clip."""
    if "steady" in call:
        table = Table(title=f"{call['clip']}: one direction of a steady call at {FPS} frames/s", title_justify="left")
        table.add_column("layer")
        table.add_column("kbps", justify="right")
        for layer, kbps in call["steady"]["kbps"].items():
            table.add_row(layer.replace("_", ", "), f"{kbps:.2f}")
        console.print(table)
    rows = {name: result for name, result in call.items() if isinstance(result, dict) and "psnr_db" in result}
    if rows:
        table = Table(title=f"{call['clip']}: paths", title_justify="left")
        for heading in ("", "dB", "p50 ms", "p95 ms", "frames/s", "longest freeze s", "first picture s", "recovery s"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, r in rows.items():
            back = f"{r['back_after_s']:.2f}" if "back_after_s" in r else ""
            table.add_row(
                name,
                f"{r['psnr_db']:.2f}",
                f"{r['delay_ms']['p50']:.0f}",
                f"{r['delay_ms']['p95']:.0f}",
                f"{r['frames_shown_per_s']:.1f}",
                f"{r['longest_hold_s']:.2f}",
                f"{r['first_picture_s']:.2f}",
                back,
            )
        console.print(table)
    for name in ("loopback", "shaped", "shaped, simulated", "namespaces"):
        if name in call:
            console.print(name, json.dumps(call[name]))


def show_averages(means: dict[str, Any]) -> None:
    """Print the averages over clips and seeds."""
    table = Table(title="all clips and seeds, mean ± standard deviation", title_justify="left")
    for heading in ("", "dB", "dB to no loss", "at equal sources", "p50 ms", "p95 ms", "frames/s", "kbps"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, of in means.items():
        columns = ("psnr_db", "delay_ms_p50", "delay_ms_p95", "frames_shown_per_s", "kbps")
        db, *others = (f"{of[key]['mean']:.2f} ± {of[key]['sd']:.2f}" if key in of else "" for key in columns)
        costs = (of.get(f"{key}_to_no_loss") for key in ("psnr_db", "psnr_db_at_equal_sources"))
        table.add_row(name, db, *("" if cost is None else f"{cost['mean']:+.2f}" for cost in costs), *others)
    if means:
        console.print(table)
