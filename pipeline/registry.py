"""From a name or a URL's scheme to the component that bears it, imported on first use.

The components of Labelfeed itself stand in a table, so that an ordinary start reads no package metadata;
those of other distributions are found by their entry points (`labelfeed.stores` and its like).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module, metadata
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

from pipeline.config.addresses import blob_account
from pipeline.errors import UsageError

Kind = Literal["stores", "producers", "parsers", "buses", "sinks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "labelfeed."
"""An entry-point group is this and a kind."""
OURS = "labelfeed"
NOUNS: Mapping[Kind, str] = {
    "stores": "store", "producers": "producer", "parsers": "parser", "buses": "event log", "sinks": "sink",
}  # fmt: skip

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?=:)")


class Component(NamedTuple):
    """A registered component: `target` is `module:attribute`, `extra` what its library is installed with.

    `options` are the configuration's keys that it goes by, besides those that all of its kind obey.
    """

    kind: Kind
    name: str
    target: str
    extra: str | None = None
    options: tuple[str, ...] = ()
    distribution: str = OURS

    @property
    def module(self) -> str:
        """The module that it is in."""
        return self.target.partition(":")[0]


_ROWS = ("on_bad_row", "max_bad_rows")
_TEXT = ("encoding", *_ROWS)
_TABLE = (*_TEXT, "types", "na_values")
_LINK = ("as", "links", "ttl")
_HTTP = ("fetch", "http", "allow_private")

BUILT_IN: tuple[Component, ...] = (
    Component("stores", "file", "pipeline.stores.local:open_store", options=("settle",)),
    Component("stores", "import", "pipeline.stores.named:open_store"),
    Component("stores", "s3", "pipeline.stores.s3:open_store", "s3", ("endpoint", "notifications")),
    Component("stores", "gs", "pipeline.stores.gcs:open_store", "gcs", ("endpoint", "notifications")),
    Component("stores", "az", "pipeline.stores.azure:open_store", "azure", ("account", "endpoint", "notifications")),
    Component("stores", "redis", "pipeline.stores.redis:open_store", "redis", ("watch",)),
    Component("stores", "rediss", "pipeline.stores.redis:open_store", "redis", ("watch",)),
    Component("stores", "redis+stream", "pipeline.stores.redis:open_stream", "redis", ("watch",)),
    Component("stores", "rediss+stream", "pipeline.stores.redis:open_stream", "redis", ("watch",)),
    Component("stores", "redis+list", "pipeline.stores.redis:open_list", "redis", ("watch",)),
    Component("stores", "rediss+list", "pipeline.stores.redis:open_list", "redis", ("watch",)),
    Component("stores", "http", "pipeline.stores.http:open_store", "http", _HTTP),
    Component("stores", "https", "pipeline.stores.http:open_store", "http", _HTTP),
    Component("stores", "urls", "pipeline.stores.http:open_list", "http", (*_HTTP, "as", "settle")),
    Component("producers", "file", "pipeline.producers.local:LocalProducer", options=("watch", "settle")),
    Component("producers", "s3", "pipeline.producers.sqs:SqsProducer", "s3", ("watch", "notifications")),
    Component("producers", "gs", "pipeline.producers.pubsub:PubSubProducer", "gcs", ("watch", "notifications")),
    Component(
        "producers", "az", "pipeline.producers.storage_queue:StorageQueueProducer", "azure", ("watch", "notifications")
    ),
    Component("producers", "redis", "pipeline.producers.redis:RedisProducer", "redis", ("watch",)),
    Component("producers", "rediss", "pipeline.producers.redis:RedisProducer", "redis", ("watch",)),
    Component("producers", "http", "pipeline.producers.urls:UrlsProducer", "http", ("watch",)),
    Component("producers", "https", "pipeline.producers.urls:UrlsProducer", "http", ("watch",)),
    Component("producers", "urls", "pipeline.producers.urls:UrlsProducer", "http", ("watch", "settle")),
    Component("parsers", "json", "pipeline.parsers.json:parser", options=(*_TEXT, "preannotated_from_fields")),
    Component("parsers", "csv", "pipeline.parsers.csv:parser", options=(*_TABLE, "separator")),
    Component("parsers", "tsv", "pipeline.parsers.csv:tsv_parser", options=_TABLE),
    Component("parsers", "txt", "pipeline.parsers.text:parser", options=(*_TEXT, "blank_lines")),
    Component("parsers", "html", "pipeline.parsers.html:parser", options=(*_TEXT, "minify")),
    Component("parsers", "files", "pipeline.parsers.media:parser", options=_LINK),
    Component("parsers", "parquet", "pipeline.parsers.arrow:parser", "arrow", _ROWS),
    Component("parsers", "arrow", "pipeline.parsers.arrow:ipc_parser", "arrow", _ROWS),
    Component("buses", "embedded", "pipeline.bus.embedded:EmbeddedLog", options=("limits.retention",)),
    Component("buses", "kafka", "pipeline.bus.kafka:open_log", "kafka"),
    Component("sinks", "sqlite", "pipeline.sinks.sqlite:SqliteLedger"),
    Component("sinks", "postgresql", "pipeline.sinks.postgres:PostgresLedger", "postgres"),
    Component("sinks", "label_studio", "pipeline.sinks.label_studio:LabelStudioDelivery", "http"),
    Component("sinks", "jsonl", "pipeline.sinks.jsonl:JsonLinesDelivery"),
)

_BY_NAME: Mapping[tuple[str, str], Component] = {(row.kind, row.name): row for row in BUILT_IN}


def scheme(url: str) -> str:
    """The component's name that a URL asks for: its scheme, `file` for a path, the word itself for a word.

    One letter is no scheme but a drive. The https address of an Azure container is `az`.
    """
    if blob_account(url) is not None:
        return "az"
    found = _SCHEME.match(url)
    return found[0].lower() if found else "file"


def find(kind: Kind, name: str) -> Component:
    """The component of this name. Raises UsageError, with the nearest name, if there is none."""
    known = _BY_NAME.get((kind, name))
    if known is not None:
        return known
    foreign = {row.name: row for row in _entry_points(kind)}
    if name in foreign:
        return foreign[name]
    names = sorted({row.name for row in BUILT_IN if row.kind == kind} | set(foreign))
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
    raise UsageError(f"there is no {NOUNS[kind]} for {name!r} ({hint})")


def load(kind: Kind, name: str) -> Any:
    """What a component's target names, imported now.

    Raises:
        UsageError: there is no such component, or its library is not installed.
    """
    component = find(kind, name)
    module, _, attribute = component.target.partition(":")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if component.extra is None or missing.partition(".")[0] == "pipeline":
            raise
        raise UsageError(
            f'{NOUNS[kind]} {name!r} needs {missing}, which is not installed: pip install "{OURS}[{component.extra}]"'
        ) from error
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def components() -> list[Component]:
    """Every registered component, ours before those of others, by kind."""
    rows = [*BUILT_IN, *(row for kind in KINDS for row in _entry_points(kind) if (kind, row.name) not in _BY_NAME)]
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


def described(component: Component) -> tuple[str, str | None]:
    """A component's own first sentence, and what is missing for it, if anything is."""
    try:
        load(component.kind, component.name)
        module: ModuleType = import_module(component.module)
    except (UsageError, ImportError) as error:
        return "", str(error)
    return (module.__doc__ or "").strip().partition("\n")[0], None


def _entry_points(kind: Kind) -> Iterator[Component]:
    for point in metadata.entry_points(group=GROUP + kind):
        distribution = point.dist.name if point.dist is not None else ""
        extra = point.extras[0] if point.extras else None
        yield Component(kind, point.name, point.value.partition(" ")[0], extra, (), distribution)
