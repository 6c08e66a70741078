"""Plain text: one task a line. Lines end at LF, CRLF or CR, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import orjson

from pipeline.errors import ObjectSkipped
from pipeline.parsers.columns import is_clean
from pipeline.parsers.contract import PIECE_TASKS, BadRow, Body, Limits, Parser, Rules
from pipeline.parsers.encoding import BLOCK_BYTES, TextReader
from pipeline.parsers.items import plain_task, plain_tasks, rejected, text_tasks
from pipeline.tasks import EXCERPT_LIMIT, Parsed, RejectedRow, Task


def lines_of(reader: TextReader, limits: Limits) -> Iterator[list[str | None]]:
    """The lines of a text without their ends, in lists; None stands for one that is too large.

    The last newline starts no line.
    """
    block, limit = min(BLOCK_BYTES, limits.item_bytes), limits.item_bytes
    held: list[str] = []
    size, lost, carried = 0, False, False
    while text := reader.read(block):
        body = "\r" + text if carried else text
        carried = body.endswith("\r")
        body = body[:-1] if carried else body
        if "\r" in body:
            body = body.replace("\r\n", "\n").replace("\r", "\n")
        if "\n" in body:
            lines: list[str | None] = list(("".join(held) + body).split("\n"))
            body = lines.pop() or ""
            if lost:
                lines[0] = None
            held, size, lost = [], 0, False
            yield [None if line is not None and len(line) > limit else line for line in lines]
        size += len(body)
        lost = lost or size > limit
        held = [] if lost else [*held, body]
    if lost or size or carried:
        yield [None if lost else "".join(held)]


def parse(body: Body, rules: Rules) -> Iterator[Parsed]:
    """The tasks of a text file; see the parsers' package for what may be raised."""
    try:
        key = rules.data_key("text")
    except BadRow as bad:
        yield Parsed([], [rejected(bad, 1, None, None, "")])
        return
    row, empty = 1, True
    with body.open() as stream:
        for lines in lines_of(TextReader(stream, rules.options.encoding), rules.limits):
            for start in range(0, len(lines), PIECE_TASKS):
                piece = _piece(lines[start : start + PIECE_TASKS], row + start, key, rules)
                empty = empty and not piece.tasks and not piece.rejected
                yield piece
            row += len(lines)
    if empty:
        raise ObjectSkipped("no_tasks", "the file holds no line that is not blank")


def _piece(lines: list[str | None], first: int, key: str, rules: Rules) -> Parsed:
    keep = rules.options.blank_lines == "keep"
    texts = _plain(lines, key, rules, keep=keep)
    if texts is not None:
        return Parsed(text_tasks(texts, range(first, first + len(lines))))
    numbered = [
        (row, line) for row, line in enumerate(lines, first) if line is None or keep or (line and not line.isspace())
    ]
    blank = len(lines) - len(numbered)
    whole = [(row, {key: line}) for row, line in numbered if line is not None]
    if len(whole) == len(numbered):
        tasks = plain_tasks([data for _, data in whole], [row for row, _ in whole], rules) if whole else []
        if tasks is not None:
            return Parsed(tasks, [], blank)
    outcomes = [_outcome(line, row, key, rules) for row, line in numbered]
    return Parsed(
        [outcome for outcome in outcomes if isinstance(outcome, Task)],
        [outcome for outcome in outcomes if isinstance(outcome, RejectedRow)],
        blank,
    )


def _plain(lines: Sequence[str | None], key: str, rules: Rules, *, keep: bool) -> list[str] | None:
    """The lines' tasks as JSON text, if not one of them needs to be looked at by itself."""
    if None in lines or (rules.check is not None and not _fits(key, rules)):
        return None
    whole = cast("Sequence[str]", lines)
    if not keep and ("" in whole or any(map(str.isspace, whole))):
        return None
    if not is_clean(whole):
        return None
    before = "{" + orjson.dumps(key).decode() + ':"'
    return [f'{before}{line}"}}' for line in whole]


def _fits(key: str, rules: Rules) -> bool:
    return rules.label_config is not None and rules.label_config.fits_types({key: frozenset({str})})


def _outcome(line: str | None, row: int, key: str, rules: Rules) -> Task | RejectedRow:
    try:
        if line is not None:
            return plain_task({key: line}, row, rules)
        bad = BadRow("too_large", f"the line is larger than {rules.limits.item_bytes} bytes")
    except BadRow as why:
        bad = why
    return rejected(bad, row, row, None, (line or "")[:EXCERPT_LIMIT])


parser = Parser("txt", 1, parse)
