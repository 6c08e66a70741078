"""Running a parser to its end, with the body whole in memory or in reads as short as a test likes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pipeline.config import ParseOptions
from pipeline.labelconfig import LabelConfig
from pipeline.parsers import Body, Limits, Rules, select
from pipeline.parsers.contract import Level
from pipeline.tasks import ROW_CODES, RejectedRow, Task


class ShortReads(io.BytesIO):
    """A stream that gives fewer bytes than it is asked for, in the pattern of `sizes`."""

    def __init__(self, content: bytes, sizes: Sequence[int]) -> None:
        super().__init__(content)
        self._sizes = list(sizes) or [1]
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """At most the next size of the pattern."""
        allowed = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        return super().read(allowed if size is None or size < 0 else min(size, allowed))


@dataclass
class Result:
    """All that a file became."""

    tasks: list[Task] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    blank: int = 0
    restarts: int = 0

    @property
    def data(self) -> list[Any]:
        """The tasks' data, read back."""
        return [json.loads(task.data) for task in self.tasks]

    @property
    def codes(self) -> list[str]:
        """Why rows were rejected, in their order."""
        return [row.code for row in self.rejected]


def rules(
    config: str | None = None,
    level: Level | None = None,
    limits: Limits | None = None,
    link: Callable[[str], str] | None = None,
    direct: bool = False,
    **options: Any,
) -> Rules:
    """Rules from the words of a configuration file."""
    parsed = LabelConfig.parse(config) if config else None
    return Rules.of(ParseOptions(**options), parsed, level, link, direct=direct, limits=limits)


def read(key: str, content: bytes | str, given: Rules | None = None, sizes: Sequence[int] | None = None) -> Result:
    """Parse to the end; `sizes` are those of the reads, without them the body is whole in memory."""
    given = given or rules()
    data = content.encode() if isinstance(content, str) else content
    body = Body(key, f"s3://bucket/{key}", len(data), data)
    if sizes is not None:
        body = Body(key, f"s3://bucket/{key}", len(data), None, lambda: cast("BinaryIO", ShortReads(data, sizes)))
    result = Result()
    for piece in select(key, given).parse(body, given):
        if piece.restart:
            result = Result(restarts=result.restarts + 1)
        assert len(piece.tasks) + len(piece.rejected) <= 1000
        assert all(isinstance(task, Task) for task in piece.tasks)
        assert {row.code for row in piece.rejected} <= ROW_CODES
        result.tasks += piece.tasks
        result.rejected += piece.rejected
        result.blank += piece.blank
    return result


def both(key: str, content: bytes | str, given: Rules | None = None) -> Result:
    """What a file becomes, which must not depend on how it is read."""
    result = read(key, content, given)
    for sizes in ([1], [2, 3], [7], [64, 1]):
        streamed = read(key, content, given, sizes)
        assert (streamed.tasks, streamed.rejected, streamed.blank) == (result.tasks, result.rejected, result.blank)
    return result
