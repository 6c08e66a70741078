"""What a file becomes. A parser turns bytes into tasks and rejected rows, streamed and in bounded memory.

`select` gives the parser for a key; its `parse(body, rules)` yields bounded pieces in the file's order
(about `PIECE_TASKS` tasks or `PIECE_BYTES`, whichever comes first) and says what it cannot take by raising
`ObjectFailed` or `ObjectSkipped`; nothing else may leave it, whatever the bytes, but what `Body.open` and
its stream raise, and UsageError where an extra is missing. It knows no database, no queue and no store; it
may open the body more than once, and each time gets the same bytes.
"""

from __future__ import annotations

from pipeline.parsers.contract import (
    ITEM_BYTES,
    PIECE_BYTES,
    PIECE_TASKS,
    Body,
    Limits,
    Parser,
    Plain,
    Rules,
)
from pipeline.parsers.selection import select

__all__ = ["ITEM_BYTES", "PIECE_BYTES", "PIECE_TASKS", "Body", "Limits", "Parser", "Plain", "Rules", "select"]
