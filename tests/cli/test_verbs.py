"""The command line from end to end: each verb on a real folder and a real database."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.app import App
from pipeline.config import load

Run = Callable[..., tuple[int, str, str]]

CONFIG = """\
projects: {p: {label_config: '<View><Text name="t" value="$text"/></View>'}}
sources:
  - {name: inbox, project: p, url: ./inbox, settle: 0}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives exit code, standard output, standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(word) for word in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and an inbox of a good JSON, a CSV with a bad row, and a broken JSON."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.json").write_text('[{"text": "one"}, {"text": "two"}]')
    (inbox / "b.csv").write_text("text,n\nthree,3\nfour,4,5\nfive,5\n")
    (inbox / "broken.json").write_text('{"text": ')
    return tmp_path


def test_init_check_run(tmp_path: Path, run: Run) -> None:
    """What `init` writes passes `check`, and a run on it imports what lands in the inbox."""
    new = tmp_path / "new"
    assert run("init", new)[0] == 0
    (new / "inbox" / "a.txt").write_text("first\nsecond\n")
    config = new / "labelfeed.yaml"

    assert run("check", "--config", config)[0] == 0
    assert run("run", "--once", "--config", config)[0] == 0
    assert run("tasks", "--config", config)[1].count("\n") == 2
    assert run("init", new)[0] == 2


def test_check_fails(place: Path, run: Run) -> None:
    """`check` names the component that fails, and exits 1."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("./inbox", "./nowhere"))
    code, out, _ = run("check", "--json")
    rows = {row["component"]: row for row in json.loads(out)}

    assert code == 1
    assert rows["database"]["ok"]
    assert not rows["source inbox"]["ok"]


def test_plan_writes_nothing(place: Path, run: Run) -> None:
    """`plan` tells what a run would do, and leaves no trace."""
    before = sorted(place.rglob("*"))
    code, out, _ = run("plan", "--json")
    (plan,) = json.loads(out)

    assert code == 0
    assert (plan["new"], plan["tasks"], plan["deleted"]) == (3, 4, 0)
    assert plan["first_tasks"][0] == {"text": "one"}
    assert sorted(place.rglob("*")) == before


def test_run_once(place: Path, run: Run) -> None:
    """A run imports everything, tells what failed and why, and exits 1; a second one imports nothing twice."""
    code, out, err = run("run", "--once")
    assert code == 1
    assert "broken.json" in out
    assert "syntax" in out
    assert "Try next" in err

    code, out, err = run("run", "--once", "--json")
    (row,) = json.loads(out)
    assert (code, row["found"], row["imported"], row["unchanged"], row["failed"]) == (1, 3, 0, 3, 1)
    assert len(run("tasks")[1].splitlines()) == 4
    assert "were imported before" in run("run", "--once")[2]


def test_plan_after_run(place: Path, run: Run) -> None:
    """After a run, `plan` tells new, changed, deleted and unchanged objects apart."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("settle: 0", "settle: 0, on_change: replace"))
    run("run", "--once")
    (place / "inbox" / "new.json").write_text('{"text": "x"}')
    (place / "inbox" / "a.json").write_text('{"text": "changed"}')
    (place / "inbox" / "b.csv").unlink()
    (plan,) = json.loads(run("plan", "inbox", "--json")[1])

    assert (plan["new"], plan["changed"], plan["deleted"], plan["unchanged"]) == (1, 1, 1, 1)
    assert run("plan", "outbox")[0] == 2


def test_status(place: Path, run: Run) -> None:
    """`status` counts objects by state and tasks by project, and exits 1 while something failed."""
    assert run("status", "--json")[0] == 0
    run("run", "--once")
    code, out, _ = run("status", "--json")
    document = json.loads(out)
    (source,) = document["sources"]

    assert code == 1
    assert (source["done"], source["failed"], source["tasks"], source["rejected"]) == (2, 1, 4, 2)
    assert document["projects"][0]["tasks"] == 4
    assert "inbox" in run("status")[1]
    assert run("status", "--database", "sqlite:///labelfeed.db")[0] == 1


