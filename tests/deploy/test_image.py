"""The image is built as an engine would, and run by another user on a file system that is read-only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.deploy.image import Image, instructions

pytestmark = pytest.mark.timeout(3000)


def test_the_image_is_small(image: Image) -> None:
    """It holds one environment of what `requirements/runtime.txt` names and Labelfeed, and no tool that built it."""
    environment = image.machine.root / "opt" / "labelfeed"
    names = {path.name for path in (environment / "bin").iterdir()}
    packages = next(environment.glob("lib/python*/site-packages"))
    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink())

    assert "labelfeed" in names
    assert not names & {"pip", "hatchling", "pytest", "ruff", "uv"}
    assert (packages / "pipeline" / "__pycache__").is_dir(), "compiled, as it cannot be later"
    assert not (packages / "pytest").exists()
    assert size < 700e6
    assert [path.name for path in image.machine.root.iterdir() if path.name == "build"] == []


def test_the_image_runs_without_root_on_a_read_only_file_system(image: Image, tmp_path: Path) -> None:
    """As its own user, with nothing to write but /tmp, it imports a folder; anywhere else it can write nothing."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.json").write_text('{"text": "a"}')
    for name, place in (("labelfeed", "tmp"), ("elsewhere", "var")):
        (tmp_path / f"{name}.yaml").write_text(
            f"database: sqlite:////{place}/labelfeed.db\nprojects: {{p: {{}}}}\n"
            "sources: [{name: inbox, project: p, url: ./inbox, settle: 0s}]\n"
        )
    tmp_path.chmod(0o755)
    mounted = ("--ro-bind", str(tmp_path), "/etc/labelfeed")
    imported = image.run("run", "--once", "--log-format", "json", more=mounted)
    elsewhere = image.run("run", "--once", "--config", "elsewhere.yaml", more=mounted)

    assert imported.returncode == 0, imported.stderr
    assert "inbox" in imported.stdout
    assert elsewhere.returncode != 0
    assert "read-only" in elsewhere.stderr.lower() or "unable to open" in elsewhere.stderr.lower(), elsewhere.stderr


def test_the_image_has_every_component(image: Image) -> None:
    """Each store, log, sink and parser of Labelfeed finds its library in it."""
    done = image.run("components", "--json")

    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout) if not row["usable"]] == []


def test_the_image_is_run_by_its_verb(image: Image) -> None:
    """Without arguments it tells its verbs; with one it is that role."""
    (default,) = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    told = image.run(*default)

    assert (told.returncode, image.user, image.entry) == (0, "65532:65532", ["labelfeed"])
    assert {"watch", "dispatch", "work", "serve"} <= set(re.findall(r"\w+", told.stdout))
