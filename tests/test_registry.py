"""The registry: a name becomes a component, and nothing is imported before."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline import registry
from pipeline.config import Limits, ParseOptions, Source
from pipeline.config.shape import keys_of
from pipeline.errors import UsageError

ROOT = Path(__file__).parent.parent
SDKS = (
    "boto3",
    "botocore",
    "obstore",
    "kafka",
    "redis",
    "psycopg",
    "google",
    "azure",
    "pyarrow",
    "dramatiq",
    "sqlite3",
)


@pytest.mark.parametrize("component", registry.BUILT_IN, ids=lambda row: f"{row.kind}-{row.name}")
def test_built_in(component: registry.Component) -> None:
    """Every component of ours is really there, and its module says in one sentence what it is."""
    summary, missing = registry.described(component)

    assert missing is None
    assert summary


def test_entry_points() -> None:
    """The built-in table and the distribution's entry points are the same."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("entry-points", {})
    declared = {
        (group.removeprefix(registry.GROUP), name, target)
        for group, entries in groups.items()
        for name, target in entries.items()
    }

    assert declared == {(row.kind, row.name, row.target) for row in registry.BUILT_IN}


def test_options() -> None:
    """What a component goes by is a key of the configuration, and every key of the parsers is some parser's."""
    keys = {*keys_of(Source), *(f"limits.{key}" for key in keys_of(Limits))}
    named = {option for row in registry.BUILT_IN for option in row.options}
    parsers = {option for row in registry.BUILT_IN if row.kind == "parsers" for option in row.options}

    assert named <= keys
    assert set(keys_of(ParseOptions)) - {"format"} <= parsers


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("./inbox", "file"),
        ("/a:b/c", "file"),
        ("C:/inbox", "file"),
        ("file:///x", "file"),
        ("S3://bucket/x", "s3"),
        ("sqlite:///x.db", "sqlite"),
        ("embedded:", "embedded"),
        ("odd name: with colon", "file"),
    ],
)
def test_scheme(url: str, name: str) -> None:
    """A URL's scheme names the component; a path has none."""
    assert registry.scheme(url) == name


def test_unknown() -> None:
    """A name that nobody bears is an error of use that names the nearest."""
    with pytest.raises(UsageError, match="did you mean file"):
        registry.find("stores", "fil")
    with pytest.raises(UsageError, match="there are embedded"):
        registry.find("buses", "xyz")


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A component whose library is not installed says with which extra to install it."""
    (tmp_path / "needy_component.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = registry.Component("stores", "needy", "needy_component:Store", extra="s3")
    monkeypatch.setattr(registry, "_BY_NAME", {("stores", "needy"): row})

    with pytest.raises(UsageError, match=r'a_library_that_is_not_there.*pip install "labelfeed\[s3\]"'):
        registry.load("stores", "needy")


def test_foreign_component(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another distribution adds a component with one entry-point line."""
    (tmp_path / "other_store.py").write_text('"""A store of others."""\nclass Store: pass\n')
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[labelfeed.stores]\nother = other_store:Store\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert registry.load("stores", "other").__name__ == "Store"
    assert [row.distribution for row in registry.components() if row.name == "other"] == ["other"]


@pytest.mark.parametrize("code", ["import pipeline", "import pipeline.registry, pipeline.config"])
def test_no_sdk(code: str) -> None:
    """Importing the package loads no client of a server or a cloud."""
    program = f"{code}; import sys; print([name for name in {SDKS} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
