"""What all parsers share: the body they read, the rules they obey, the shape of a parser itself."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, Literal, NamedTuple

from pipeline.config import ParseOptions
from pipeline.errors import ConfigError
from pipeline.labelconfig import LabelConfig
from pipeline.tasks import Parsed, Task

PIECE_TASKS = 1000
PIECE_BYTES = 1024 * 1024

ITEM_BYTES = 16 * 1024 * 1024
"""The largest JSON item, text line, CSV cell or HTML file; a larger one is `too_large`."""
INFLATE_RATIO = 200
"""A compressed stream may not grow more than this many times ..."""
INFLATE_FREE_BYTES = 64 * 1024 * 1024
"""... once this much has come out of it."""
INFLATE_BYTES = 20 * 1024**3
"""No compressed stream gives more than this."""
BATCH_BYTES = 512 * 1024**2
"""What a compressed record batch of Arrow and the dictionaries before it may take; they are in memory as a whole."""
MAX_DEPTH = 512
"""Objects and lists of one item that may lie within each other."""

Level = Literal["structure", "config", "strict"]
Kind = Literal["text", "html", "image", "audio", "video", "document", "timeseries", "file"]
"""What an object without keys of its own is; it decides the data key that it goes under."""


class Body(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds, in bytes, that keep a hostile file from taking the machine. Named as the constants above."""

    item_bytes: int = ITEM_BYTES
    inflate_ratio: int = INFLATE_RATIO
    inflate_free_bytes: int = INFLATE_FREE_BYTES
    inflate_bytes: int = INFLATE_BYTES
    batch_bytes: int = BATCH_BYTES


class BadRow(Exception):
    """A row that cannot become a task. It never leaves the parsers. `code` is one of `tasks.ROW_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Rules:
    """All that decides what a file becomes, besides its bytes. Made once for each source by `of`.

    `check` says why a task's data does not fit the labelling configuration, as (code, message), or None;
    it is None itself where nothing is to be checked. `link` gives the text by which a task refers to the
    object of a key; without it that text is the body's URI.
    """

    options: ParseOptions
    label_config: LabelConfig | None = None
    level: Level = "structure"
    link: Callable[[str], str] | None = None
    minify: bool = False
    limits: Limits = field(default_factory=Limits)
    check: Callable[[dict[str, Any]], tuple[str, str] | None] | None = None
    undefined_key: str | None = None
    """What the placeholder `$undefined$` in incoming data is renamed to."""
    chosen: dict[tuple[str, str], Parser] = field(default_factory=dict, compare=False, repr=False)
    """Parsers that were chosen already, by extension and packing."""

    @classmethod
    def of(
        cls,
        options: ParseOptions,
        label_config: LabelConfig | None = None,
        validate: Level | None = None,
        link: Callable[[str], str] | None = None,
        direct: bool = False,  # noqa: FBT001, FBT002 - the last one, and given by its name
        limits: Limits | None = None,
    ) -> Rules:
        """The rules of a source. `direct` is an import by hand, for which HTML is minified by default.

        Raises:
            ConfigError: the encoding is unknown, the separator cannot be one, or `preannotated_from_fields`
                names what is no control of the configuration.
        """
        if options.encoding is not None:
            check_encoding(options.encoding)
        if options.separator in _NO_SEPARATORS:
            raise ConfigError(f"{options.separator!r} cannot separate cells", path="separator")
        level: Level = validate or ("config" if label_config else "structure")
        _check_preannotated(options, label_config)
        keys = label_config.data_keys if label_config else ()
        return cls(
            options=options,
            label_config=label_config,
            level=level,
            link=link,
            minify=direct if options.minify is None else options.minify,
            limits=limits or Limits(),
            check=label_config.check if label_config and level != "structure" else None,
            undefined_key=keys[0] if keys else None,
        )

    def data_key(self, kind: Kind) -> str:
        """The key that a text, a body or a reference of this kind goes under.

        Raises:
            BadRow: `several_keys`, where the configuration has several and none is of the kind.
        """
        keys = self.label_config.data_keys if self.label_config else ()
        if self.label_config is None or not keys:
            return _DEFAULT_KEYS.get(kind, kind)
        own = self.label_config.key_of(kind)
        if own is not None:
            return own
        if len(keys) == 1:
            return keys[0]
        raise BadRow(
            "several_keys", f"the configuration has the keys {', '.join(keys)}, and none of them is made for this kind"
        )

    def reference(self, body: Body) -> str:
        """The text by which a task refers to the body's object."""
        return self.link(body.key) if self.link is not None else body.uri


_NO_SEPARATORS = frozenset({'"', "\r", "\n"})
_DEFAULT_KEYS: dict[str, str] = {"timeseries": "document", "file": "document"}


def check_encoding(name: str) -> str:
    """The codec's own name of an encoding.

    Raises:
        ConfigError: there is none that gives text.
    """
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        raise ConfigError(f"{name!r} is no encoding that is known here", path="encoding") from None
    if not getattr(codec, "_is_text_encoding", True) or codec.incrementaldecoder is None:
        raise ConfigError(f"{name!r} does not turn bytes into text", path="encoding")
    return codec.name


def _check_preannotated(options: ParseOptions, label_config: LabelConfig | None) -> None:
    for name in options.preannotated_from_fields:
        if label_config is None or label_config.control(name) is None:
            raise ConfigError(
                f"preannotated_from_fields names {name!r}, which no control of the labelling configuration is called",
                path="preannotated_from_fields",
            )


Plain = Callable[[Sequence[bytes], "Rules"], list[Task] | None]
"""Gives the tasks of small files that hold one ordinary item each, all at once; None if one of them needs a closer
look, which it may say of anything. What it gives is what `Parser.parse` gives, file by file."""


@dataclass(frozen=True, slots=True)
class Parser:
    """A way to read one kind of file.

    `version` is part of the hash of what shaped an import: raise it when the same bytes give other tasks.
    `reads` is False where the task only refers to the object, so that its bytes need not be fetched.
    `extensions` (lower case, with the dot) are those that a parser from another package takes.
    """

    name: str
    version: int
    parse: Callable[[Body, Rules], Iterator[Parsed]]
    reads: bool = True
    extensions: tuple[str, ...] = ()
    plain: Plain | None = None
