"""The commands of docs/deployment.md put Labelfeed onto a machine, and its systemd unit then works there."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.image import Image, instructions
from tests.deploy.machine import Machine
from tests.faults.installation import until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deployment.md"
CONFIG = "/etc/labelfeed/labelfeed.yaml"
pytestmark = pytest.mark.timeout(3000)


def commands() -> list[str]:
    """What the page tells to type."""
    section = PAGE.read_text().partition("## systemd")[2]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [str(line) for line in block.splitlines()]


def test_the_environment_is_made_as_the_image_s_is() -> None:
    """The page's commands for Python are the image's own, so that one build proves both."""
    environment = r"(?:python3? -m venv|/opt/labelfeed/bin/pip install).*"
    page = [line for line in commands() if re.fullmatch(environment, line)]
    image = [part for word, rest in instructions() if word == "RUN" for part in re.split(r" +&& ", rest)]
    plain = [re.sub(r"^python ", "python3 ", part.replace("--no-cache-dir ", "")).strip() for part in image]

    assert len(page) == 3
    assert page == [part for part in plain if re.fullmatch(environment, part)]


@pytest.fixture
def machine(tmp_path: Path, image: Image) -> Machine:
    """A machine on which the page's other commands were typed, but for those that only systemd itself can do."""
    if os.geteuid() != 0:
        pytest.skip("users are made by root alone")
    made = Machine(tmp_path / "machine", shared=(str(ROOT),))
    made.root.mkdir()
    made.root.chmod(0o755)
    for parent in [tmp_path, *tmp_path.parents[:2]]:
        parent.chmod(0o755)
    shutil.copytree("/etc", made.root / "etc", symlinks=True, ignore_dangling_symlinks=True)
    shutil.copytree(image.machine.root / "opt", made.root / "opt", symlinks=True, copy_function=os.link)
    (made.root / "etc" / "systemd" / "system").mkdir(parents=True, exist_ok=True)
    others = [line for line in commands() if not re.match(r"systemctl|curl|python3|/opt/labelfeed/bin/pip", line)]
    assert len(others) == len(commands()) - 6
    made.run("sh", "-exc", "\n".join(others), folder=str(ROOT))
    return made


@contextmanager
def started(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """The unit's command, as the unit's user, in the file system that the unit lets it have."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's words are not lower-case
    parser.read(machine.root / "etc" / "systemd" / "system" / "labelfeed.service")
    unit = parser["Service"]
    assert (unit["ProtectSystem"], unit["PrivateTmp"], unit["CapabilityBoundingSet"]) == ("strict", "yes", "")
    state = f"/var/lib/{unit['StateDirectory']}"
    user = ("setpriv", f"--reuid={unit['User']}", f"--regid={unit['Group']}", "--clear-groups", "--no-new-privs")
    argv = machine.command(
        *user, "--bounding-set=-all", *unit["ExecStart"].split(), folder=unit["WorkingDirectory"], readonly=True,
        options=["--bind", str(machine.root / state.lstrip("/")), state, "--perms", "1777", "--tmpfs", "/tmp"],
    )  # fmt: skip
    with (machine.root.parent / "log").open("wb") as log:
        process = subprocess.Popen(argv, stderr=log, stdout=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_page_s_commands_and_the_unit(machine: Machine, tmp_path: Path) -> None:
    """After them a file in the sample's folder is a task, /readyz is content, and SIGTERM ends the service with 0."""
    config = machine.root / CONFIG.lstrip("/")
    assert (machine.root / "etc" / "labelfeed" / "environment").stat().st_mode & 0o777 == 0o600
    config.write_text(config.read_text().replace("127.0.0.1:9108", "127.0.0.1:0"))
    (machine.root / "srv" / "inbox" / "a.json").write_text('{"text": "by hand"}')
    log = tmp_path / "log"
    with started(machine) as process:
        port = until(lambda: re.search(r'"port": ?(\d+)', log.read_text()), what=log.read_text)[1]
        until(lambda: "batch_committed" in log.read_text(), what=log.read_text)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            ready = answer.status
        tasks = machine.run("/opt/labelfeed/bin/labelfeed", "tasks", "--config", CONFIG)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in children or [str(process.pid)]:
            subprocess.run(["kill", "-TERM", number], check=True)
        code = process.wait(60)

    assert ready == 200
    assert "by hand" in tasks
    assert code == 0, log.read_text()
