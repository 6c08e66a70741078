"""`python -m benchmarks [NAME…]`: run, print a table, write JSON; exit 1 if a target is missed."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    clouds,
    csv_rows,
    distributed,
    fairness,
    label_studio,
    label_studio_s3,
    latency,
    local_files,
    memory,
    metrics_cost,
    million_keys,
    notified,
    parsing,
    redis_stream,
    scheduler,
    unchanged_pass,
)
from benchmarks.measuring import Figure

SUITE = {
    "local_files": local_files.measure,
    "csv_rows": csv_rows.measure,
    "parsing": parsing.measure,
    "unchanged_pass": unchanged_pass.measure,
    "memory": memory.measure,
    "latency": latency.measure,
    "fairness": fairness.measure,
    "metrics_cost": metrics_cost.measure,
}
SERVERS = {
    "million_keys": million_keys.measure,
    "s3_objects": distributed.measure_objects,
    "s3_csv": distributed.measure_csv,
    "s3_pass": distributed.measure_pass,
    "s3_scale": distributed.measure_scale,
    "notified": notified.measure,
    "scheduler": scheduler.measure,
    "redis_stream": redis_stream.measure,
    "azure_objects": clouds.measure_azure,
    "gcs_objects": clouds.measure_google,
    "label_studio": label_studio.measure,
    "label_studio_s3": label_studio_s3.measure,
}
"""What needs the real servers, or minutes, and is run by its name only."""
RESULTS = Path(__file__).parent / "results"

_MET = {True: "yes", False: "NO", None: ""}
"""What the table says of a target that is met, missed, or none."""


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all that need no server."""
    figures: list[Figure] = []
    for name in names or list(SUITE):
        found = (SUITE | SERVERS)[name]()
        figures += found
        RESULTS.mkdir(exist_ok=True)
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        document = {"at": time.time(), "machine": machine, "figures": [figure.document() for figure in found]}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2))
    table = Table("figure", "ours", "raw loop", "ratio", "target", "met")
    for figure in figures:
        raw = "" if figure.raw is None else f"{figure.raw:,.0f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(figure.name, f"{figure.ours:,.0f} {figure.unit}", raw, ratio, figure.target, _MET[figure.met])
    Console().print(table)
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
