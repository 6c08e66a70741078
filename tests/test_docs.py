"""The documentation tells the truth: what the code has is in it, and what it shows runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from pipeline.cli import app
from pipeline.config import load
from pipeline.errors import LabelfeedError
from pipeline.metrics import PREFIX, TABLE
from pipeline.tasks import OBJECT_CODES, ROW_CODES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in (ROOT / "docs").glob("*.md")}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_made_parts_are_current() -> None:
    """What is made of the code is what the code says now (make docs)."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stdout


def test_verbs() -> None:
    """Every verb is in the README and, with every option, in the page of the command line; each has a sentence."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]  # a group
        assert f"`{name}" in README
        assert f"## {name}" in PAGES["cli.md"]
        assert command.help
        for option in command.params:
            assert all(word in PAGES["cli.md"] for word in option.opts if word.startswith("--"))


def test_metrics() -> None:
    """Every metric is in the operations page."""
    for metric in TABLE:
        assert f"`{PREFIX}{metric.name}`" in PAGES["operations.md"]


@pytest.mark.parametrize("code", sorted(OBJECT_CODES))
def test_object_codes(code: str) -> None:
    """Every code of an object stands in the operations page, with what to do."""
    assert f"| `{code}` |" in PAGES["operations.md"]


@pytest.mark.parametrize("code", sorted(ROW_CODES))
def test_row_codes(code: str) -> None:
    """Every code of a row stands in the formats page."""
    assert f"`{code}`" in PAGES["formats.md"]


def test_readme_is_short() -> None:
    """The README can be read in one go."""
    assert len(README.splitlines()) <= 150


def test_readme_commands_run(tmp_path: Path) -> None:
    """The commands of the README run, one after another, as they are printed."""
    script = "set -e\n" + "".join(blocks(README, "sh"))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "labelfeed"
    program.write_text(f"#!{sys.executable}\nfrom pipeline.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stderr
    assert "It climbed the fence." in found.stdout


def test_readme_configuration_is_valid(tmp_path: Path) -> None:
    """The README's configuration, the one that `init` writes and the example's are valid."""
    (tmp_path / "opossums.xml").write_text("<View/>")
    for block in blocks(README, "yaml"):
        path = tmp_path / "labelfeed.yaml"
        path.write_text(block)
        assert load(path).sources
    assert load(ROOT / "examples" / "labelfeed.yaml").sources
    assert load(ROOT / "pipeline" / "cli" / "sample" / "labelfeed.yaml").sources


def test_links() -> None:
    """Every relative link of the README and the pages leads to a file that is there."""
    for folder, text in [(ROOT, README), (ROOT, (ROOT / "CONTRIBUTING.md").read_text())] + [
        (ROOT / "docs", text) for text in PAGES.values()
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (folder / target).exists(), target


def test_errors_have_codes() -> None:
    """Every error class has a code of its own."""
    classes = [LabelfeedError]
    for kind in classes:
        classes += kind.__subclasses__()
    codes = [kind.code for kind in classes if "code" in vars(kind)]

    assert len(codes) == len(set(codes))


def test_demo(tmp_path: Path) -> None:
    """The example inbox gives what the README shows."""
    text = (ROOT / "examples" / "labelfeed.yaml").read_text()
    values = yaml.safe_load(text)
    moved = tmp_path / "labelfeed.yaml"
    moved.write_text(
        text.replace("url: ./inbox", f"url: {ROOT}/examples/inbox")
        .replace("behaviour.xml", str(ROOT / "examples" / "behaviour.xml"))
        .replace(values["database"], "sqlite:///demo.db")
    )
    program = "from pipeline.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", program, "run", "--once", "--config", str(moved)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    shown = README.split("$ make demo\n")[1].split("Try next:")[0]
    without_times = re.compile(r" +[0-9.]+$", re.MULTILINE)
    lines = [line.rstrip() for line in found.stdout.splitlines()]
    assert found.returncode == 1
    assert without_times.sub("", "\n".join(lines).strip()) == without_times.sub("", shown.strip())
