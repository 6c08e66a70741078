"""Objects that become one task by reference: images, audio, video, documents, and whatever a source wants so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pipeline.parsers.contract import BadRow, Body, Kind, Parser, Rules
from pipeline.parsers.items import exact_dump, rejected, task_of
from pipeline.tasks import Parsed

EXTENSIONS: dict[str, Kind] = {
    ".bmp": "image", ".gif": "image", ".jpg": "image", ".jpeg": "image", ".png": "image", ".svg": "image",
    ".webp": "image", ".flac": "audio", ".m4a": "audio", ".mp3": "audio", ".ogg": "audio", ".wav": "audio",
    ".mp4": "video", ".webm": "video", ".pdf": "document",
}  # fmt: skip


def reference_piece(body: Body, kind: Kind, rules: Rules) -> Parsed:
    """One task that refers to the object, or the rejected row that says why it cannot be one."""
    try:
        data = {rules.data_key(kind): rules.reference(body)}
        return Parsed([task_of({"data": data}, 1, rules, exact_dump)])
    except BadRow as bad:
        return Parsed([], [rejected(bad, 1, None, None, body.uri)])


def _parse(body: Body, rules: Rules, kind: Kind) -> Iterator[Parsed]:
    yield reference_piece(body, kind, rules)


def _of(kind: Kind) -> Parser:
    return Parser(kind, 1, partial(_parse, kind=kind), reads=False)


PARSERS: dict[Kind, Parser] = {
    kind: _of(kind) for kind in ("text", "html", "image", "audio", "video", "document", "timeseries", "file")
}
"""The parser that refers to objects of a kind."""

parser = PARSERS["file"]
