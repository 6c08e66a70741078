"""The deliveries of a configuration, opened, and the labelling configurations that their remotes have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from pipeline import logs, registry
from pipeline.config import Config, Delivery, Project
from pipeline.consumers.filling import Outlet
from pipeline.errors import ConfigError, LabelfeedError
from pipeline.labelconfig import LabelConfig
from pipeline.ledger import Ledger
from pipeline.ledger.deliveries import DeliveryIdentity, DeliveryRow
from pipeline.sinks import Delivery as Component

_log = logging.getLogger(__name__)


def identities(config: Config) -> list[DeliveryIdentity]:
    """What the ledger has to know of each delivery."""
    return [
        DeliveryIdentity(project, delivery.known_as, delivery.kind, delivery.target)
        for project, _, delivery in _all(config)
    ]


def open_outlets(config: Config, rows: Sequence[DeliveryRow]) -> dict[int, Outlet]:
    """The deliveries by their number in the ledger. Raises UsageError where a component can't be had."""
    ids = {row.name: row.id for row in rows}
    outlets = {}
    for name, project, delivery in _all(config):
        options, known_as = delivery.options, f"{name}/{delivery.known_as}"
        outlets[ids[known_as]] = Outlet(
            ids[known_as], known_as, opened(config, delivery), project.throttle, options.timeout, options.settle,
            options.delete_remote,
        )  # fmt: skip
    return outlets


def opened(config: Config, delivery: Delivery) -> Component:
    """The component of a delivery."""
    made: Component = registry.load("sinks", delivery.kind)(delivery.options, config.folder)
    return made


def with_label_configs(config: Config, ledger: Ledger, rows: Sequence[DeliveryRow] | None = None) -> Config:
    """The configuration, in which a project without a labelling configuration has that of its delivery's remote: as
    it is there now or, while the remote doesn't answer, as it was when it was last asked. Without `rows`, from
    registering, nobody is asked."""
    ask = rows is not None
    if rows is None:
        rows = [
            DeliveryRow(row["id"], row["name"], row["stamp"], row["label_config"])
            for row in ledger.deliveries().report()
        ]
    known = {row.name: row for row in rows}
    found: dict[str, Project] = {}
    for name, project, delivery in _all(config):
        if project.label_config is None and name not in found:
            row = known.get(f"{name}/{delivery.known_as}")
            xml = None if row is None else _asked(config, ledger, row, delivery) if ask else row.label_config
            if xml is not None:
                found[name] = project.model_copy(update={"label_config": xml})
    return config.model_copy(update={"projects": {**config.projects, **found}}) if found else config


def _asked(config: Config, ledger: Ledger, row: DeliveryRow, delivery: Delivery) -> str | None:
    try:
        with closing(opened(config, delivery)) as component:
            xml = component.label_config()
        if xml is not None:
            LabelConfig.parse(xml)
    except ConfigError as error:
        _log.warning(logs.DELIVERY_FAILED, extra={"delivery": row.name, "code": error.code, "error": str(error)})
        return None
    except LabelfeedError as error:
        _log.warning(logs.DELIVERY_FAILED, extra={"delivery": row.name, "code": error.code, "error": str(error)})
        return row.label_config
    if xml is not None and xml != row.label_config:
        ledger.deliveries().remember_config(row.id, xml)
    return xml


def pings(config: Config) -> dict[str, Callable[[], str]]:
    """For each delivery a call that opens it and says what is found there, and what it asks for that we do not."""
    return {
        f"{name}/{delivery.known_as}": partial(_ping, config, project, delivery)
        for name, project, delivery in _all(config)
    }


def _ping(config: Config, project: Project, delivery: Delivery) -> str:
    with closing(opened(config, delivery)) as component:
        told = component.ping()
        xml = component.label_config() if project.label_config is not None else None
    return told if xml is None else told + _asks_for_more(project.label_config or "", xml)


def _asks_for_more(ours: str, theirs: str) -> str:
    try:
        wanted = set(LabelConfig.parse(theirs).data_keys) - set(LabelConfig.parse(ours).data_keys)
    except ConfigError:
        return "; its labelling configuration cannot be read"
    return f"; its labelling configuration also asks for {', '.join(sorted(wanted))}" if wanted else ""


def _all(config: Config) -> Iterator[tuple[str, Project, Delivery]]:
    for name, project in config.projects.items():
        for delivery in project.deliveries:
            yield name, project, delivery
