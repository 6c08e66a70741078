"""The configuration: what one `labelfeed.yaml` may say, and nothing else.

Each field's description is its reference: `docs/configuration.md` and the JSON Schema are made of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.config.projects import Project
from pipeline.config.values import (
    LINK_KEY_CHARACTERS,
    Age,
    Duration,
    Globs,
    Model,
    Names,
    Networks,
    RowBound,
    Secret,
    Secrets,
    SecretURL,
    Size,
    parse_headers,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""What a source may be called."""


class ParseOptions(Model):
    """What a source says about the form of its files."""

    format: Literal["json", "csv", "tsv", "txt", "html", "parquet", "arrow", "files"] | None = Field(
        None, description="The form of every file; without it each key's extension decides."
    )
    as_: Literal["auto", "tasks", "files", "urls"] = Field(
        "auto",
        alias="as",
        description="`files` makes one task by reference of every object, `tasks` never does, `auto` goes by the kind; "
        "`urls` takes each line of the file at `url` for the URL of an object.",
    )
    encoding: str | None = Field(None, description="The character encoding of every file; overrides its detection.")
    separator: str | None = Field(
        None, min_length=1, max_length=1, description="The CSV separator; without it the header line decides."
    )
    types: Literal["infer", "text"] = Field("infer", description="Whether CSV columns become numbers and booleans.")
    na_values: tuple[str, ...] = Field((), description="CSV cells with one of these texts become empty text.")
    blank_lines: Literal["skip", "keep"] = Field("skip", description="What a blank line of a text file becomes.")
    minify: bool | None = Field(
        None,
        description="Whether HTML loses white space and parts without function; only direct imports do by default.",
    )
    links: Literal["uri", "signed", "durable"] = Field(
        "uri", description="How tasks refer to media: the storage's URI, a presigned URL, or a URL of our own."
    )
    ttl: Duration = Field(3600.0, gt=0, description="How long a presigned URL lives.")
    preannotated_from_fields: tuple[str, ...] = Field(
        (), description="Fields of a flat task that also become predictions, named as the control they fill."
    )
    on_bad_row: Literal["reject", "fail"] = Field(
        "reject", description="`reject` keeps a bad row aside and imports the others; `fail` fails the whole object."
    )
    max_bad_rows: RowBound | None = Field(
        None,
        description="How many rows of one object may be rejected, as a number or as a share such as `5%`; beyond it "
        "the whole object fails, and nothing of it is imported.",
    )


class Http(Model):
    """What is sent with requests to a source's own host over HTTP, and to nobody else."""

    headers: Annotated[dict[str, Secret], BeforeValidator(parse_headers)] = Field(
        default_factory=dict, description="Headers, such as `X-Api-Key: ${API_KEY}`."
    )
    username: str | None = Field(None, description="The user of basic authentication.")
    password: Secret | None = Field(None, description="The user's password.")
    bearer: Secret | None = Field(None, description="A bearer token.")
    hosts: Names = Field((), description="Further hosts that get all this, such as those of a list's URLs.")


class Route(Model):
    """A rule of a source: which of its objects go into which project."""

    match: Globs = Field(description="Globs of the keys, relative to the source's URL.")
    project: str = Field(description="The project that their tasks go into.")


