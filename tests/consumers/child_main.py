"""A child process as the application starts it, over a test's own installation."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.consumers import reading
from pipeline.consumers.child import serve
from pipeline.consumers.importer import Importer
from pipeline.parsers import Parser
from pipeline.tasks import Parsed, Task
from tests.consumers.house import build, inbox

HOG: list[bytes] = []


def parse(body: Any, rules: Any) -> Iterator[Parsed]:
    """Do what the file's name says."""
    if "kill" in body.key:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in body.key:
        time.sleep(60)
    if "hog" in body.key:
        while True:
            HOG.append(b"x" * 10_000_000)
    yield Parsed([Task(1, f'"{body.key}"')])


@contextmanager
def installation(payload: Mapping[str, Any], worker: str, at: Callable[[int], None]) -> Iterator[Importer]:
    """An importer in the folder that the payload names."""
    house = build(Path(payload["folder"]), [inbox()], alive=False)
    reading.select = lambda *_: Parser("child", 1, parse)
    sys.stdout.write("stray output does no harm\n")
    yield house.importer(at=at)
    house.ledger.close()


if __name__ == "__main__":
    serve(installation)