def test_objects(place: Path, run: Run) -> None:
    """`objects` lists the ledger, by source and state."""
    run("run", "--once")
    failed = json.loads(run("objects", "--state", "failed", "--json")[1])

    assert [(row["key"], row["reason"]["code"]) for row in failed] == [("broken.json", "syntax")]
    assert len(json.loads(run("objects", "--source", "inbox", "--limit", "2", "--json")[1])) == 2
    assert "a.json" in run("objects")[1]
    assert run("objects", "--source", "outbox")[0] == 2


@pytest.mark.parametrize("name", ["inbox/b.csv", "inbox:b.csv", "b.csv", "uri"])
def test_explain(place: Path, run: Run, name: str) -> None:
    """`explain` finds an object by path, URI or source and key, and tells its rejected rows and tasks."""
    run("run", "--once")
    code, out, _ = run("explain", "--json", (place / "inbox" / "b.csv").as_uri() if name == "uri" else name)
    (found,) = json.loads(out)

    assert code == 0
    assert (found["state"], found["tasks"]) == ("done", 2)
    assert [(row["code"], row["line"]) for row in found["rejected_rows"]] == [("too_many_cells", 3)]
    assert [task["data"]["text"] for task in found["first_tasks"]] == ["three", "five"]
    assert found["uri"] == (place / "inbox" / "b.csv").as_uri()
    assert "too_many_cells" in run("explain", "b.csv")[1]
    assert run("explain", "nothing.csv")[0] == 2


def test_tasks(place: Path, run: Run) -> None:
    """`tasks` gives the same tasks in each form, and the way back to their file."""
    run("run", "--once")
    lines = [json.loads(line) for line in run("tasks")[1].splitlines()]
    table = run("tasks", "--format", "csv")[1].splitlines()

    assert json.loads(run("tasks", "--format", "json", "--project", "p")[1]) == lines
    assert {task["data"]["text"] for task in lines} == {"one", "two", "three", "five"}
    assert set(lines[0]) == {
        "id", "external_id", "project", "data", "annotations", "predictions", "meta", "extra", "source",
    }  # fmt: skip
    uris = {task["source"]["uri"] for task in lines}
    assert uris == {(place / "inbox" / name).as_uri() for name in ("a.json", "b.csv")}
    assert len(table) == 5
    assert run("tasks", "--project", "q")[0] == 2


def test_retry(place: Path, run: Run) -> None:
    """`retry` puts failed objects back and refuses imported ones unless forced; forcing doubles nothing."""
    run("run", "--once")
    assert json.loads(run("retry", "--json")[1]) == [{"object": "inbox:broken.json", "refused": ""}]
    code, out, _ = run("retry", "inbox/a.json", "--json")
    assert code == 1
    assert "--force" in json.loads(out)[0]["refused"]
    assert run("retry", "inbox/a.json", "--force")[0] == 0
    run("run", "--once")

    assert len(run("tasks")[1].splitlines()) == 4
    assert run("retry", "a.json", "--state", "done")[0] == 2


def test_retry_outdated(place: Path, run: Run) -> None:
    """`retry --outdated` chooses what the present configuration would import otherwise."""
    run("run", "--once")
    assert json.loads(run("retry", "--outdated", "--json")[1]) == []
    (place / "labelfeed.yaml").write_text(CONFIG.replace("settle: 0", "settle: 0, types: text"))
    chosen = json.loads(run("retry", "--outdated", "--json")[1])
    run("run", "--once")

    assert [row["object"] for row in chosen] == ["inbox:a.json", "inbox:b.csv"]
    assert '"n":"3"' in run("tasks")[1]
    assert len(run("tasks")[1].splitlines()) == 4


def test_verify(place: Path, run: Run) -> None:
    """`verify` is content after a run, and tells what was added or removed behind the pipeline's back."""
    run("run", "--once")
    code, out, _ = run("verify", "inbox", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])

    (place / "inbox" / "new.json").write_text('{"text": "x"}')
    (place / "inbox" / "a.json").unlink()
    code, out, _ = run("verify", "--json")
    document = json.loads(out)
    assert code == 1
    assert {(row["key"], row["kind"]) for row in document["findings"]} == {
        ("new.json", "missing"),
        ("a.json", "orphaned"),
    }
    assert "orphaned" in run("verify")[1]


