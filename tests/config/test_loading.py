"""The configuration file: what it may say, and how its errors speak."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config, build, load, parse_duration, parse_size
from pipeline.errors import ConfigError, UsageError

SMALL = """\
projects:
  opossums: {}
sources:
  - name: inbox
    project: opossums
    url: ./inbox
"""


def write(folder: Path, text: str) -> Path:
    """A configuration file in a folder."""
    path = folder / "labelfeed.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str, **environment: str) -> ConfigError:
    """The error that a configuration gives."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), environment=environment)
    return caught.value


def test_small(tmp_path: Path) -> None:
    """Three keys make a configuration; everything else has a default."""
    config = load(write(tmp_path, SMALL))

    assert config.database == "sqlite:///labelfeed.db"
    assert config.source("inbox").match == ("**/*",)
    assert config.folder == tmp_path
    assert config.resolve("x/y") == tmp_path / "x/y"


def test_whole(tmp_path: Path) -> None:
    """Units, aliases, lists and single globs are read as people write them."""
    (tmp_path / "o.xml").write_text("<View/>")
    config = load(
        write(
            tmp_path,
            """\
database: sqlite:///x.db
projects:
  opossums: {label_config: o.xml, validate: strict, throttle: {tasks_per_second: 5}}
sources:
  - name: inbox
    project: opossums
    url: s3://bucket/in
    match: "*.json"
    exclude: [a, b]
    poll: 1m30s
    settle: 250ms
    as: files
    on_change: replace
    row_key: id
limits: {child_memory: 1GiB, workers: 4}
server: {listen: "0.0.0.0:80", token: secret}
""",
        )
    )
    source = config.source("inbox")

    assert config.projects["opossums"].label_config == "<View/>"
    assert config.projects["opossums"].validate_ == "strict"
    assert (source.match, source.exclude, source.poll, source.settle) == (("*.json",), ("a", "b"), 90.0, 0.25)
    assert source.as_ == "files"
    assert config.limits.child_memory == 1024**3
    assert config.server.token is not None
    assert config.server.token.get_secret_value() == "secret"
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "says"),
    [
        ("url: ./inbox", "url: ./inbox\n    on_chnge: ignore", "sources.0.on_chnge", 7, "did you mean on_change?"),
        ("url: ./inbox", "url: ./inbox\n    on_change: replce", "sources.0.on_change", 7, "did you mean replace?"),
        ("url: ./inbox", "url: ./inbox\n    poll: soon", "sources.0.poll", 7, "'soon' is no duration"),
        ("url: ./inbox", "url: ./inbox\n    poll: [1]", "sources.0.poll", 7, "no duration"),
        ("url: ./inbox", "url: ./inbox\n    name: b", "sources.0.name", 7, "a second time; the first is in line 4"),
        ("    url: ./inbox", "", "sources.0.url", 4, "required"),
        ("project: opossums", "project: opossum", "sources.0.project", 5, "did you mean opossums?"),
        ("name: inbox", "name: in box", "sources.0.name", 4, "a name is letters"),
        ("opossums: {}", "opossums: {label_config: no.xml}", "projects.opossums.label_config", 2, "no.xml"),
        ("opossums: {}", "opossums: 5", "projects.opossums", 2, "mapping"),
        ("url: ./inbox", "url: ${NOWHERE}", "sources.0.url", 6, "${NOWHERE:-default}"),
        ("url: ./inbox", "url: ${NO-WHERE}", "sources.0.url", 6, "is no variable"),
        ("url: ./inbox", "url: ./inbox\nfolder: /etc", "folder", 7, "no such key"),
        ("url: ./inbox", "url: ./inbox\n    as_: files", "sources.0.as_", 7, "did you mean as?"),
        ("url: ./inbox", "url: ./inbox\n    row_key: id", "sources.0.row_key", 7, "on_change: replace"),
        ("url: ./inbox", "url: ./inbox\nlimits: {workers: 0}", "limits.workers", 7, "greater than or equal to 1"),
        ("url: ./inbox", "url: ./inbox\nlimits: {workers: some}", "limits.workers", 7, "whole number"),
        ("url: ./inbox", "url: ./inbox\nserver: {token_file: no}", "server.token_file", 7, "no such file"),
        ("url: ./inbox", "url: [a", "", 7, "expected"),
        ("  opossums: {}", "\topossums: {}", "", 2, "spaces, not tabs"),
        ("opossums: {}", "opossums: &a {throttle: *a}", "projects.opossums.throttle", 2, "alias"),
    ],
)
def test_errors(tmp_path: Path, old: str, new: str, path: str, line: int, says: str) -> None:
    """An error names the file, the dotted path, the line and what was probably meant."""
    error = refused(tmp_path, SMALL.replace(old, new))

    assert (error.path, error.line) == (path, line)
    assert says in str(error)
    assert str(error).startswith(f"{tmp_path / 'labelfeed.yaml'}:{line}:")


