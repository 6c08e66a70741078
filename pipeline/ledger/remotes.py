"""Which remote a delivery's name stands for: what was brought to one must not be brought there again under another."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from pipeline.errors import UsageError
from pipeline.ledger.deliveries import DeliveryIdentity


def renamed(
    deliveries: Sequence[DeliveryIdentity], known: Mapping[DeliveryIdentity, int], held: Container[int] = ()
) -> Mapping[int, DeliveryIdentity]:
    """Which of the ledger's rows (`known`, identity → number) go on under a new name of the configuration: of those
    with the same remote the project's own, if no other delivery of the configuration is that. `held` keep their names:
    processes that run know them by these.

    Raises:
        UsageError: a name that is new stands for a remote that another delivery has brought tasks to.
    """
    names = {(row.project, row.name) for row in known}
    left = [one for one in deliveries if one not in known]
    found: dict[int, DeliveryIdentity] = {}
    # A name that one of them had before is free for another by then.
    while free := [one for one in left if (one.project, one.name) not in names]:
        for one in free:
            row = _earlier(one, deliveries, known)
            if row is not None:
                if known[row] in held:
                    raise UsageError(
                        _told(one, [row], f"name it {row.name!r}, or start `labelfeed run` with the new name first")
                    )
                found[known[row]] = one
                names.discard((row.project, row.name))
        names |= {(one.project, one.name) for one in free}
        left = [one for one in left if one not in free]
    return found


def _earlier(
    one: DeliveryIdentity, deliveries: Sequence[DeliveryIdentity], known: Iterable[DeliveryIdentity]
) -> DeliveryIdentity | None:
    """What a name that is new was called before, if it had another one. Raises as `renamed`."""
    remote = (one.kind, one.target)
    using = [row for row in deliveries if row != one and (row.kind, row.target) == remote]
    if using:
        raise UsageError(_told(one, using, "a remote has one delivery, so leave one of them out"))
    earlier = [row for row in known if (row.kind, row.target) == remote]
    own = [row for row in earlier if row.project == one.project]
    if len(own) > 1:
        choice = " or ".join(repr(row.name) for row in own)
        raise UsageError(_told(one, own, f"each has brought tasks there, so name it {choice}"))
    if earlier and not own:
        step = f"deliver elsewhere, or bring its sources into project {earlier[0].project!r} and deliver from there"
        raise UsageError(_told(one, earlier, f"what was brought there would be there twice, so {step}"))
    return own[0] if own else None


def other_target(one: DeliveryIdentity, known: str) -> str:
    """What is said of a name that stood for another remote before."""
    return (
        f"delivery {one.name!r} of project {one.project!r} was {known} and is now {one.target}; what was delivered"
        " there is not here, so give it another name"
    )


def _told(one: DeliveryIdentity, others: Sequence[DeliveryIdentity], step: str) -> str:
    told = " and ".join(sorted(f"{row.project}/{row.name}" for row in others))
    return (
        f"projects.{one.project}.deliveries: the name {one.name!r} is new, and {told} stands for {one.target} already;"
        f" {step}"
    )
