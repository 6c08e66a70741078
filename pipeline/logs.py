"""Structured logs on standard error: an event's name and its fields, as text or as JSON, one line a batch.

`log.info(BATCH_COMMITTED, extra={"source": "inbox", "objects": 250})` gives
`12:00:01.250 info batch_committed source=inbox objects=250`. Names are the constants below, so that
people can search for them. No field holds a secret, and none at info level or above is for one object.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from pipeline.errors import LabelfeedError

ROOT = "pipeline"

LISTENING = "listening"
STARTED = "started"
STOPPING = "stopping"
STOPPED = "stopped"
WAITING = "waiting"
RECOVERED = "recovered"
LEADING = "leading"
LEAD_LOST = "lead_lost"
PASS_FINISHED = "pass_finished"
PASS_STOPPED = "pass_stopped"
EVENTS_PUBLISHED = "events_published"
FOLDER_UNREADABLE = "folder_unreadable"
OBJECTS_UNSETTLED = "objects_unsettled"
EVENTS_RECORDED = "events_recorded"
DEAD_LETTERS = "dead_letters"
OBJECTS_CLAIMED = "objects_claimed"
LEASES_ENDED = "leases_ended"
SOURCE_PAUSED = "source_paused"
SOURCE_RESUMED = "source_resumed"
BATCH_COMMITTED = "batch_committed"
BATCH_CANCELLED = "batch_cancelled"
OBJECT_ENDED = "object_ended"
SWEPT = "swept"
CHILD_ENDED = "child_ended"
CLAIM_KEPT = "claim_kept"
LEASE_NOT_RENEWED = "lease_not_renewed"
OBJECT_REFUSED = "object_refused"
POSITIONS_UNTOLD = "positions_untold"
BATCH_DELIVERED = "batch_delivered"
TASKS_REFUSED = "tasks_refused"
DELIVERY_FAILED = "delivery_failed"
DELIVERY_LOST = "delivery_lost"
PART_LEFT = "part_left"
OUR_ERROR = "our_error"
REQUEST_FAILED = "request_failed"
LINK_FAILED = "link_failed"
CONCERN = "concern"
CONCERN_MENDED = "concern_mended"
NOT_LISTENING = "not_listening"
INDEX_BUILDING = "index_building"

NAMES: dict[str, str] = {
    LISTENING: "a continuous process serves /metrics, /healthz and /readyz: `port`",
    STARTED: "a role begins to work",
    STOPPING: "a signal asked the process to end; what runs is finished first",
    STOPPED: "all roles have ended",
    WAITING: "a role cannot go on and tries again: `code`, `error`",
    RECOVERED: "a role that waited works again",
    LEADING: "this process lists and watches a source from now on; others stand by",
    LEAD_LOST: "another process leads a source now, as this one was silent for too long",
    PASS_FINISHED: "a pass has ended: `listed`, `published`, `trace`, `seconds`",
    PASS_STOPPED: "a pass would archive too much and asks first: `candidates`",
    EVENTS_PUBLISHED: "changes noticed as they happened were put on the event log: `events`, `traces`",
    FOLDER_UNREADABLE: "a folder may not be read; what is in it is neither listed nor taken for deleted",
    OBJECTS_UNSETTLED: "files that did not stop changing were left for the next pass: `objects`, `first`",
    EVENTS_RECORDED: "the dispatcher wrote a batch of events to the ledger: `events`, by effect, `traces`, `seconds`",
    DEAD_LETTERS: "records could not be read or were refused, and were put aside",
    OBJECTS_CLAIMED: "the scheduler claimed objects for workers: `lease`, `source`, `objects`",
    LEASES_ENDED: "leases ended without their worker's commit",
    SOURCE_PAUSED: "nothing more is claimed of a source: `by` hand, or by its own `failures`: `failing`, `code`",
    SOURCE_RESUMED: "a paused source goes on",
    BATCH_COMMITTED: "a worker ended a claim: `lease`, `source`, `objects` by state, `tasks`, `traces`, `seconds`",
    BATCH_CANCELLED: "a worker lost its lease or was stopped; no more was written",
    OBJECT_ENDED: "one object ended: `uri`, `state`, `code`, `lease`, `trace`, `seconds` (level debug only)",
    SWEPT: "staged rows that nobody will publish, or old history, were deleted",
    CHILD_ENDED: "the process of a suspected object ended before its work did: `why`, `object`",
    CLAIM_KEPT: "a claim could not be given back and waits for its lease to end: `lease`",
    LEASE_NOT_RENEWED: "the database did not renew a lease: `lease`, `failures` in a row",
    OBJECT_REFUSED: "the database refuses an object's tasks or a record: an error in Labelfeed",
    POSITIONS_UNTOLD: "the event log was not told how far the ledger has come; the ledger's word counts",
    BATCH_DELIVERED: "a delivery's remote has a batch: `delivery`, `tasks`, `seconds`",
    TASKS_REFUSED: "a delivery's remote refuses tasks, which are set aside: `delivery`, `tasks`, `error` of the first",
    DELIVERY_FAILED: "an attempt to deliver has failed, or nobody knows what came of it: `delivery`, `code`, `error`",
    DELIVERY_LOST: "a sender's grant has ended, and it writes nothing; what it sent is looked for: `delivery`",
    PART_LEFT: "a file is delivered, and what it was written as at first could not be deleted: `file`, `error`",
    OUR_ERROR: "something failed by an error in Labelfeed; the traceback says where",
    CONCERN: "something works but should be mended: `code`, `text`",
    CONCERN_MENDED: "what was a concern is none any more: `code`",
    NOT_LISTENING: "the address of /metrics cannot be had, and the process ends: `listen`, `error`",
    INDEX_BUILDING: "an upgrade builds an index while others work, and its role begins when it is there: `index`",
    LINK_FAILED: "a link's object could not be given: `source`, `code`, `error`",
    REQUEST_FAILED: "a client of the HTTP server went away (level debug only)",
}
"""Every event's name and what it says; `docs/operations.md` prints this table."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that a call gave beside the event's name; an error's code and message are among them."""
    fields = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields |= {
            "code": error.code if isinstance(error, LabelfeedError) else type(error).__name__,
            "error": str(error),
        }
    return fields


class TextFormatter(logging.Formatter):
    """For people: time, level, event, fields; a traceback only where the error is not one of ours."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of text."""
        at = datetime.fromtimestamp(record.created).astimezone()
        head = f"{at:%H:%M:%S}.{int(record.msecs):03d} {record.levelname.lower():<7} {record.getMessage()}"
        line = " ".join([head, *(f"{name}={_shown(value)}" for name, value in fields_of(record).items())])
        return line + _traceback(self, record)


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        document |= fields_of(record)
        if trace := _traceback(self, record):
            document["traceback"] = trace.strip()
        return orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def set_up(style: Literal["text", "json"] = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send our logs to standard error (or `stream`), and warnings of the libraries too. May be called again."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "labelfeed", False):
            root.removeHandler(old)
    handler.labelfeed = True  # type: ignore[attr-defined]  # marks our own, so that a second call replaces it
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return orjson.dumps(text).decode() if not text or any(sign in text for sign in ' "=\n\r\t') else text


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if error is None or isinstance(error, LabelfeedError):
        return ""
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