def test_all_errors(tmp_path: Path) -> None:
    """Several errors are told at once: the first in the file, the others as notes."""
    error = refused(tmp_path, SMALL + "    pol: 5\n    matsch: x\n")

    assert error.path == "sources.0.pol"
    assert "sources.0.matsch" in error.__notes__[0]


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no configuration, the message says how to get one."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="labelfeed init"):
        load()
    with pytest.raises(UsageError, match=r"there is no other\.yaml"):
        load("other.yaml")


@pytest.mark.parametrize("text", ["", "- a", "word", "\x00", "\xff: ["])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    """A file that holds something else entirely is a configuration error, too."""
    assert refused(tmp_path, text).file.endswith("labelfeed.yaml")


def test_interpolation(tmp_path: Path) -> None:
    """Variables fill values and have defaults; `$${` is the text `${`; a value can add no key."""
    config = load(
        write(
            tmp_path,
            SMALL.replace("./inbox", '"${ROOT}/$${x}${EMPTY:-d}${SET:-e}"') + "limits: {workers: '${N:-7}'}",
        ),
        environment={"ROOT": "a\nb: c", "EMPTY": "", "SET": "s"},
    )

    assert config.source("inbox").url == "a\nb: c/${x}ds"
    assert config.limits.workers == 7


def test_words_stay_text(tmp_path: Path) -> None:
    """`no`, `on`, `1:30` and dates are the text that they are."""
    config = load(
        write(tmp_path, "projects: {no: {}, 2026-01-02: {}, 007: {}}\nsources: [{name: on, project: no, url: 1:30}]")
    )

    assert list(config.projects) == ["no", "2026-01-02", "007"]
    assert (config.sources[0].name, config.sources[0].url) == ("on", "1:30")


def test_secret_files(tmp_path: Path) -> None:
    """A secret may stand in a file of its own, relative to the configuration; both at once is an error."""
    (tmp_path / "token").write_text("hush\n")
    (tmp_path / "db").write_text("sqlite:///other.db\n")
    config = load(write(tmp_path, SMALL + "server: {token_file: token}\ndatabase_file: db\n"))

    assert config.server.token is not None
    assert config.server.token.get_secret_value() == "hush"
    assert config.database == "sqlite:///other.db"
    assert "keep one" in str(refused(tmp_path, SMALL + "server: {token_file: token, token: x}\n"))


def test_merge_keys(tmp_path: Path) -> None:
    """YAML's merge keys work, so that sources can share what they have in common."""
    config = load(
        write(
            tmp_path,
            "projects: {p: {}}\nsources:\n- &a {name: a, project: p, url: a, poll: 5}\n- {<<: *a, name: b, url: b}\n",
        )
    )

    assert (config.source("b").poll, config.source("b").url) == (5.0, "b")


