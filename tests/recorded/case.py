"""What an input is: a file, a labelling configuration, and the way by which it comes in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Route = Literal["import", "storage", "files"]
"""By hand; from a storage; from a storage whose objects are wanted by reference."""


class Case(NamedTuple):
    """One input. `config` is a name of `configs.CONFIGS`."""

    name: str
    route: Route
    file: str
    config: str
    content: bytes
    preannotated: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells this input from any other, so that a recording of another one is noticed."""
        told = repr((self.route, self.file, self.config, self.content, self.preannotated))
        return hashlib.sha256(told.encode()).hexdigest()[:12]


def cases(
    file: str, contents: Mapping[str, str | bytes], config: str = "none", *routes: Route, fields: tuple[str, ...] = ()
) -> Iterator[Case]:
    """The cases of these contents, each under its own name, by each of the routes (by hand, if none is given)."""
    kind = file.rpartition(".")[2]
    for what, content in contents.items():
        for route in routes or ("import",):
            data = content.encode() if isinstance(content, str) else content
            yield Case(f"{route}: {kind}, {config}: {what}", route, file, config, data, fields)
