"""The actors. A message carries numbers, never bytes: what it stands for is in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable

import dramatiq
from dramatiq import Broker, Message

from pipeline import logs
from pipeline.ledger import Claim
from pipeline.ledger.deliveries import Granted

IMPORT_QUEUE = "labelfeed.import"
ALONE_QUEUE = "labelfeed.alone"
DELIVER_QUEUE = "labelfeed.deliver"
IMPORT_OBJECTS = "import_objects"
IMPORT_ALONE = "import_alone"
DELIVER_BATCH = "deliver_batch"

_log = logging.getLogger(__name__)

Run = Callable[[int], object]
"""Runs the claim of a lease to its end."""
RunDelivery = Callable[[int, int], object]
"""Runs a delivery's grant to its end."""


def declare(broker: Broker, queue: str, run: Run) -> None:
    """Declare the actor of one of the two queues on a broker. A worker of the broker calls it."""
    actor = IMPORT_ALONE if queue == ALONE_QUEUE else IMPORT_OBJECTS

    @dramatiq.actor(broker=broker, actor_name=actor, queue_name=queue)
    def import_claim(lease: int) -> None:
        _guarded(run, lease)


def declare_delivery(broker: Broker, run: RunDelivery) -> None:
    """Declare the actor of deliveries on a broker."""

    @dramatiq.actor(broker=broker, actor_name=DELIVER_BATCH, queue_name=DELIVER_QUEUE)
    def deliver_batch(delivery: int, lease: int) -> None:
        _guarded(lambda number: run(delivery, number), lease)


def delivery_message(granted: Granted) -> Message[None]:
    """The message that stands for a delivery's grant."""
    numbers = {"delivery": granted.delivery, "lease": granted.lease}
    return Message(queue_name=DELIVER_QUEUE, actor_name=DELIVER_BATCH, args=(), kwargs=numbers, options={})


def message(claim: Claim) -> Message[None]:
    """The message that stands for a claim."""
    queue, actor = (ALONE_QUEUE, IMPORT_ALONE) if claim.alone else (IMPORT_QUEUE, IMPORT_OBJECTS)
    return Message(queue_name=queue, actor_name=actor, args=(), kwargs={"lease": claim.lease}, options={})


def _guarded(run: Run, lease: int) -> None:
    """The outer boundary of a worker thread. An error that comes here is ours; the lease's end mends what it
    left, so that the message is done with whatever happens."""
    try:
        run(lease)
    except Exception:  # noqa: BLE001 - said above
        _log.exception(logs.OUR_ERROR, extra={"lease": lease})