class Source(ParseOptions):
    """A place where files land."""

    name: str = Field(pattern=NAME, description="The source's name; with its store, its identity.")
    project: str = Field(description="The project that its tasks go into.")
    url: str = Field(description="Where it is: a path, or a URL such as s3://bucket/prefix.")
    endpoint: str | None = Field(
        None, description="The address of a store that speaks like the URL's, such as http://host:9000."
    )
    account: str | None = Field(
        None, description="The storage account of an az:// URL; without it that of AZURE_STORAGE_ACCOUNT."
    )
    notifications: str | None = Field(
        None,
        description="The queue that the store tells of changes in, such as https://sqs.eu-west-1.amazonaws.com/1/queue "
        "or projects/P/subscriptions/S.",
    )
    fetch: bool = Field(
        False, description="Whether the files that a list of URLs names are read; otherwise tasks refer to them."
    )
    http: Http | None = Field(None, description="What requests over HTTP bear.")
    allow_private: Networks = Field(
        False,
        description="Whether HTTP requests may go to private, loopback and link-local addresses; or to which of them.",
    )
    match: Globs = Field(("**/*",), description="Globs of the keys to take, relative to the URL.")
    exclude: Globs = Field((), description="Globs of the keys to leave out.")
    regex: str | None = Field(None, description="A regular expression that must be found in a key for it to be taken.")
    prefixes: Globs = Field(
        (), description="Only keys that begin with one of these, relative to the URL; nothing else is listed."
    )
    recursive: bool = Field(True, description="Whether folders below are taken too; with `prefixes`, below those.")
    min_size: Size = Field(0, ge=0, description="Smaller objects are left out.")
    max_size: Size | None = Field(None, ge=0, description="Larger objects are left out.")
    newer_than: Age | None = Field(
        None,
        description="Only objects that were changed within this time (30d), or since this date (2026-01-31) are taken; "
        "what is imported stays.",
    )
    older_than: Age | None = Field(
        None, description="Only objects that were left alone for this time (10m), or since this date, are taken."
    )
    routes: tuple[Route, ...] = Field(
        (),
        description="Rules by which objects go into other projects, the first that matches; what none matches goes "
        "into `project`. Each further project becomes a source of its own, named NAME.PROJECT.",
    )
    start_after: Literal["first", "latest"] = Field(
        "first",
        description="`latest` lists only what comes after the last key of the pass before, for names that grow; a "
        "whole pass is made every `reconcile`.",
    )
    reconcile: Duration = Field(
        86400.0, gt=0, description="With `start_after: latest`, how long after one whole pass the next one starts."
    )
    poll: Duration = Field(30.0, gt=0, description="How long after one pass the next one starts.")
    settle: Duration = Field(1.0, ge=0, description="A local file is taken when it has not changed for this long.")
    watch: bool = Field(True, description="Whether changes are noticed as they happen, beside the passes.")
    on_change: Literal["ignore", "replace", "append"] = Field(
        "ignore",
        description="What a new version of an imported object does: `ignore` counts and shows it, `replace` puts its "
        "tasks in the old ones' place, `append` adds them.",
    )
    on_delete: Literal["keep", "archive"] = Field("keep", description="What becomes of the tasks of a deleted object.")
    row_key: str | None = Field(None, description="The data field by which `replace` knows a row again.")
    delete_guard: float = Field(
        0.2,
        gt=0,
        le=1,
        description="A pass that would archive more than this share of a source (or 1,000 objects) stops and asks.",
    )
    overlap: bool = Field(False, description="Allows this source to cover objects of another one of the same project.")
    weight: float = Field(1.0, gt=0, description="The source's share when several have work waiting.")
    priority: Literal["low", "normal", "high"] = Field(
        "normal",
        description="Sources of higher priority go first. One that waits behind them rises by a class every ten "
        "seconds.",
    )
    max_in_flight: int = Field(
        0, ge=0, description="Most objects of this source that are claimed or running at once; 0 is no limit."
    )
    bytes_per_second: Size = Field(0, ge=0, description="Bytes read from this source per second; 0 is no limit.")

    def shape_hash(self, project: Project) -> str:
        """A hash of all that shapes what a file of this source becomes."""
        shaping = self.model_dump(mode="json", include={*ParseOptions.model_fields, "fetch"})
        shaping |= {"project": self.project, "label_config": project.label_config, "validate": project.validate_}
        return hashlib.blake2b(orjson.dumps(shaping, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


class Limits(Model):
    """Bounds of the whole installation."""

    in_flight_objects: int = Field(2000, ge=1, description="Most objects that are claimed or running at once.")
    in_flight_bytes: Size = Field(
        512 * 1000**2,
        ge=1,
        description="Most bytes of objects that are claimed or running at once; a source with none may begin a larger "
        "one.",
    )
    database_pressure: Literal["auto", "off"] = Field(
        "auto", description="Whether fewer commits run at once while the database takes long for them."
    )
    batch_objects: int = Field(500, ge=1, le=5000, description="Most objects in one claim, and so in one commit.")
    workers: int = Field(2, ge=1, le=256, description="Worker threads in each process that imports.")
    lease: Duration = Field(60.0, ge=1, description="How long a worker owns a claim without renewing it.")
    attempts: int = Field(8, ge=1, description="How often an object is tried before a passing error fails it.")
    backoff: Duration = Field(
        1.0, gt=0, description="The first back-off after a passing error; it doubles, with jitter."
    )
    storage_attempts: int = Field(
        60,
        ge=0,
        description="How often an object is tried while its storage does not answer, before that fails it: about nine "
        "hours; 0 for no end.",
    )
    storage_backoff: Duration = Field(600.0, gt=0, description="The longest back-off while storage does not answer.")
    storage_patience: Duration = Field(
        60.0,
        gt=0,
        description="How long `run --once` and `import` go on with a source of which nothing ends because its storage "
        "does not answer. What waits then is left to the next run.",
    )
    retention: Duration = Field(7 * 86400.0, gt=0, description="How long events stay in the embedded log.")
    child_memory: Size = Field(
        2 * 1024**3, ge=64 * 1024**2, description="Memory of the process that runs a suspected object."
    )
    child_time: Duration = Field(900.0, gt=0, description="Longest time a suspected object may run.")


class Server(Model):
    """The HTTP server of a continuous process."""

    listen: str = Field(
        "127.0.0.1:9108", description="Address and port of /metrics, /healthz and /readyz; loopback by default."
    )
    token: Secret | None = Field(None, description="A token that every request but /healthz must bear.")


class Links(Model):
    """Links of our own to objects, which `labelfeed serve` answers: those of sources with `links: durable`."""

    base_url: str = Field(
        pattern=r"^https?://[^/?#@\s]+[^?#@\s]*$", description="What such links begin with: where `serve` is reached."
    )
    key: Secret = Field(description="What links are signed with: 16 characters or more that nobody can guess.")
    previous: Secrets = Field((), description="Keys of before, whose links still count; without its key a link ends.")
    ttl: Duration = Field(600.0, gt=0, description="How long the signed URL lives that a link leads to.")

    @field_validator("key", "previous")
    @classmethod
    def _long_enough(cls, value: SecretStr | tuple[SecretStr, ...]) -> SecretStr | tuple[SecretStr, ...]:
        for each in value if isinstance(value, tuple) else (value,):
            if len(each.get_secret_value()) < LINK_KEY_CHARACTERS:
                raise ValueError(f"a key of links has at least {LINK_KEY_CHARACTERS} characters")
        return value


class Config(Model):
    """A whole `labelfeed.yaml`."""

    database: SecretURL = Field(
        "sqlite:///labelfeed.db", description="Where tasks and ledger live: sqlite:///file or postgresql://…"
    )
    events: SecretURL = Field("embedded", description="The event log: `embedded`, or kafka://host:9092/topic.")
    queue: SecretURL = Field("embedded", description="The work queue: `embedded`, or redis://host:6379/0.")
    projects: dict[str, Project] = Field(description="The projects by name.")
    sources: tuple[Source, ...] = Field(description="The sources, in the order in which `status` lists them.")
    limits: Limits = Field(default_factory=Limits, description="Bounds of the whole installation.")
    server: Server = Field(default_factory=Server, description="The HTTP server.")
    links: Links | None = Field(None, description="Links of our own to objects.")
    shutdown_timeout: Duration = Field(25.0, gt=0, description="How long SIGTERM waits for work under way.")

    folder: SkipJsonSchema[Path] = Field(
        Path(), exclude=True, repr=False, description="The folder that relative paths start from; not a key."
    )

    def resolve(self, path: str) -> Path:
        """An absolute path; a relative one starts from the configuration's folder."""
        return (self.folder / Path(path).expanduser()).absolute()

    def source(self, name: str) -> Source:
        """The source of this name; KeyError if there is none."""
        for source in self.sources:
            if source.name == name:
                return source
        raise KeyError(name)
