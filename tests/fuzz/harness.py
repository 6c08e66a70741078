"""What holds for any bytes at all, as one function that a fuzzer calls with what it thinks of.

The first six bytes of an input choose how its rest is read (`Choice`); the rest is a file, or a labelling
configuration. Whatever breaks here is an error of ours, and is kept as a file in `corpus/`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from pipeline.config import ParseOptions
from pipeline.errors import ConfigError, ObjectFailed, ObjectSkipped
from pipeline.labelconfig import LabelConfig
from pipeline.parsers import Body, Limits, Rules, select
from pipeline.tasks import ROW_CODES, RejectedRow, Task

CHOICE_BYTES = 6
PIECE_ROWS = 1000
"""A piece holds no more tasks and rejected rows than this."""
STEPS = 2_000_000
"""Reads that one input may cost before it counts as endless."""

NAMES = (
    "a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt", "a.html", "a", "a.parquet", "a.arrow",
    "a.json.gz", "a.csv.bz2", "a.txt.zst", "a.xml",
)  # fmt: skip
CONFIGS = (
    None,
    '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>',
    '<View><Paragraphs name="p" value="$turns" nameKey="a" textKey="b"/></View>',
    '<View><TimeSeries name="s" value="$series"/></View>',
    '<View><Image name="i" value="$image"/><Text name="t" value="$a.b"/></View>',
    '<View><Repeater on="$xs" indexFlag="{{i}}"><Text name="t{{i}}" value="$xs[{{i}}].b"/></Repeater></View>',
    '<View><HyperText name="h" value="$html" encoding="base64"/></View>',
)
LIMITS = (Limits(), Limits(item_bytes=64), Limits(item_bytes=7, inflate_free_bytes=4096, inflate_ratio=10))
SIZES = (None, (1,), (2, 5), (64, 1), (1000,))
ENCODINGS = (None, None, None, "utf-16", "latin-1", "cp932", "utf-8")


class Choice(NamedTuple):
    """How an input is read."""

    name: str
    config: str | None
    level: str | None
    limits: Limits
    sizes: tuple[int, ...] | None
    options: dict[str, object]

    @classmethod
    def of(cls, head: bytes) -> Choice:
        """What six bytes choose; the same bytes always the same."""
        name, config, limits, sizes, encoding, flags = head
        options: dict[str, object] = {"encoding": ENCODINGS[encoding % len(ENCODINGS)]}
        if flags & 1:
            options["types"] = "text"
        if flags & 2:
            options["blank_lines"] = "keep"
        if flags & 4:
            options["na_values"] = ("NA", "")
        if flags & 8:
            options["separator"] = ";"
        return cls(
            NAMES[name % len(NAMES)],
            CONFIGS[config % len(CONFIGS)],
            "strict" if flags & 16 and config % len(CONFIGS) else None,
            LIMITS[limits % len(LIMITS)],
            SIZES[sizes % len(SIZES)],
            options,
        )


class Reads(io.BytesIO):
    """Gives at most so many bytes a read, in turn; too many reads are an endless loop."""

    def __init__(self, content: bytes, sizes: tuple[int, ...]) -> None:
        super().__init__(content)
        self._sizes = sizes
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """At most the next size."""
        allowed = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        assert self._reads < STEPS, "it reads without an end"
        return super().read(allowed if size is None or size < 0 else min(size, allowed))


Told = tuple[list[Task], list[RejectedRow], int] | tuple[str, str]
"""What a file became: tasks, rejected rows and blank lines, or how it ended without them."""


def one(data: bytes) -> None:
    """Hold one input against everything that is promised for any bytes. AssertionError, or whatever escapes."""
    if len(data) <= CHOICE_BYTES:
        return
    choice, content = Choice.of(data[:CHOICE_BYTES]), data[CHOICE_BYTES:]
    if data[0] == 0xFF:
        configuration(content)
        return
    rules = _rules(choice)
    whole = told(choice.name, content, rules, None)
    if choice.sizes is not None:
        streamed = told(choice.name, content, rules, choice.sizes)
        assert streamed == whole or _unread(streamed, whole), "it depends on how it is read"


def _unread(streamed: Told, whole: Told) -> bool:
    """Whether the difference is only that a broken stream was not read to where it breaks: something else ended it."""
    if whole != ("ObjectFailed", "compressed"):
        return False
    return streamed[0] == "ObjectFailed" or [row.code for row in streamed[1] if isinstance(row, RejectedRow)] == [
        "several_keys"
    ]


def told(name: str, content: bytes, rules: Rules, sizes: tuple[int, ...] | None) -> Told:
    """What came of a file; only what a parser may raise is caught."""
    body = Body(name, f"s3://bucket/{name}", len(content), content)
    if sizes is not None:
        body = Body(name, body.uri, len(content), None, lambda: cast("BinaryIO", Reads(content, sizes)))
    tasks: list[Task] = []
    rejected: list[RejectedRow] = []
    blank = 0
    try:
        for piece in select(name, rules).parse(body, rules):
            if piece.restart:
                tasks, rejected, blank = [], [], 0
            assert len(piece.tasks) + len(piece.rejected) <= PIECE_ROWS
            tasks += piece.tasks
            rejected += piece.rejected
            blank += piece.blank
    except (ObjectFailed, ObjectSkipped) as error:
        return type(error).__name__, error.code
    _hold(tasks, rejected)
    return tasks, rejected, blank


def configuration(content: bytes) -> None:
    """Any text is a labelling configuration, or is refused in words; what it asks for can be given."""
    try:
        config = LabelConfig.parse(content.decode("utf-8", "replace"))
    except ConfigError:
        return
    assert config.feeds() is not None
    config.check(config.example())


def _rules(choice: Choice) -> Rules:
    config = LabelConfig.parse(choice.config) if choice.config else None
    level = "strict" if choice.level else None
    return Rules.of(ParseOptions(**choice.options), config, level, limits=choice.limits)  # type: ignore[arg-type]


def _hold(tasks: list[Task], rejected: list[RejectedRow]) -> None:
    for task in tasks:
        for part in _parts(task):
            assert isinstance(json.loads(part.encode()), dict | list)
            assert "\\u0000" not in part.replace("\\\\", "")
        assert json.loads(task.data)
    for row in rejected:
        assert row.code in ROW_CODES
        assert row.message
        assert "\0" not in row.excerpt + row.message
        assert (row.excerpt + row.message).encode()
    assert tasks or rejected, "a file that gives nothing says so"


def _parts(task: Task) -> Iterator[str]:
    yield from (part for part in task[1:6] if part is not None)
