"""The parts of an installation, opened: each is what one word of the configuration names."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline import registry
from pipeline.app.serving.tokens import Links
from pipeline.bus import EventLog
from pipeline.config import Config, Source
from pipeline.errors import ConfigError, UsageError
from pipeline.labelconfig import LabelConfig
from pipeline.ledger import Ledger
from pipeline.ledger.deliveries import DeliveryRow
from pipeline.notifications import Route, Target
from pipeline.parsers import Rules
from pipeline.parsers.fingerprint import versions
from pipeline.stores import Store
from pipeline.stores.scope import Scope
from pipeline.stores.within import within

EMBEDDED = "embedded"
SQLITE = "sqlite"
DIRECT = "direct-"
"""The event log of an import by hand is its own, and is called this and a number."""
EVENTS_FILE = "labelfeed-events.db"
"""Where the embedded event log is kept beside a database that is no SQLite file."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One source, ready to be read: its configuration, its store, its rules, and a hash of what shapes its tasks.

    `source_id` is its row in the ledger, 0 where it has none yet.
    """

    source: Source
    store: Store
    rules: Rules
    scope: Scope
    shape: str
    source_id: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """The database, the event log, and the deliveries that the database knows of the configuration."""

    ledger: Ledger
    log: EventLog
    deliveries: Sequence[DeliveryRow] = ()


def open_feed(config: Config, source: Source, *, direct: bool = False, store: Store | None = None) -> Feed:
    """A source's rules, and its store, unless that is open. Raises UsageError where its words can't be followed."""
    project = config.projects[source.project]
    label_config = _label_config(source.project, project.label_config) if project.label_config else None
    store = store or registry.load("stores", component_of(source))(source, config.folder)
    options = source
    if getattr(store, "by_reference", False):
        options = source.model_copy(update={"as_": "files", "format": None})
    rules = Rules.of(options, label_config, project.validate_, _link(config, source, store), direct)
    shape = hashlib.blake2b(f"{source.shape_hash(project)} {versions()}".encode(), digest_size=8).hexdigest()
    scope = Scope.of(source)
    return Feed(source, within(store, scope), rules, scope, shape)


def component_of(source: Source) -> str:
    """The name of the store and the producer of a source: its URL's scheme, or `urls` for a list of URLs."""
    return "urls" if source.as_ == "urls" else registry.scheme(source.url)


def _link(config: Config, source: Source, store: Store) -> Callable[[str], str] | None:
    """How tasks refer to a source's objects; None for their URIs."""
    if source.links == "signed":
        return lambda key: store.sign(key, source.ttl)
    if source.links == "durable" and config.links is not None:
        return partial(Links(config.links).url, source.name)
    return getattr(store, "reference", None)


def _label_config(project: str, xml: str) -> LabelConfig:
    try:
        return LabelConfig.parse(xml)
    except ConfigError as error:
        raise ConfigError(error.message, path=f"projects.{project}.label_config", hint=error.hint) from None


def direct_log(data: Data, stack: ExitStack) -> Data:
    """The same database with an event log for one import by hand, so that it neither takes nor leaves events of
    a run that is at work."""
    from pipeline.bus.embedded import EmbeddedLog  # noqa: PLC0415 - loaded when it is needed
    from pipeline.sqlitefile import SqliteFile  # noqa: PLC0415

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="labelfeed-"))
    file = SqliteFile(Path(folder) / EVENTS_FILE)
    stack.callback(file.close)
    log = EmbeddedLog(file, DIRECT + uuid.uuid4().hex)
    log.create()
    stack.callback(data.ledger.forget_log, log.name)
    return Data(data.ledger, log)


def nowhere(_bucket: str, _key: str) -> Sequence[Target]:
    """The route of a log that nobody reads here."""
    return ()


def open_data(config: Config, stack: ExitStack, route: Route = nowhere, *, readonly: bool) -> Data:
    """The database and the event log, closed when the stack is. Raises UsageError and UnavailableError."""
    name = registry.scheme(config.database)
    if name == SQLITE:
        return _open_sqlite(config, stack, route, readonly=readonly)
    ledger: Ledger = registry.load("sinks", name)(config.database, workers=config.limits.workers)
    stack.callback(ledger.close)
    if not readonly:
        ledger.migrate()
    elif not ledger.made():
        return _nothing_yet(stack)
    return Data(ledger, _open_log(config, stack, route, config.folder / EVENTS_FILE))


def _nothing_yet(stack: ExitStack) -> Data:
    """What is asked before anything has run is answered from an empty ledger, which leaves nothing behind."""
    from pipeline.sinks.sqlite import SqliteLedger  # noqa: PLC0415 - loaded when it is named
    from pipeline.sqlitefile import SqliteFile  # noqa: PLC0415

    file = SqliteFile(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelfeed-"))) / EVENTS_FILE)
    ledger = SqliteLedger(file)
    stack.callback(ledger.close)
    ledger.migrate()
    return Data(ledger, _embedded_log(file, readonly=False))


def _open_sqlite(config: Config, stack: ExitStack, route: Route, *, readonly: bool) -> Data:
    path = sqlite_path(config)
    if readonly and not path.exists():
        return _nothing_yet(stack)
    from pipeline.sinks.sqlite import SqliteLedger  # noqa: PLC0415 - loaded when it is named
    from pipeline.sqlitefile import SqliteFile  # noqa: PLC0415

    file = SqliteFile(path, readonly=readonly)
    ledger = SqliteLedger(file)
    stack.callback(ledger.close)
    if not readonly:
        ledger.migrate()
    elif not ledger.made():
        return _nothing_yet(stack)
    if config.events != EMBEDDED:
        return Data(ledger, _open_log(config, stack, route, path))
    return Data(ledger, _embedded_log(file, readonly=readonly))


def _embedded_log(file: object, *, readonly: bool) -> EventLog:
    log = registry.load("buses", EMBEDDED)(file)
    if not readonly:
        log.create()
    opened: EventLog = log
    return opened


def _open_log(config: Config, stack: ExitStack, route: Route, path: Path) -> EventLog:
    if config.events == EMBEDDED:
        from pipeline.sqlitefile import SqliteFile  # noqa: PLC0415 - loaded when it is named

        file = SqliteFile(path)
        stack.callback(file.close)
        return _embedded_log(file, readonly=False)
    log: EventLog = registry.load("buses", registry.scheme(config.events))(config.events, route)
    stack.callback(log.close)
    return log


def database_folder(config: Config) -> Path | None:
    """The folder of the database's file; None where it is on a server."""
    return sqlite_path(config).parent if registry.scheme(config.database) == SQLITE else None


def disks(config: Config) -> dict[str, Path]:
    """Where a process of this configuration writes, by what it writes there: large files for as long as they are read,
    and the database and the event log where these are files."""
    found = {}
    with suppress(FileNotFoundError):
        found["spool"] = Path(tempfile.gettempdir())
    if (folder := database_folder(config)) is not None:
        found["database"] = folder
    elif config.events == EMBEDDED:
        found["events"] = config.folder
    return found


def sqlite_path(config: Config) -> Path:
    """The file of `sqlite:///name` (in the configuration's folder) or `sqlite:////absolute/name`. Raises UsageError."""
    parts = urlsplit(config.database)
    path = unquote(parts.path)
    if parts.netloc or len(path) < 2:  # noqa: PLR2004 - a slash and a name
        # The URL is not told: somebody may have written a password into it.
        raise UsageError("database: the URL names no file, or a host; write sqlite:///labelfeed.db")
    return config.folder / path[1:]
