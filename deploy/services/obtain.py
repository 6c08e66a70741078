"""How programs come onto this machine: Debian packages, Maven artifacts, Go modules, Python wheels, npm packages.

Everything that is downloaded is of one exact version and is held against a lock: Maven's jars against
`locks/*.sha256`, wheels against the hashes in `locks/*.txt`, npm packages against those in
`locks/*/package-lock.json`, Go modules against the sum in the table (their dependencies against Go's checksum
database), Debian packages against the archive's signatures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.services.model import ServiceError

LOCKS = Path(__file__).parent / "locks"
INSTALL_SECONDS = 1800
APT_LOCK_SECONDS = 300
ERROR_TAIL = 600
"""Characters of a failed command's output that its error shows."""

_POM = "<project><modelVersion>4.0.0</modelVersion><groupId>labelfeed</groupId><artifactId>{name}</artifactId>\
<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def run(argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = INSTALL_SECONDS) -> str:
    """Run a command to its end and give its output; ServiceError with its last words if it fails."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ServiceError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{argv[0]} did not end within {timeout:.0f} s") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise ServiceError(f"{' '.join(argv[:3])} … failed ({done.returncode}): {output[-ERROR_TAIL:].strip()}")
    return output


def debian(packages: Sequence[str], command: str, places: Sequence[str] = ()) -> Path:
    """A command from the PATH or from `places`, after installing Debian packages where it isn't there yet."""
    found = _which(command, places)
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        raise ServiceError(f"{command} is not installed, and there is no apt-get to install {' '.join(packages)} with")
    if os.geteuid() != 0:
        raise ServiceError(f"{command} is not installed; run: sudo apt-get install {' '.join(packages)}")
    _apt(packages)
    found = _which(command, places)
    if found is None:
        raise ServiceError(f"{' '.join(packages)} installed no {command}")
    return found


def _which(command: str, places: Sequence[str]) -> Path | None:
    for place in places:
        if os.access(Path(place) / command, os.X_OK):
            return Path(place) / command
    found = shutil.which(command)
    return None if found is None else Path(found)


def _apt(packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="labelfeed-apt-") as archives:
        # Of our own: another apt run on the machine may empty the common folder halfway through ours.
        (Path(archives) / "partial").mkdir()
        options = ["-q", "-y", "-o", f"Dir::Cache::archives={archives}"]
        options += ["-o", f"DPkg::Lock::Timeout={APT_LOCK_SECONDS}"]
        # RUNLEVEL=1 keeps the packages' own scripts from starting servers on their default ports.
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", *options, "install", "--no-install-recommends", *packages]
        try:
            run(install, quiet)
        except ServiceError:
            run(["apt-get", *options, "update"], quiet)
            run([*install[: -len(packages)], "-f", *packages], quiet)


def maven(home: Path, name: str, artifacts: Sequence[str]) -> Path:
    """The folder of jars of `group:artifact:version` artifacts with all that they need at run time."""
    jars, installed = home / "jars", home / "installed"
    if installed.exists():
        return jars
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise ServiceError(f"{name} needs Java 17 and Maven, and {tool} is not installed")
    shutil.rmtree(jars, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    pom = home / "pom.xml"
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    pom.write_text(_POM.format(name=name, dependencies=dependencies))
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}", "-DincludeScope=runtime"]
    run(["mvn", "-q", "-B", "-C", "-f", str(pom), *goal])
    differing = _differing(jars, _read_lock(LOCKS / f"{name}.sha256"))
    if differing is not None:
        raise ServiceError(f"{name}: {differing} differs from deploy/services/locks/{name}.sha256")
    installed.touch()
    return jars


def _read_lock(path: Path) -> dict[str, str]:
    lines = (line.split() for line in path.read_text().splitlines() if line)
    return {name: digest for digest, name in lines}


def _differing(jars: Path, lock: Mapping[str, str]) -> str | None:
    names = {path.name for path in jars.glob("*.jar")}
    if names != lock.keys():
        return "the set of jars"
    for name, digest in lock.items():
        with (jars / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return name
    return None


def go(home: Path, package: str, version: str, checksum: str) -> Path:
    """The program of a Go package, built here; `checksum` is its module's sum as `go version -m` shows it."""
    program = home / package.rsplit("/", 1)[-1]
    if not program.exists():
        if shutil.which("go") is None:
            raise ServiceError(f"{package} is built with Go, and go is not installed")
        staging = home / "building"
        run(["go", "install", f"{package}@{version}"], {"GOBIN": str(staging)})
        built = staging / program.name
        if f"\t{version}\t{checksum}\n" not in run(["go", "version", "-m", str(built)]):
            raise ServiceError(f"{package} {version} is not the module that the table names")
        built.rename(program)
    return program


def go_module(module: str, version: str, checksum: str) -> Path:
    """The folder of a Go module's files, of which `checksum` is the sum; nothing of it is built."""
    said = run(["go", "mod", "download", "-json", f"{module}@{version}"], {"GOFLAGS": "-mod=mod"})
    found = json.loads(said[said.index("{") :])
    if found.get("Sum") != checksum:
        raise ServiceError(f"{module} {version} is not the module whose sum is {checksum}")
    return Path(found["Dir"])


def wheel(home: Path, name: str, program: str) -> Path:
    """A file inside a virtual environment that holds just the wheels of `locks/<name>.txt`."""
    environment, installed = home / "venv", home / "installed"
    if not installed.exists():
        shutil.rmtree(environment, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(environment)])
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        run([*pip, "--require-hashes", "-r", str(LOCKS / f"{name}.txt")])
        installed.touch()
    found = next(environment.glob(program), None)
    if found is None:
        raise ServiceError(f"the wheel of {name} holds no {program}")
    return found


def npm(home: Path, name: str, program: str) -> Path:
    """A file of the packages that `locks/<name>/package-lock.json` names, each held against its hash there."""
    installed = home / "installed"
    if not installed.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / name / file, home)
        run(["npm", "ci", "--prefix", str(home), "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"])
        installed.touch()
    if not (home / program).exists():
        raise ServiceError(f"the packages of {name} hold no {program}")
    return home / program
