"""A whole installation in a folder, worked by the real command in processes of its own."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from pipeline import cli

COMMAND = Path(sysconfig.get_path("scripts")) / "labelfeed"
SECONDS = 60.0
"""How long anything may take before the test says that it never came true."""
_CAPABILITY_DROP = 24
_CAPABILITIES_OVER_FILES = (1, 2)


def until(condition: Callable[[], Any], seconds: float = SECONDS, what: str = "it") -> Any:
    """Wait for a condition; gives what it gave."""
    deadline = time.monotonic() + seconds
    pause = Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} never came true"
        pause.wait(0.01)
    return found


def as_anybody() -> None:
    """In a child about to start: files' permissions count, even if it is root's."""
    if os.geteuid() == 0:
        for capability in _CAPABILITIES_OVER_FILES:
            ctypes.CDLL(None).prctl(_CAPABILITY_DROP, capability, 0, 0, 0)


@dataclass
class Ended:
    """A command that has ended: its exit code, standard output, and standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.out)


class Running:
    """A command at work. Its standard error holds logs as JSON, one event a line."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self.out = out
        self.err = err

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def logs(self) -> list[dict[str, Any]]:
        """The log's events so far."""
        lines = self.err.read_text(errors="replace").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def says(self, event: str) -> list[dict[str, Any]]:
        """The log's events whose name begins so."""
        return [row for row in self.logs() if row["event"].startswith(event)]

    def await_start(self) -> None:
        """Wait until its roles have started."""
        until(lambda: self.says("started") or self.process.poll() is not None, what="the start")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def suspended(self) -> bool:
        """Whether it has come to the fault point that suspends it."""
        assert self.process.poll() is None, self.err.read_text()
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def holds(self, path: Path) -> bool:
        """Whether it has this file open."""
        for handle in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if handle.readlink() == path:
                    return True
        return False

    def outlive(self, seconds: float) -> None:
        """Let it live so long. Raises TimeoutError if it still does then."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait for its end."""
        code = self.process.wait(seconds)
        return Ended(code, self.out.read_text(), self.err.read_text(errors="replace"))

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Ask its HTTP server: status and body."""
        (listening,) = until(lambda: self.says("listening"), what="the server")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{listening['port']}{path}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyStatus())
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """An error's status is an answer, too."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response


