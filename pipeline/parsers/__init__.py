"""What a file becomes. A parser turns bytes into tasks and rejected rows, streamed and in bounded memory.

A parser is a function: `parse(body, rules) -> Iterator[Parsed]`. It yields bounded pieces in the file's
order (about `PIECE_TASKS` tasks or `PIECE_BYTES`, whichever comes first) and says what it cannot take by
raising `ObjectFailed` or `ObjectSkipped`; nothing else may leave it, whatever the bytes. It knows no
database, no queue and no store; it may open the body more than once, and each time gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO


PIECE_TASKS = 1000
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one version of one object.

    `content` is all of it where it is small enough to be in memory already, else None and `reopen` gives
    a new stream from the first byte, of the same version; it may raise RetriableError or ObjectGone.
    `uri` is canonical and holds no secret.
    """

    key: str
    uri: str
    size: int | None = None
    content: bytes | None = None
    reopen: Callable[[], BinaryIO] | None = None

    def open(self) -> BinaryIO:
        """A stream of the body's bytes from the first one; the caller closes it."""
        if self.content is not None:
            return BytesIO(self.content)
        if self.reopen is None:
            raise ValueError("a body needs content or reopen")
        return self.reopen()
