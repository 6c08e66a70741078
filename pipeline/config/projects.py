"""What the configuration says of a project: how fast it takes tasks, and where they go on to."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.values import Duration, Model, Secret, Size

_PORTS = {"http": ":80", "https": ":443"}


def spelled(target: str) -> str:
    """A delivery's target in the one spelling of the address that it may begin with: scheme and host in lower case, no
    port that goes without saying. Ledgers hold older ones, so hold what they have against others by this."""
    found = re.match(r"(https?)://([^/?#\s]+)", target, re.IGNORECASE)
    if found is None:
        return target
    scheme, host = found[1].lower(), found[2].lower()
    return f"{scheme}://{host.removesuffix(_PORTS[scheme])}{target[found.end() :]}"


class Throttle(Model):
    """How fast one project takes tasks."""

    imports_every: Duration = Field(
        30.0,
        ge=0,
        description="Between the end of one import into the project's deliveries and the start of the next.",
    )
    tasks_per_import: int = Field(250_000, ge=1, description="Most tasks in one import into a delivery.")
    bytes_per_import: Size = Field(50_000_000, ge=1024, description="Most bytes in one import into a delivery.")
    tasks_per_second: float = Field(0, ge=0, description="Tasks imported into the project per second; 0 is no limit.")
    max_tasks: int = Field(0, ge=0, description="The project is full at this many tasks and holds; 0 is no limit.")
    open_tasks: int = Field(
        0,
        ge=0,
        description="Keep this many tasks without annotations in front of the labellers, and hold beyond; 0 is off. "
        "With a `label_studio` delivery these are the tasks that are not finished there, and those that wait for it.",
    )
    undelivered_tasks: int = Field(
        1_000_000,
        ge=0,
        description="Import nothing more while so many tasks wait for a delivery of the project; 0 is no limit.",
    )


class LabelStudio(Model):
    """A project of a Label Studio that tasks go on to."""

    url: str = Field(
        pattern=r"^https?://[^@]+$", description="The address of the Label Studio, such as http://host:8080."
    )
    project: int = Field(ge=1, description="The number of the project there.")
    token: Secret = Field(description="A personal access token, or a legacy token, of one who may import there.")
    delete_remote: bool = Field(False, description="Whether archived tasks are deleted there, annotations and all.")
    timeout: Duration = Field(120.0, ge=1, description="How long one import may take to be answered.")
    settle: Duration = Field(
        900.0,
        ge=0,
        description="After an import that nobody answered for: how long the remote is asked before it is sent again.",
    )


class JsonLines(Model):
    """A place that tasks go on to as files of JSON lines."""

    url: str = Field(
        description="A folder, or a prefix such as s3://bucket/tasks, gs://bucket/tasks or az://container/tasks."
    )
    endpoint: str | None = Field(None, description="The address of a store that speaks like the URL's.")
    delete_remote: bool = Field(False, description="Whether archived tasks are told there, as deleted ones.")
    timeout: Duration = Field(
        60.0, ge=1, description="How long one file may take to be written, all attempts together."
    )
    settle: Duration = Field(
        60.0,
        ge=0,
        description="After a file that nobody answered for: how long it is looked for before it is sent again.",
    )

    @field_validator("url")
    @classmethod
    def _says_only_where(cls, url: str) -> str:
        # The ledger keeps it and messages show it: what is secret must not get that far.
        authority, _, rest = url.partition("://")[2].partition("/")
        if "://" in url and ("@" in authority or "?" in authority or "?" in rest):
            raise ValueError("the URL holds neither credentials nor options; credentials are the environment's")
        return url


class Delivery(Model):
    """Where a project's tasks go on to: one of the kinds."""

    name: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,63}$", description="Its name in the project; by default its kind."
    )
    label_studio: LabelStudio | None = Field(None, description="A project of a Label Studio.")
    jsonl: JsonLines | None = Field(None, description="Files of JSON lines.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.label_studio is None) == (self.jsonl is None):
            raise ValueError("name one kind: label_studio or jsonl")
        return self

    @property
    def kind(self) -> str:
        """The component that makes it."""
        return "jsonl" if self.label_studio is None else "label_studio"

    @property
    def known_as(self) -> str:
        """Its name in the project."""
        return self.name or self.kind

    @property
    def target(self) -> str:
        """What tells its remote from all others."""
        if self.label_studio is not None:
            return spelled(f"{self.label_studio.url.rstrip('/')} project {self.label_studio.project}")
        assert self.jsonl is not None
        return spelled(f"{self.jsonl.endpoint or ''} {self.jsonl.url.rstrip('/')}".strip())

    @property
    def options(self) -> LabelStudio | JsonLines:
        """What is said of it."""
        chosen = self.label_studio or self.jsonl
        assert chosen is not None
        return chosen


class Project(Model):
    """A labelling project: where tasks go, and what they must look like."""

    label_config: str | None = Field(
        None,
        description="The labelling configuration: a file's path, or the XML itself. It decides what a file becomes.",
    )
    validate_: Literal["structure", "config", "strict"] | None = Field(
        None,
        alias="validate",
        description="How closely tasks are held against the labelling configuration: `structure` (shape only), "
        "`config` (keys and types too; the default where there is a configuration) or `strict` (also the names and "
        "labels in annotations and predictions).",
    )
    throttle: Throttle = Field(default_factory=Throttle, description="How fast this project takes tasks.")
    deliveries: tuple[Delivery, ...] = Field((), description="Where its tasks go on to.")
