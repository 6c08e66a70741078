"""What deliveries promise of their names: a remote keeps its one history, whatever its delivery is called."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.ledger.deliveries import DeliveryIdentity
from tests.deliveries.desk import CATS, Desk
from tests.ledger.bench import Bench

STUDIO = CATS._replace(name="studio")
OTHER = CATS._replace(name="other", target="memory:2")


class NamesContract:
    """What a name stands for, and what becomes of a remote under another one."""

    def delivered(self, bench: Bench) -> Desk:
        """A delivery that has brought one task."""
        desk = Desk(bench)
        bench.imported("a", texts=("x",))
        desk.steps()
        return desk

    def names(self, desk: Desk) -> dict[str, int]:
        """The ledger's deliveries that are not retired."""
        return {row["name"]: row["id"] for row in desk.ledger.report() if not row["retired"]}

    @pytest.mark.parametrize(("retired", "keep"), [(False, False), (True, False), (True, True)])
    def test_a_renamed_delivery_sends_nothing_again(self, bench: Bench, retired: bool, keep: bool) -> None:
        """What a delivery has brought stays known when it has another name, at once or later; what came meanwhile is
        brought, too."""
        desk = self.delivered(bench)
        if retired:
            desk.ledger.register([])
        bench.imported("b", texts=("y",))
        (row,) = desk.ledger.register([STUDIO], keep=keep)
        assert row == desk.row._replace(name="cats/studio")
        assert self.names(desk) == {"cats/studio": desk.row.id}
        desk.steps()
        assert desk.remote.texts() == ["x", "y"]

    @pytest.mark.parametrize("name", ["remote", "studio"])
    def test_an_address_that_was_spelled_otherwise_goes_on(self, bench: Bench, name: str) -> None:
        """A delivery that a ledger has by another spelling of its address goes on, also under a new name; another
        project may not have it."""
        desk = self.delivered(bench)
        bench.execute("UPDATE deliveries SET target = 'HTTP://Studio:80/LS project 1'")
        now = CATS._replace(name=name, target="http://studio/LS project 1")
        with pytest.raises(UsageError, match="deliver elsewhere"):
            desk.ledger.register([now._replace(project="dogs")])
        (row,) = desk.ledger.register([now])
        assert row == desk.row._replace(name=f"cats/{name}")
        desk.steps()
        assert desk.remote.texts() == ["x"]
        with pytest.raises(UsageError, match="another name"):
            desk.ledger.register([now._replace(target="http://studio/ls project 1")])

    def test_a_name_in_use_stays(self, bench: Bench) -> None:
        """An import by hand renames no delivery of a configuration that other processes go on with."""
        desk = self.delivered(bench)
        with pytest.raises(UsageError, match="name it 'remote'"):
            desk.ledger.register([STUDIO], keep=True)
        assert self.names(desk) == {"cats/remote": desk.row.id}

    def test_a_name_for_the_first_where_a_second_comes(self, bench: Bench) -> None:
        """A delivery that gets a name because another one is added goes on; the other one begins."""
        desk = self.delivered(bench)
        rows = desk.ledger.register([OTHER, STUDIO])
        assert {row.name: row.id == desk.row.id for row in rows} == {"cats/other": False, "cats/studio": True}

    def test_a_name_that_is_free_may_be_given_anew(self, bench: Bench) -> None:
        """Names that move on from one remote to the next take their histories along."""
        desk = self.delivered(bench)
        desk.ledger.register([CATS, OTHER])
        before = self.names(desk)
        new = [CATS._replace(target="memory:3"), OTHER._replace(name="remote2"), CATS._replace(name="other")]
        desk.ledger.register(new)
        after = self.names(desk)
        assert (after["cats/remote2"], after["cats/other"]) == (before["cats/other"], before["cats/remote"])
        assert after["cats/remote"] not in before.values()

    @pytest.mark.parametrize("retired", [False, True])
    @pytest.mark.parametrize("name", ["remote", "studio"])
    def test_a_remote_of_another_project_is_refused(self, bench: Bench, retired: bool, name: str) -> None:
        """What another project has delivered to, under any name and at any time, is refused with what to do, and
        nothing changes."""
        desk = self.delivered(bench)
        if retired:
            desk.ledger.register([])
        before = self.names(desk)
        moved = CATS._replace(project="dogs", name=name)
        with pytest.raises(UsageError, match=r"projects\.dogs\.deliveries: .*cats/remote.*deliver elsewhere"):
            desk.ledger.register([moved, OTHER])
        assert self.names(desk) == before

    @pytest.mark.parametrize("known", [False, True])
    def test_a_remote_with_two_names_is_refused(self, bench: Bench, known: bool) -> None:
        """A remote that the configuration names twice is refused, and nothing changes."""
        desk = self.delivered(bench)
        before = self.names(desk)
        pair = [STUDIO, CATS] if known else [OTHER, OTHER._replace(name="third")]
        with pytest.raises(UsageError, match="leave one of them out"):
            desk.ledger.register(pair)
        assert self.names(desk) == before

    def test_one_of_two_histories_has_to_be_chosen(self, bench: Bench) -> None:
        """Where two names of a project stood for one remote, a third one is refused until one of them is named."""
        desk = self.delivered(bench)
        two = DeliveryIdentity("cats", "two", "memory", "memory:2")
        desk.ledger.register([CATS, two])
        bench.execute("UPDATE deliveries SET target = 'memory:1'")
        with pytest.raises(UsageError, match="name it 'remote' or 'two'"):
            desk.ledger.register([STUDIO])
        desk.ledger.register([CATS])
        assert self.names(desk) == {"cats/remote": desk.row.id}