@pytest.mark.parametrize(
    ("first", "second", "covers"),
    [
        ("url: in", "url: in", True),
        ("url: in", "url: ./in/sub", True),
        ("url: in", "url: inn", False),
        ("url: s3://b/x", "url: s3://b/x/y", True),
        ("url: s3://b/x", "url: s3://b/xy", False),
        ("url: s3://key:pw@b/x", "url: s3://b/x", True),
        ("url: in, match: '**/*.json'", "url: in, match: '**/*.csv'", False),
        ("url: in, match: ['**/*.json', '*.csv']", "url: in, match: '**/*.csv'", True),
        ("url: in, match: 'a/**'", "url: in, match: 'b/**'", False),
        ("url: in, match: 'sub/**'", "url: in/sub", True),
        ("url: in, match: 'other/**'", "url: in/sub", False),
        ("url: in, exclude: '**/*.csv'", "url: in, match: '**/*.csv'", False),
        ("url: in", "url: in, overlap: true", False),
    ],
)
def test_overlap(tmp_path: Path, first: str, second: str, covers: bool) -> None:
    """Two sources of one project that may cover one object are refused unless they say that they may."""
    text = f"projects: {{p: {{}}}}\nsources:\n- {{name: a, project: p, {first}}}\n- {{name: b, project: p, {second}}}\n"

    if covers:
        error = refused(tmp_path, text)
        assert (error.path, error.line) == ("sources.1.url", 4)
        assert "overlap: true" in str(error)
    else:
        load(write(tmp_path, text))


def test_overlap_of_projects(tmp_path: Path) -> None:
    """Sources of different projects may cover the same objects."""
    load(
        write(
            tmp_path,
            "projects: {p: {}, q: {}}\nsources: [{name: a, project: p, url: i}, {name: b, project: q, url: i}]",
        )
    )


def test_same_name(tmp_path: Path) -> None:
    """Two sources of one name are an error."""
    error = refused(tmp_path, SMALL + "  - {name: inbox, project: opossums, url: x}\n")

    assert (error.path, error.line) == ("sources.1.name", 7)


def test_deliveries_stand_alone(tmp_path: Path) -> None:
    """Two deliveries of one name in a project, or to one remote from anywhere, are an error: each keeps the limits on
    imports by itself."""

    def made(*where: tuple[str, dict[str, object]]) -> Config:
        projects: dict[str, dict[str, list[object]]] = {"p": {"deliveries": []}, "q": {"deliveries": []}}
        for project, delivery in where:
            projects[project]["deliveries"].append(delivery)
        return build({"projects": projects, "sources": []}, tmp_path)

    studio = {"url": "http://studio:8080", "project": 1, "token": "x"}
    files = {"jsonl": {"url": "out"}}
    made(("p", {"label_studio": studio}), ("p", files), ("q", {"label_studio": {**studio, "project": 2}}))
    with pytest.raises(ConfigError, match="there is a delivery p/jsonl already"):
        made(("p", files), ("p", {"jsonl": {"url": "other"}}))
    for other in ("p", "q"):
        with pytest.raises(ConfigError, match="p/label_studio delivers to http://studio:8080 project 1 already"):
            made(("p", {"label_studio": studio}), (other, {"name": "b", "label_studio": {**studio, "token": "y"}}))
    for one, same in [
        ("http://studio:8080", "http://Studio:8080/"),
        ("http://studio/ls", "http://STUDIO:80/ls"),
        ("https://[::1]", "https://[::1]:443"),
    ]:
        pair = [{"name": name, "label_studio": {**studio, "url": url}} for name, url in (("a", one), ("b", same))]
        with pytest.raises(ConfigError, match=r"p/a delivers to .* already"):
            made(*(("p", each) for each in pair))
    for other_one in ("http://studio:8080/LS", "https://studio:8080", "http://studio:80808"):
        made(
            ("p", {"label_studio": {**studio, "url": "http://studio:8080/ls"}}),
            ("q", {"label_studio": {**studio, "url": other_one}}),
        )


def test_build(tmp_path: Path) -> None:
    """A configuration made in memory is checked in the same way."""
    with pytest.raises(ConfigError, match="did you mean project"):
        build({"projects": {"p": {}}, "sources": [{"name": "a", "projekt": "p", "url": "."}]}, tmp_path)


@given(st.integers(1, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations(number: int, unit: str) -> None:
    """A duration in each unit is that many of its seconds."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

    assert parse_duration(f"{number}{unit}") == pytest.approx(number * seconds[unit])


@pytest.mark.parametrize(
    ("text", "size"), [("5", 5), (5, 5), ("5b", 5), ("1.5kB", 1500), ("64MiB", 64 * 2**20), ("2 GB", 2 * 10**9)]
)
def test_sizes(text: object, size: int) -> None:
    """Sizes in thousands and in 1024s are told apart."""
    assert parse_size(text) == size
