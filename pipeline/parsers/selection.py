"""Which parser reads an object: by the source's word, the labelling configuration, the key, the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import entry_points

from pipeline.errors import ObjectSkipped, UsageError
from pipeline.parsers import compression, csv, html, json, media, text
from pipeline.parsers.contract import Body, Kind, Parser, Rules
from pipeline.parsers.encoding import mark_of, read_up_to
from pipeline.tasks import Parsed

GROUP = "labelfeed.parsers"
"""The entry points by which other packages add parsers; they say what `extensions` they take."""
_HINT = "if it is one of ours, say so: `format` on the source, or `labelfeed import --format csv`"
_HEAD_BYTES = 64 * 1024
CHOSEN_LIMIT = 100
"""Extensions of which is remembered which parser takes them."""

_FORMATS: dict[str, Parser] = {
    "json": json.parser,
    "csv": csv.parser,
    "tsv": csv.tsv_parser,
    "txt": text.parser,
    "html": html.parser,
}
_EXTENSIONS: dict[str, str] = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "txt",
    ".html": "html", ".htm": "html", ".xml": "html",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
_KINDS: dict[str, Kind] = {".txt": "text", ".html": "html", ".htm": "html", ".xml": "html"}


def select(key: str, rules: Rules, content_head: bytes | None = None) -> Parser:
    """The parser for the object of a key; the first bytes help only where the key has no extension.

    Raises:
        ObjectSkipped: `unsupported_format`.
        UsageError: the parser needs an extra that is not installed.
    """
    stem, packed = _unpacked(_name(key))
    extension = _extension(stem)
    known = rules.chosen.get((extension, packed))
    if known is not None:
        return known
    parser = _select(extension, packed, rules, content_head)
    if extension and len(rules.chosen) < CHOSEN_LIMIT:
        rules.chosen[extension, packed] = parser
    return parser


def _select(extension: str, packed: str, rules: Rules, content_head: bytes | None) -> Parser:
    options = rules.options
    if options.as_ == "files" or options.format == "files":
        return media.PARSERS[_KINDS.get(extension) or media.EXTENSIONS.get(extension, "file")]
    form = options.format or _EXTENSIONS.get(extension)
    if form is None:
        kind = media.EXTENSIONS.get(extension)
        if kind is not None and not packed and options.as_ != "tasks":
            return media.PARSERS[kind]
        found = _other(extension) if extension else _sniffing(packed, content_head)
        if found is None:
            raise ObjectSkipped(
                "unsupported_format", f"no parser takes {extension + packed or 'this'} files", hint=_HINT
            )
    else:
        found = _by_reference(form, rules) if options.as_ != "tasks" else None
        if found is not None:
            return found
        found = _FORMATS.get(form) or _arrow(form)
    return Parser(found.name, found.version, partial(_inflating, packed, found)) if packed else found


def _name(key: str) -> str:
    """The file's own name in lower case; a key that is a URL may have a query behind it."""
    path = key.partition("?")[0] if key.startswith(("http://", "https://")) else key
    return path.rpartition("/")[2].lower()


def _unpacked(name: str) -> tuple[str, str]:
    stem, dot, last = name.rpartition(".")
    suffix = dot + last
    return (stem, suffix) if suffix in compression.SUFFIXES else (name, "")


def _extension(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    return dot + last if stem and last else ""


def _by_reference(form: str, rules: Rules) -> Parser | None:
    """The parser that refers to the file because the configuration wants it so."""
    config = rules.label_config
    if config is None:
        return None
    if form in ("csv", "tsv") and config.key_of("timeseries") is not None:
        return media.PARSERS["timeseries"]
    if form in ("txt", "html") and config.text_by_url:
        return media.PARSERS["text" if form == "txt" else "html"]
    return None


def _arrow(form: str) -> Parser:
    """The parser of Parquet or Arrow, which loads pyarrow."""
    try:
        module = import_module("pipeline.parsers.arrow")
    except ModuleNotFoundError:
        message = "Parquet and Arrow files need the extra `arrow`: pip install 'labelfeed[arrow]'"
        raise UsageError(message) from None
    found: Parser = module.PARSERS[form]
    return found


def _inflating(suffix: str, inner: Parser, body: Body, rules: Rules) -> Iterator[Parsed]:
    return inner.parse(compression.inflated(body, suffix, rules), rules)


@lru_cache(maxsize=1)
def _others() -> dict[str, Parser]:
    """The parsers of other packages, by extension."""
    found: dict[str, Parser] = {}
    for point in entry_points(group=GROUP):
        if not point.value.startswith("pipeline.parsers."):
            parser: Parser = point.load()
            found.update(dict.fromkeys(parser.extensions, parser))
    return found


def _other(extension: str) -> Parser | None:
    return _others().get(extension)


def _sniffing(packed: str, head: bytes | None) -> Parser | None:
    if head is None or packed:
        return SNIFFER
    return json.parser if _is_json(head) else None


def _sniff(body: Body, rules: Rules) -> Iterator[Parsed]:
    """JSON if the first sign that is no white space says so."""
    if body.content is not None:
        head = body.content[:_HEAD_BYTES]
    else:
        with body.open() as stream:
            head = read_up_to(stream, _HEAD_BYTES)
    if not _is_json(head):
        message = "it has no extension and does not begin like JSON"
        raise ObjectSkipped("unsupported_format", message, hint=_HINT)
    return json.parse(body, rules)


def _is_json(head: bytes) -> bool:
    length, encoding = mark_of(head)
    if encoding in (None, "utf-8"):
        first = head[length:].lstrip(b" \t\r\n")[:1]
        return first in (b"{", b"[")
    return head[length:].decode(encoding or "utf-8", "replace").lstrip(" \t\r\n")[:1] in ("{", "[")


SNIFFER = Parser("json", json.parser.version, _sniff)
"""Reads an object whose key has no extension."""
