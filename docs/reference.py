"""Writes what the pages in this folder say of the code, between their markers, from the code itself.

`make docs` runs it; `python docs/reference.py --check` says what is not current and exits 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from pipeline.bus.kafka.options import KafkaOptions
from pipeline.cli import app
from pipeline.config.reference import default
from pipeline.config.reference import page as configuration
from pipeline.logs import NAMES
from pipeline.metrics import PREFIX, TABLE
from pipeline.stores.s3.options import S3Options

FOLDER = Path(__file__).parent
WIDTH = 100
MARKED = re.compile(r"(<!-- made of the code: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def verbs() -> str:
    """Every verb's own help."""
    root = typer.main.get_command(app)
    return "\n\n".join(f"## {name}\n\n```\n{text}\n```" for name, text in _helps(root, "labelfeed")) + "\n"


def _helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    for word, inner in command.commands.items():
        if hasattr(inner, "commands"):
            if len(inner.params) > 1:
                yield word, inner.get_help(_context(inner, f"{name} {word}"))
            yield from _helps(inner, f"{name} {word}")
        else:
            page = inner.get_help(_context(inner, f"{name} {word}"))
            yield f"{name.removeprefix('labelfeed')} {word}".strip(), page


def _context(command: Any, name: str) -> Any:
    return command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH)


def metrics() -> str:
    """Every metric of the table."""
    rows = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{PREFIX}{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help} |"
        for row in TABLE
    ]
    return "\n".join(rows) + "\n"


def logs() -> str:
    """Every event of the log."""
    rows = ["| event | says |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in NAMES.items())]
    return "\n".join(rows) + "\n"


def options(model: type[BaseModel], *left_out: str) -> str:
    """Every option of a URL, without what stands before its question mark."""
    rows = ["| option | default | means |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name not in left_out:
            rows.append(f"| `{name}` | {default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "verbs": verbs,
    "metrics": metrics,
    "logs": logs,
    "s3": partial(options, S3Options, "bucket", "prefix", "endpoint"),
    "kafka": partial(options, KafkaOptions, "bootstrap", "topic"),
}


def current(text: str) -> str:
    """A page with all its made parts as they should be."""
    return MARKED.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}", text)


def main() -> int:
    """Write or check the pages; gives the exit code."""
    stale = [page for page in sorted(FOLDER.glob("*.md")) if current(page.read_text()) != page.read_text()]
    for page in stale:
        if "--check" in sys.argv:
            print(f"{page.name} is not current; make docs")
        else:
            page.write_text(current(page.read_text()))
            print(page.name)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