@dataclass
class House:
    """A folder with `labelfeed.yaml`, an inbox, and the database that comes of them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    place: str = "labelfeed.db"
    _number: int = 0

    @property
    def inbox(self) -> Path:
        """The folder of the source that every house has."""
        return self.folder / "inbox"

    @property
    def database(self) -> Path:
        """The file with ledger and tasks."""
        return self.folder / self.place

    def configure(self, source: Mapping[str, Any] | None = None, **top: Any) -> None:
        """Write the configuration: options of the source `inbox`, and keys of the file's top."""
        inbox = {"name": "inbox", "project": "p", "url": "./inbox", "settle": "50ms", "poll": "300ms"}
        inbox |= dict(source or {})
        values: dict[str, Any] = {
            "projects": {"p": {}},
            "sources": [inbox],
            "server": {"listen": "127.0.0.1:0"},
            "shutdown_timeout": "10s",
        }
        self.place = str(top.get("database", "sqlite:///labelfeed.db")).removeprefix("sqlite:///")
        (self.folder / "labelfeed.yaml").write_text(yaml.safe_dump(values | top))

    # --- files -------------------------------------------------------------------------------------------------

    def put(self, key: str | bytes, content: bytes | str = "", within: Path | None = None) -> Path:
        """A finished file, renamed into its place."""
        path = (within or self.inbox) / os.fsdecode(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.parent / ".unfinished"
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        return unfinished.rename(path)

    def put_tasks(self, count: int, prefix: str = "f") -> dict[str, list[Any]]:
        """Files of one task each; gives what is to come of them."""
        expected = {f"{prefix}{n:04}.json": [{"text": f"{prefix} {n}"}] for n in range(count)}
        for key, (data,) in expected.items():
            self.put(key, json.dumps(data))
        return expected

    def plug_in(self, name: str, code: str) -> None:
        """A parser of another package for files that end with the dot and `name`, as pip would put it there.
        `code` defines its `parse(body, rules)`."""
        folder = self.folder / f"plugin-{name}"
        package = folder / f"{name}_parser-1.0.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-parser\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text(f"[labelfeed.parsers]\n{name} = {name}_parser:parser\n")
        made = f"parser = Parser('{name}', 1, parse, extensions=('.{name}',))"
        (folder / f"{name}_parser.py").write_text(f"from pipeline.parsers.contract import Parser\n{code}\n{made}\n")
        path = self.environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), path]))

    # --- the command -------------------------------------------------------------------------------------------

    def start(
        self, *arguments: str, fault: str = "", preexec: Callable[[], None] | None = None, cwd: Path | None = None
    ) -> Running:
        """Start the command. `fault` is a point of `pipeline.faults`."""
        self._number += 1
        out, err = (self.folder / f".{self._number}.{name}" for name in ("out", "err"))
        environment = os.environ | {"LABELFEED_FAULT": fault, "COLUMNS": "400"} | self.environment
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                [COMMAND, *arguments], cwd=cwd or self.folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=to_out, stderr=to_err,
                preexec_fn=preexec,  # noqa: PLW1509 - it makes one system call
            )  # fmt: skip
        made = Running(process, out, err)
        self.running.append(made)
        return made

    def run(self, *arguments: str, **how: Any) -> Ended:
        """Run the command to its end."""
        return self.start(*arguments, **how).end()

    def look(self, *arguments: str) -> Ended:
        """Run a command that only looks, in this process: starting another one takes longer than looking."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.run([*arguments, "--config", str(self.folder / "labelfeed.yaml")])
        return Ended(code, out.getvalue(), err.getvalue())

    def once(self, *arguments: str, code: int = 0, **how: Any) -> Ended:
        """`labelfeed run --once`, and how it has to end."""
        ended = self.run("run", "--once", "--log-format=json", *arguments, **how)
        assert ended.code == code, ended.out + ended.err
        return ended

    @contextmanager
    def continuously(self, *arguments: str, **how: Any) -> Iterator[Running]:
        """`labelfeed run`, from its start to its end by SIGTERM, which has to be a good one."""
        process = self.start("run", "--log-format=json", *arguments, **how)
        process.await_start()
        yield process
        process.signal(signal.SIGTERM)
        ended = process.end()
        assert ended.code == 0, ended.err

    # --- what came of it ----------------------------------------------------------------------------------------

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """A look into the database, as people may take it."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def tasks(self, source: str = "inbox") -> dict[str, list[Any]]:
        """Key → the data of its live tasks, in their order."""
        found: dict[str, list[Any]] = {}
        for key, data in self.rows("SELECT key, data FROM tasks WHERE source = ? ORDER BY key, position", source):
            found.setdefault(key, []).append(json.loads(data))
        return found

    def states(self, source: str = "inbox") -> dict[str, str]:
        """Key → state, with the code where there is one."""
        statement = (
            "SELECT key, state || CASE WHEN code IS NULL THEN '' ELSE ': ' || code END FROM objects"
            " WHERE source_id = (SELECT id FROM sources WHERE name = ?)"
        )
        return dict(self.rows(statement, source))

    def explain(self, key: str) -> dict[str, Any]:
        """What `labelfeed explain` knows of an object of the inbox."""
        ended = self.look("explain", "--json", f"inbox:{key}")
        assert ended.code == 0, ended.err
        (found,) = ended.json()
        return dict(found)

    def verify(self, *, code: int = 0) -> dict[str, Any]:
        """`labelfeed verify`, and how it has to end."""
        ended = self.look("verify", "--json")
        assert ended.code == code, ended.out + ended.err
        return dict(ended.json())

    def agrees(self, expected: Mapping[str, Sequence[Any]], source: str = "inbox") -> None:
        """The tasks are these, each once, and `verify` has nothing to complain of."""
        assert self.tasks(source) == expected
        self.verify()

    def close(self) -> None:
        """End what still runs."""
        for one in self.running:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def remove(path: Path) -> None:
    """Delete a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
