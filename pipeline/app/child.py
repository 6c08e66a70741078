"""`python -m pipeline.app.child`: the process in which a suspected object runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pipeline.app.parts import open_data, open_feed
from pipeline.app.roles import collect_seldom, config_of
from pipeline.consumers.child import serve
from pipeline.consumers.importer import Importer
from pipeline.consumers.renewer import Renewer
from pipeline.metrics import Metrics


@contextmanager
def build(payload: Mapping[str, Any], worker: str, at: Callable[[int], None]) -> Iterator[Importer]:
    """An importer of its own, that tells `at` which object it is at. Its parent renews the lease."""
    config = config_of(payload)
    with ExitStack() as stack:
        data = open_data(config, stack, readonly=False)
        feeds = {source.name: open_feed(config, source) for source in config.sources}
        renewer = Renewer(data.ledger, worker, config.limits.lease)
        importer = Importer(feeds, data.ledger, Metrics(), worker, config.limits, renewer, at=at)
        stack.callback(importer.close)
        yield importer


if __name__ == "__main__":
    collect_seldom()
    serve(build)
