"""The command line: verbs, and what becomes of errors.

Data goes to standard output, everything else to standard error. Exit codes: 0 all is well; 1 something
failed (an object, a check, a server); 2 the command or the configuration has to be changed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from traceback import print_exc

import typer
from typer.exceptions import TyperException

from pipeline.cli import (
    changing,
    delivering,
    importing,
    looking,
    migrating,
    output,
    planning,
    rejecting,
    replaying,
    revisions,
    running,
    serving,
    starting,
    top,
)
from pipeline.cli.ending import leave_soon
from pipeline.cli.output import note
from pipeline.errors import LabelfeedError, UsageError

TRACEBACK = "LABELFEED_TRACEBACK"
"""With this variable set, an error that is none of ours shows its traceback."""

FAILED = 1
WRONG = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="labelfeed",
    help="Keeps labelling projects fed: files in storage become labelling tasks, each exactly once.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback(invoke_without_command=True)(output.help_alone)
FAMILIES = (
    starting, planning, running, importing, looking, rejecting, revisions, changing,
    delivering, replaying, migrating, serving, top,
)  # fmt: skip
for family in FAMILIES:
    family.add(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    # Python would look through all that is loaded for what it can free, longer than a small command works.
    gc.freeze()
    leave_soon(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; gives its exit code. Errors are told in a sentence, never by a traceback."""
    try:
        code = app(args=list(arguments), prog_name="labelfeed", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except TyperException as error:
        return _misread(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except LabelfeedError as error:
        return _told(error)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: nothing is left to catch it
        return _unexpected(error)
    return int(code or 0)


def _misread(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    note(f"error: {error.format_message().replace('Value error, ', '')}")
    if context is not None:
        note(f"{context.command_path} --help shows how it is called")
    return WRONG


def _told(error: LabelfeedError) -> int:
    note(f"error: {error}")
    for other in getattr(error, "__notes__", ()):
        note(f"error: {other}")
    return WRONG if isinstance(error, UsageError) else FAILED


def _unexpected(error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        print_exc()
    note(f"error: {type(error).__name__}: {error}")
    note(f"This is a mistake in Labelfeed; with {TRACEBACK}=1 the same command shows where.")
    return FAILED
