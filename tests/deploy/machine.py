"""Another machine's file system, made by bubblewrap of folders of this one: what images and installations are tried in.

Programs and libraries are this machine's, and read-only; everything else is empty.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.services import obtain
from tests.servers import needed

SHARED = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
"""What every machine has, and nothing is written to."""
PYTHON = Path(sys.base_prefix)
SEARCHED = f"{PYTHON / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 2400
"""How long a command may take: an installation of everything takes minutes, on a busy machine many."""


@dataclass
class Machine:
    """A root file system in a folder. `shared` are more folders of this machine that it has, read-only."""

    root: Path
    shared: Sequence[str] = ("/etc",)
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(
        self, *command: str, options: Sequence[str] = (), folder: str = "/", readonly: bool = False
    ) -> list[str]:
        """How to run a command in it; with `readonly` nothing but /tmp can be written."""
        shared = [place for place in (*SHARED, *self.shared, str(PYTHON)) if Path(place).exists()]
        for place in (*shared, "/dev", "/proc", "/tmp"):
            # Bubblewrap would make them, so that nobody but root can pass through.
            (self.root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        binds = [part for place in shared for part in ("--ro-bind", place, place)]
        root = ["--ro-bind" if readonly else "--bind", str(self.root), "/"]
        more = ["--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp"]
        more += ["--die-with-parent", "--chdir", folder]
        given = {"PATH": SEARCHED} | dict(self.environment)
        variables = [part for name, value in given.items() for part in ("--setenv", name, value)]
        return [str(bubblewrap()), *root, *binds, *more, *options, *variables, "--", *command]

    def run(self, *command: str, folder: str = "/", options: Sequence[str] = (), readonly: bool = False) -> str:
        """Run a command in it, which must succeed; gives what it printed."""
        argv = self.command(*command, folder=folder, options=options, readonly=readonly)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout


def bubblewrap() -> Path:
    """Bubblewrap; where it can't be had, or may not do its work, the test is skipped, and fails where CI is set."""
    with needed():
        found = obtain.debian(("bubblewrap",), "bwrap")
        obtain.run([str(found), "--ro-bind", "/", "/", "true"])
    return found
