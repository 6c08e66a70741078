"""Hypertext: one task a file, with the body as it is, or minified where it is imported by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from pipeline.parsers.charsets import declared, decode_windows
from pipeline.parsers.contract import BadRow, Body, Parser, Rules, check_encoding
from pipeline.parsers.encoding import decode, mark_of, read_up_to
from pipeline.parsers.items import plain_task, rejected
from pipeline.parsers.minifying import minified
from pipeline.tasks import EXCERPT_LIMIT, Parsed

_HEAD_BYTES = 1024


def parse(body: Body, rules: Rules) -> Iterator[Parsed]:
    """The task of a hypertext file; see the parsers' package for what may be raised."""
    limit = rules.limits.item_bytes
    content = body.content
    if content is None:
        with body.open() as stream:
            content = read_up_to(stream, limit + 1)
    text = ""
    try:
        _check_size(content, limit)
        text = text_of(content, rules.options.encoding)
        key = rules.data_key("html")
        value = minified(text) if rules.minify else text
        if rules.label_config is not None and key in rules.label_config.base64_keys:
            value = base64.b64encode(value.encode()).decode()
        yield Parsed([plain_task({key: value}, 1, rules)])
    except BadRow as bad:
        yield Parsed([], [rejected(bad, 1, None, None, text[:EXCERPT_LIMIT])])


def _check_size(content: bytes, limit: int) -> None:
    if len(content) > limit:
        raise BadRow("too_large", f"the file is larger than {limit} bytes")


def text_of(content: bytes, encoding: str | None) -> str:
    """The text of a hypertext file, without its byte order mark.

    By the given encoding, else the mark, else what the file declares of itself, else UTF-8.

    Raises:
        ObjectFailed: `encoding`.
    """
    length, marked = mark_of(content)
    if encoding is not None:
        return decode(content, check_encoding(encoding)).removeprefix("\ufeff")
    if marked is not None:
        return decode(content[length:], marked, length)
    codec = declared(content[:_HEAD_BYTES]) or "utf-8"
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        text = decode_windows(content, codec)
        return decode(content, codec) if text is None else text


parser = Parser("html", 1, parse)