def test_sources_accept(place: Path, run: Run) -> None:
    """A known source that points elsewhere is refused until it is accepted."""
    run("run", "--once")
    (place / "other").mkdir()
    (place / "labelfeed.yaml").write_text(CONFIG.replace("./inbox", "./other"))
    code, _, err = run("run", "--once")
    assert (code, "sources accept inbox" in err) == (2, True)
    assert run("sources", "accept", "nobody")[0] == 2
    assert run("sources", "accept", "inbox")[0] == 0

    assert run("run", "--once")[0] in (0, 1)


def test_accept_deletions(place: Path, run: Run) -> None:
    """A pass that would archive too much asks first, and goes on when a person has accepted it."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("settle: 0", "settle: 0, on_delete: archive"))
    run("run", "--once")
    for path in (place / "inbox").iterdir():
        path.unlink()
    run("run", "--once")
    assert run("tasks")[1].count("\n") == 4
    assert "--deletions" in json.loads(run("status", "--json")[1])["sources"][0]["last_pass"]["stopped"]

    assert run("sources", "accept", "inbox", "--deletions")[0] == 0
    assert run("run", "--once")[0] == 0
    assert run("tasks")[1] == ""


def test_machine_verbs(run: Run) -> None:
    """`schema`, `components` and `version` speak to machines."""
    schema = json.loads(run("schema")[1])
    components = json.loads(run("components", "--json")[1])

    assert schema["properties"]["sources"]
    assert "token_file" in schema["$defs"]["Server"]["properties"]
    assert ("store", "file") in {(row["kind"], row["name"]) for row in components}
    assert run("version")[1].strip()[0].isdigit()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "No such command"),
        (["explain"], "Missing argument"),
        (["tasks", "--format", "xml"], "'xml' is not one of"),
        (["run", "--once"], "labelfeed init"),
        (["status", "--config", "a", "--database", "b"], "not both"),
        (["tasks", "--database", "sqlite:///none.db"], "there is no"),
        (["import", "nowhere.json", "-p", "p"], "there is no nowhere.json"),
        (["import", "gopher://host/x", "-p", "p"], "there is no store for 'gopher'"),
        ([], "Usage"),
    ],
)
def test_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: list[str], says: str) -> None:
    """Wrong use exits 2 with a sentence on standard error, nothing on standard output, and no traceback."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def imported(run: Run, *arguments: str | Path) -> dict[str, Any]:
    """The one row of a direct import's table."""
    (row,) = json.loads(run("import", *arguments, "--json")[1])
    return dict(row)


def test_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Files, folders and globs are imported once, whichever way they are named; other projects have their own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".in" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"q": 1}')
    (folder / "b x%41.csv").write_text("q\n1\n2\n")
    os.close(os.open(os.fsencode(folder) + b"/\xff.json", os.O_CREAT | os.O_WRONLY))

    assert imported(run, ".in/deep/a.json", "--project", "p")["imported"] == 1
    everything = imported(run, ".in", ".in/deep", ".in/*/*.csv", "-p", "p")
    assert (everything["found"], everything["imported"], everything["unchanged"]) == (3, 1, 1)
    assert imported(run, folder / "b x%41.csv", "-p", "p")["imported"] == 0
    assert imported(run, ".in", "-p", "q q")["imported"] == 2
    tasks = run("tasks", "--database", "sqlite:///labelfeed.db", "--project", "p")[1].splitlines()
    assert len(tasks) == 3


def test_import_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Standard input is kept by its content: the same input twice is imported once."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for text in (b"q\n1\n", b"q\n1\n", b"q\n2\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        rows.append(imported(run, "-", "-p", "p", "--format", "csv", "--database", "sqlite:///data/x.db"))

    assert [row["imported"] for row in rows] == [1, 0, 1]
    assert len(list((tmp_path / "data" / "uploads").iterdir())) == 2


