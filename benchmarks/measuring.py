"""How a figure is taken: contender and raw loop in turn, each in a fresh process, the median of the ratios."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.app import App
from pipeline.config import Config


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `ratio` is ours over raw in the sense that `unit` says; `target` is a bound for it;
    `spent` is each run's processor time in seconds, by who spent it."""

    name: str
    unit: str
    ours: float
    raw: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    runs: Sequence[Any] = field(default_factory=tuple)
    spent: Sequence[dict[str, float]] = field(default_factory=tuple)

    def document(self) -> dict[str, Any]:
        """The figure as JSON says it."""
        return asdict(self)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for made files, on the disk that LABELFEED_BENCH_DIR names, else the system's."""
    return tempfile.TemporaryDirectory(prefix="labelfeed-bench-", dir=os.environ.get("LABELFEED_BENCH_DIR"))


def tell(text: str) -> None:
    """Say on standard error how far a long measurement is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def in_process(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module arguments…` in a fresh process; it prints one JSON document last."""
    # Modules that are imported on the way are compiled once, as they are for everybody, and not in each round.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def answer(**values: object) -> None:
    """What a measured process says, with its peak memory in MB and its processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"peak_mb": peak_mb(), "cpu": usage.ru_utime + usage.ru_stime, **values}))


def peak_mb() -> float:
    """Peak memory of this program alone: what `getrusage` says counts the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def interleaved(
    rounds: int, ours: Callable[[], float], raw: Callable[[], float]
) -> tuple[float, float, float, list[Any]]:
    """Rates of both in turn: the median of ours, of raw, of the ratios, and each round."""
    pairs = []
    for _ in range(rounds):
        first = raw()
        pairs.append((ours(), first))
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
        pairs,
    )


def config_for(folder: Path, database: Path, **source: object) -> Config:
    """A configuration of one local source in the embedded setting."""
    return Config.model_validate({
        "database": f"sqlite:///{database}",
        "projects": {"bench": {}},
        "sources": [{"name": "bench", "project": "bench", "url": str(folder), "settle": 0, **source}],
    })  # fmt: skip


def import_once(config: Config) -> tuple[float, int]:
    """Seconds and tasks of one `--once` run, from the opening of the installation to its end."""
    begun = time.perf_counter()
    with App.open(config) as app:
        ended = app.run_once(lambda _: None)
        seconds = time.perf_counter() - begun
    failed = sum(progress.failed for progress in ended)
    if failed:
        raise RuntimeError(f"{failed} objects failed")
    return seconds, sum(progress.tasks for progress in ended)
