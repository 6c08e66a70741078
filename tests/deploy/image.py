"""The image, built without an engine: each instruction of the Dockerfile is carried out in a file system of its own, by
its letter, with this machine's Python in the place of the base image's; then it is run as an engine would."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.deploy.machine import Machine

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


class Image(NamedTuple):
    """What an engine would know of the image."""

    machine: Machine
    user: str
    folder: str
    entry: list[str]

    def command(self, *arguments: str, more: tuple[str, ...] = ()) -> list[str]:
        """`docker run --read-only --tmpfs /tmp --cap-drop ALL labelfeed …`."""
        user, _, group = self.user.partition(":")
        options = ["--unshare-user", "--uid", user, "--gid", group, "--cap-drop", "ALL", "--clearenv", *more]
        return self.machine.command(*self.entry, *arguments, options=options, folder=self.folder, readonly=True)

    def run(self, *arguments: str, more: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = self.command(*arguments, more=more)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: word and rest."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


class Builder:
    """Carries instructions out; `stages` are the machines that they make, by name, the last one without."""

    def __init__(self, place: Path) -> None:
        self.stages: dict[str, Machine] = {}
        self.image: dict[str, str] = {}
        self._place = place
        self._machine = Machine(place)
        self._folder = "/"

    def take(self, word: str, rest: str) -> None:
        """Carry out one instruction."""
        getattr(self, word.lower())(rest)

    def arg(self, rest: str) -> None:
        """The base image's version is not ours to choose."""
        assert rest.startswith("PYTHON=3.")

    def from_(self, rest: str) -> None:
        """A new stage of the base image."""
        base, _, name = rest.partition(" AS ")
        assert base == "python:${PYTHON}-slim"
        self._machine = self.stages[name] = Machine(self._place / (name or "last"), environment={})
        self._machine.root.mkdir()
        self._folder = "/"

    def workdir(self, rest: str) -> None:
        """A folder that is made where it isn't there."""
        (self._machine.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self._folder = rest
        self.image["WORKDIR"] = rest

    def copy(self, rest: str) -> None:
        """Files of the context, or of another stage."""
        option, words = re.fullmatch(r"(?:--from=(\w+) )?(.*)", rest).groups()  # type: ignore[union-attr]
        *sources, target = words.split()
        context = self.stages[option].root if option else ROOT
        place = self._machine.root / str(Path(self._folder) / target).lstrip("/")
        for source in sources:
            copied(context / source.lstrip("/"), place, into=target.endswith("/"))

    def run(self, rest: str) -> None:
        """A shell's command."""
        self._machine.run("sh", "-ec", rest, folder=self._folder)

    def env(self, rest: str) -> None:
        """Variables of the image."""
        pairs = dict(part.split("=", 1) for part in shlex.split(rest))
        path = pairs["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
        self._machine.environment = {**self._machine.environment, **pairs, "PATH": path}

    def other(self, word: str, rest: str) -> None:
        """What only the engine knows of."""
        self.image[word] = rest


def copied(source: Path, place: Path, *, into: bool) -> None:
    """As COPY does: a folder's content into a folder, a file to its new name or into a folder."""
    if source.is_dir():
        # As .dockerignore has it of the context; what the first stage has compiled is copied.
        left_out = shutil.ignore_patterns("__pycache__") if source.is_relative_to(ROOT) else None
        shutil.copytree(source, place, dirs_exist_ok=True, symlinks=True, ignore=left_out)
        return
    target = place / source.name if into else place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def built(place: Path) -> Image:
    """The image, built in a folder."""
    builder = Builder(place)
    for word, rest in instructions():
        method = {"FROM": "from_"}.get(word, word.lower())
        getattr(builder, method, lambda rest, word=word: builder.other(word, rest))(rest)
    machine = replace(builder.stages[""], shared=())
    known = builder.image
    return Image(machine, known["USER"], known["WORKDIR"], json.loads(known["ENTRYPOINT"]))