def test_import_stdin_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Parquet and Arrow come from standard input, too, where `--format` says so."""
    monkeypatch.chdir(tmp_path)
    table = pa.table({"q": [1, 2]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    for name, sink in (("parquet", parquet), ("arrow", arrow)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sink.getvalue())))
        assert imported(run, "-", "-p", "p", "--format", name)["tasks"] == 2


def test_import_again_after_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """A file that failed is tried again when it is named again, with what is said now."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text('{"text": "x"}')
    config = '<View><Text name="t" value="$other"/></View>'

    assert imported(run, "a.json", "-p", "p", "--label-config", config)["failed"] == 1
    assert imported(run, "a.json", "-p", "p")["imported"] == 1


def test_import_beside_configuration(place: Path, run: Run) -> None:
    """With a configuration, its database and project are used, and its sources stay what they were."""
    (place / "extra.json").write_text('{"wrong": 1}')
    run("run", "--once")
    row = imported(run, "extra.json", "-p", "p")
    sources = {item["name"]: item for item in json.loads(run("status", "--json")[1])["sources"]}

    assert row["failed"] == 1
    assert (sources["inbox"]["retired"], sources["import.p"]["retired"]) == (False, False)


def test_import_leaves_a_run_alone(place: Path, run: Run) -> None:
    """Events and objects of a run on the same database are neither taken nor lost by an import beside it."""
    with App.open(load(place / "labelfeed.yaml")) as app:
        app.pass_runner("inbox").run(Event())
    row = imported(run, "labelfeed.yaml", "-p", "p", "--format", "txt")
    sources = {item["name"]: item for item in json.loads(run("status", "--json")[1])["sources"]}

    assert row["imported"] == 1
    assert sources["inbox"]["done"] == 0

    run("run", "--once")
    sources = {item["name"]: item for item in json.loads(run("status", "--json")[1])["sources"]}

    assert sources["inbox"]["done"] > 0


def test_import_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """A dry run shows the plan and writes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text('{"text": "x"}')
    (plan,) = json.loads(run("import", "a.json", "-p", "p", "--dry-run", "--json")[1])

    assert (plan["new"], plan["tasks"]) == (1, 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "y"}')))
    (plan,) = json.loads(run("import", "-", "-p", "p", "--dry-run", "--json")[1])
    assert plan["tasks"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_sigterm_drains(place: Path, run: Run) -> None:
    """A continuous run imports what lands, logs JSON lines, and exits 0 on SIGTERM."""
    config = (place / "labelfeed.yaml").read_text() + "server: {listen: '127.0.0.1:0'}\n"
    (place / "labelfeed.yaml").write_text(config)
    log = place / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from pipeline.cli import main; main()", "run", "--log-format", "json"],
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 30
        done = 0
        while done < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            out = run("status", "--json")[1] or '{"sources": []}'
            done = sum(row["done"] for row in json.loads(out)["sources"])
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]

    assert (code, done) == (0, 2)
    assert events[0] == "listening"
    assert "started" in events
    assert events[-1] == "stopped"


def test_help_loads_no_sdk() -> None:
    """`labelfeed --help` loads no client of a server, no database and no queue."""
    program = (
        "import sys; from pipeline import cli; cli.run(['--help']);"
        "print([n for n in ('boto3', 'kafka', 'redis', 'psycopg', 'dramatiq', 'sqlite3', 'pyarrow', 'obstore')"
        " if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.splitlines()[-1] == "[]"


def test_broken_pipe(place: Path) -> None:
    """A reader that goes away ends a stream of tasks quietly."""
    (place / "inbox" / "many.csv").write_text("text\n" + "x\n" * 20_000)
    command = f"{sys.executable} -c 'from pipeline.cli import main; main()'"
    subprocess.run(f"{command} run --once >/dev/null 2>&1", shell=True, check=False, cwd=place)
    found = subprocess.run(
        f"{command} tasks | head -1", shell=True, capture_output=True, text=True, check=True, cwd=place
    )

    assert found.stdout.count("\n") == 1
    assert found.stderr == ""
