"""Task JSON: an object, a list of them, several one after the other or in a sequence, in UTF-8 or marked UTF-16/32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import orjson

from pipeline.errors import ObjectSkipped
from pipeline.parsers.contract import PIECE_TASKS, BadRow, Body, Parser, Rules
from pipeline.parsers.encoding import BLOCK_BYTES, Window
from pipeline.parsers.items import Doubt, Exact, exact_dump, fast_dump, rejected, task_of, tasks_of
from pipeline.parsers.jsonlines import LinesReader
from pipeline.parsers.jsonlist import ListReader
from pipeline.parsers.jsonseq import SEPARATOR, SequenceReader
from pipeline.parsers.media import reference_piece
from pipeline.tasks import Parsed, Task

_SPACE = b" \t\r\n"


def parse(body: Body, rules: Rules) -> Iterator[Parsed]:
    """The tasks of a JSON file; see the parsers' package for what may be raised."""
    content = body.content
    if content is not None and len(content) <= rules.limits.item_bytes:
        piece = _small(content, rules)
        if piece is not None:
            yield piece
            return
    window = Window(body, rules)
    try:
        yield from _streamed(body, window, rules)
    finally:
        window.close()


def _small(content: bytes, rules: Rules) -> Parsed | None:
    """The piece of a small and entirely ordinary file; None where a closer look is needed."""
    if rules.options.encoding is not None or content[:1] not in (b"{", b"["):
        return None
    config = rules.label_config
    if config is not None and (config.dialogue is not None or config.key_of("timeseries") is not None):
        return None
    try:
        value = orjson.loads(content)
        if value.__class__ is dict:
            return Parsed([task_of(value, 1, rules, fast_dump)])
        if not value or len(value) > PIECE_TASKS:
            return None
        tasks = tasks_of(value, range(1, len(value) + 1), rules)
        if tasks is None:
            tasks = [task_of(item, row, rules, fast_dump) for row, item in enumerate(value, 1)]
    except (orjson.JSONDecodeError, BadRow, Doubt):
        return None
    return Parsed(tasks)


def plain(contents: Sequence[bytes], rules: Rules) -> list[Task] | None:
    """As `Plain`."""
    config = rules.label_config
    if rules.options.encoding is not None or max(map(len, contents)) > rules.limits.item_bytes:
        return None
    if config is not None and (config.dialogue is not None or config.key_of("timeseries") is not None):
        return None
    try:
        values = list(map(orjson.loads, contents))
    except orjson.JSONDecodeError:
        return None
    return tasks_of(values, repeat(1), rules)


def _streamed(body: Body, window: Window, rules: Rules) -> Iterator[Parsed]:
    """The pieces of a file of any size."""
    _to_first_sign(window, min(BLOCK_BYTES, rules.limits.item_bytes))
    found = _special(body, window, rules)
    if found is not None:
        yield found
        return
    empty = True
    for piece in _reader(window, rules).pieces():
        empty = False
        yield piece
    if empty:
        raise ObjectSkipped("no_tasks", "the file holds no item")


def _reader(window: Window, rules: Rules) -> ListReader | LinesReader | SequenceReader:
    first = window.data[:1]
    if first == b"[":
        return ListReader(window, rules)
    return SequenceReader(window, rules) if first == SEPARATOR else LinesReader(window, rules)


def _to_first_sign(window: Window, block: int) -> None:
    while True:
        window.more(block)
        window.drop(len(window.data) - len(window.data.lstrip(_SPACE)))
        if window.data or window.final:
            return


def _special(body: Body, window: Window, rules: Rules) -> Parsed | None:
    """The piece of a file that the configuration makes one task of: a time series or a dialogue."""
    config = rules.label_config
    if config is None:
        return None
    series = config.key_of("timeseries") if rules.options.as_ != "tasks" else None
    dialogue = config.dialogue
    first = window.data[:1]
    if not (series is not None and first == b"{") and not (dialogue is not None and first == b"["):
        return None
    window.more(rules.limits.item_bytes)
    value = _whole(window.text()) if window.final else None
    if first == b"{" and series is not None:
        return reference_piece(body, "timeseries", rules) if _is_columns(value, series) else None
    if dialogue is not None and _is_dialogue(value, dialogue.name_key, dialogue.text_key):
        return _one({"data": {dialogue.key: value}}, rules)
    return None


def _one(item: dict[str, Any], rules: Rules) -> Parsed:
    try:
        return Parsed([task_of(item, 1, rules, exact_dump)])
    except BadRow as bad:
        return Parsed([], [rejected(bad, 1, 1, 1, "")])


def _whole(text: str) -> Any:
    try:
        value, end, bad = Exact().read(text)
    except (ValueError, RecursionError):
        return None
    return value if bad is None and not text[end:].strip() else None


def _is_columns(value: Any, own_key: str) -> bool:
    if not isinstance(value, dict) or not value or "data" in value or own_key in value:
        return False
    if not all(isinstance(column, list) for column in value.values()):
        return False
    return len({len(column) for column in value.values()}) == 1


def _is_dialogue(value: Any, name_key: str, text_key: str) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and "data" not in v and name_key in v and text_key in v for v in value)
    )


parser = Parser("json", 1, parse, plain=plain)
