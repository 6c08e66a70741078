"""What every ledger promises of events, configuration and passes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipeline.errors import DataRefused, PositionsLost, UsageError
from pipeline.events import ObjectEvent, Sequencer
from pipeline.ledger import Outcome, Pass, SourceIdentity
from tests.ledger.bench import SOURCES, Bench, done, pending


class EventContract:
    def test_new_objects_are_ready(self, bench: Bench) -> None:
        """An event of a key never seen makes a ready object with the event's version and size."""
        assert bench.note("a.json", "b.json", size=7) == {"new": 2}

        row = bench.row("a.json")
        assert (row["state"], row["version"], row["size"], row["imported_version"]) == ("ready", "v1", 7, None)

    def test_repeats_change_nothing(self, bench: Bench) -> None:
        """The same event again is a duplicate, in whatever state the object is."""
        lease, (work,) = bench.begin("a.json")
        assert bench.note("a.json") == {"duplicate": 1}
        assert bench.commit(lease, done(work)).tasks == 1
        assert bench.note("a.json") == {"duplicate": 1}
        assert bench.state("a.json") == "done"

    def test_another_version_takes_the_lease_away(self, bench: Bench) -> None:
        """A worker on an older version can't commit once a newer one is recorded."""
        lease, (old, other) = bench.begin("a.json", "b.json")

        assert bench.note("a.json", version="v2") == {"changed": 1}
        committed = bench.commit(lease, done(old), done(other))
        assert (committed.kept, committed.lost) == ({other.id}, {old.id})
        assert bench.texts("a.json") == []
        assert (bench.state("a.json"), bench.state("b.json")) == ("ready", "done")

    def test_older_events_are_stale(self, bench: Bench) -> None:
        """An event whose sequencer is older than the one known changes nothing."""
        bench.note("a.json", version="v2", sequencer="0A")
        assert bench.note("a.json", version="v1", sequencer="9") == {"stale": 1}
        assert bench.row("a.json")["version"] == "v2"

    def test_ignored_changes_are_counted(self, bench: Bench) -> None:
        """Under `on_change: ignore` a new version of an imported object is counted once and changes no task."""
        bench.imported("a.json")
        assert bench.note("a.json", version="v2") == {"ignored": 1}
        assert bench.note("a.json", version="v2") == {"duplicate": 1}
        row = bench.row("a.json")
        assert (row["state"], row["version"], row["imported_version"], row["changes"]) == ("done", "v2", "v1", 1)
        assert bench.ledger.reports().sources()[0]["changes"] == 1

    def test_unknown_sources(self, bench: Bench) -> None:
        """Events of a source that the configuration doesn't know are counted, and make no object."""
        assert bench.note("a.json", source="elsewhere") == {"unknown": 1}
        assert bench.count("objects") == 0

    def test_deletion_of_what_was_never_seen(self, bench: Bench) -> None:
        """A deletion of an unknown key makes no object."""
        assert bench.note("a.json", kind="deleted") == {"unknown": 1}
        assert bench.count("objects") == 0

    def test_positions_go_forward_only(self, bench: Bench) -> None:
        """The ledger's place in a log moves with the events and never back."""
        ledger = bench.ledger
        ledger.record("log", [], {0: 7, 1: 3}, bench.policy)
        ledger.record("log", [], {0: 5, 2: 1}, bench.policy)
        ledger.record("other", [], {0: 1}, bench.policy)
        assert ledger.positions("log") == {0: 7, 1: 3, 2: 1}
        assert ledger.positions("never") == {}

    def test_positions_that_were_lost(self, bench: Bench) -> None:
        """Where the ledger is behind what its recorder knows of any partition, or knows nothing of it, nothing is
        written and the recorder is told; where it is further, or there is nothing to know yet, all is."""
        ledger, events = bench.ledger, [ObjectEvent("inbox", "a.json", version="v1")]
        ledger.record("log", [], {0: 7, 1: 3}, bench.policy)
        for expected, told in (({0: 8}, "8 to 7 in partition 0"), ({0: 7, 2: 1}, "1 to 0 in partition 2")):
            with pytest.raises(PositionsLost, match=told):
                ledger.record("log", events, {0: 9}, bench.policy, expected)
        assert bench.count("objects") == 0
        assert ledger.positions("log") == {0: 7, 1: 3}
        assert ledger.record("log", events, {0: 9, 2: 1}, bench.policy, {0: 7, 1: 2}) == {"new": 1}
        assert ledger.positions("log") == {0: 9, 1: 3, 2: 1}

    def test_refused_data_writes_nothing(self, bench: Bench) -> None:
        """A key that is no valid text is refused with all of its batch: neither objects nor positions."""
        events = [ObjectEvent("inbox", "a.json", version="v1"), ObjectEvent("inbox", "\ud800.json", version="v1")]
        with pytest.raises(DataRefused):
            bench.ledger.record("log", events, {0: 9}, bench.policy)
        assert bench.count("objects") == 0
        assert bench.ledger.positions("log") == {}

    def test_refused_version(self, bench: Bench) -> None:
        """A version that is no valid text is refused, of a new object and of a known one."""
        bench.note("a.json")
        for key in ("a.json", "b.json"):
            with pytest.raises(DataRefused):
                bench.note(key, version="\udfff")
        assert bench.row("a.json")["version"] == "v1"

    def test_two_recorders(self, bench: Bench) -> None:
        """Two recorders that both have the same new key make one object."""
        other = bench.another()
        bench.note("a.json")
        effects = other.record("log", [ObjectEvent("inbox", "a.json", version="v1")], {}, bench.policy)
        assert effects == {"duplicate": 1}
        assert bench.count("objects") == 1

    def test_recorders_at_the_same_time(self, bench: Bench) -> None:
        """Recorders that have the same keys at the same time make one object of each, and count it once."""
        keys = [f"k{number:03}" for number in range(60)]
        ledgers = [bench.another() for _ in range(4)]

        def record(index: int) -> None:
            for turn in range(6):
                events = [ObjectEvent("inbox", key, version=f"v{(index + turn) % 3}") for key in keys[index * 5 :]]
                ledgers[index].record("log", events, {0: index * 10 + turn}, bench.policy)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(record, range(4)))
        assert bench.count("objects") == 60
        assert bench.load().ready == 60
        assert bench.ledger.positions("log") == {0: 35}

    def test_history_is_bounded(self, bench: Bench) -> None:
        """Of an object's events and attempts the last twenty are remembered, the newest last."""
        bench.imported("a.json")
        for number in range(30):
            bench.note("a.json", version=f"w{number}")
        history = bench.ledger.reports().history(bench.row("a.json")["id"])
        assert [entry["version"] for entry in history] == [f"w{number}" for number in range(10, 30)]
        assert {entry["effect"] for entry in history} == {"ignored"}

    def test_lost_workers_are_forgotten_with_new_content(self, bench: Bench) -> None:
        """Another version of an object that has lost a worker isn't a suspect any more."""
        lease, _ = bench.begin("a.json")
        bench.end_lease(lease)
        bench.tick(lambda tick: tick.expire(10))
        assert bench.row("a.json")["lost"] == 1
        bench.note("a.json", version="v2")
        assert bench.row("a.json")["lost"] == 0

    def test_sequencers_are_kept(self, bench: Bench) -> None:
        """A sequencer that came with a repeat is remembered, so that older events are known as such."""
        bench.imported("a.json")
        bench.note("a.json", version="v1", sequencer="0F")
        assert bench.note("a.json", kind="deleted", version=None, sequencer="0E") == {"stale": 1}
        (known,) = bench.ledger.known(1, None, None, 10)
        assert Sequencer.parse(known.sequencer) == Sequencer("s3", "0F")


class SourceContract:
    def test_migrate_twice(self, bench: Bench) -> None:
        """Setting up a database that is set up changes nothing."""
        bench.note("a.json")
        bench.ledger.migrate()
        assert bench.count("objects") == 1

    def test_ping_names_the_database(self, bench: Bench) -> None:
        """A ping says which database it is and which schema it has."""
        assert "schema " in bench.ledger.ping()

    def test_register_gives_rows(self, bench: Bench) -> None:
        """The configuration's sources come back with their numbers, the same each time."""
        rows = bench.ledger.register(SOURCES)
        assert {(row.name, row.project, row.identity) for row in rows} == {
            ("inbox", "cats", "file:///inbox"),
            ("bucket", "dogs", "s3://bucket"),
        }
        assert bench.ledger.register(SOURCES) == rows

    def test_retired_sources(self, bench: Bench) -> None:
        """A source that left the configuration is retired: nothing of it is claimed, its tasks stay."""
        bench.imported("a.json")
        bench.note("b.json")
        bench.ledger.register(SOURCES[1:])

        assert bench.claims() == []
        assert bench.note("c.json") == {"unknown": 1}
        assert pending(bench.ledger) == 0
        assert (bench.state("a.json"), bench.state("b.json")) == ("retired", "retired")
        assert bench.texts("a.json") == ["a"]
        assert bench.ledger.reports().sources()[0]["retired"]

    def test_returning_sources(self, bench: Bench) -> None:
        """A source that comes back goes on where it was."""
        bench.note("a.json")
        bench.ledger.register(SOURCES[1:])
        bench.ledger.register(SOURCES)
        assert len(bench.claims()) == 1

    def test_another_store_is_refused(self, bench: Bench) -> None:
        """A known name that stands for another store is refused until it is accepted; nothing changes before."""
        moved = [replaced(SOURCES[0], identity="file:///other"), SOURCES[1]]
        with pytest.raises(UsageError, match="sources accept inbox"):
            bench.ledger.register(moved)
        assert not any(row["retired"] for row in bench.ledger.reports().sources())
        rows = bench.ledger.register(moved, accept=frozenset({"inbox"}))
        assert {row.identity for row in rows} == {"file:///other", "s3://bucket"}

    def test_moving_to_another_project(self, bench: Bench) -> None:
        """A source's tasks go with it to another project."""
        bench.imported("a.json", texts=("a", "b"))
        bench.ledger.register([replaced(SOURCES[0], project="dogs"), SOURCES[1]])
        tasks = {row["name"]: row["tasks"] for row in bench.ledger.reports().projects()}
        assert tasks == {"cats": 0, "dogs": 2}


def replaced(source: SourceIdentity, **columns: str) -> SourceIdentity:
    """A source with some things different."""
    return source._replace(**columns)


class PassContract:
    def test_a_pass_goes_on_after_a_restart(self, bench: Bench) -> None:
        """An unfinished pass is found again by another process with all that was remembered of it."""
        begun = bench.ledger.begin_pass(1)
        assert (begun.source_id, begun.after, begun.finished) == (1, None, None)
        known = replace(begun, after="m", listed=10, published=3, candidates=2, positions={0: 5, 3: 9})
        bench.ledger.save_pass(known, ["b", "a"], [])

        assert bench.another().begin_pass(1) == known
        assert bench.ledger.last_pass(1) is None
        assert bench.ledger.begin_pass(2).id != begun.id

    def test_gone_keys_come_in_order(self, bench: Bench) -> None:
        """Keys that a pass found gone come back in byte order, a page at a time, each once."""
        begun = bench.ledger.begin_pass(1)
        keys = ["é", "a", "Z", "z", "b/c", "b-c"]
        bench.ledger.save_pass(begun, keys, [])
        bench.ledger.save_pass(begun, ["a"], [])
        first = bench.ledger.gone_keys(begun.id, None, 4)
        assert first + bench.ledger.gone_keys(begun.id, first[-1], 4) == ["Z", "a", "b-c", "b/c", "z", "é"]

    @pytest.mark.parametrize("stopped", [None, "too many are gone"])
    def test_end_of_a_pass(self, bench: Bench, stopped: str | None) -> None:
        """A pass that has ended or was stopped is the last one; the next begins anew and has no gone keys."""
        begun = replace(bench.ledger.begin_pass(1), listed=4, stopped=stopped)
        bench.ledger.save_pass(begun, ["a"], [])
        bench.ledger.end_pass(begun)

        last = bench.ledger.last_pass(1)
        assert last is not None
        assert (last.id, last.listed, last.stopped) == (begun.id, 4, stopped)
        assert last.finished is not None
        assert last.finished >= last.started
        again = bench.ledger.begin_pass(1)
        assert again.id != begun.id
        assert bench.ledger.gone_keys(begun.id, None, 10) == []
        shown = bench.ledger.reports().sources()[0]["last_pass"]
        assert (shown["listed"], shown["stopped"]) == (4, stopped)

    def test_deletions_are_accepted_until_a_pass_completes(self, bench: Bench) -> None:
        """A person's word holds for one source, through passes that stop, and to the end of one that completes."""
        bench.ledger.accept_deletions(1)
        assert not bench.ledger.deletions_accepted(2)
        bench.ledger.end_pass(replace(bench.ledger.begin_pass(1), stopped="too many are gone"))
        assert bench.another().deletions_accepted(1)
        bench.ledger.end_pass(bench.ledger.begin_pass(1))
        assert not bench.ledger.deletions_accepted(1)

    def test_known_ranges(self, bench: Bench) -> None:
        """A page's range is (after, upto] in byte order, whatever the database's language."""
        keys = ["B", "a", "a/b", "a-b", "b", "ä", "日本"]
        bench.note(*keys)
        bench.note("a", source="bucket")

        def ask(after: str | None, upto: str | None, limit: int = 100) -> list[str]:
            return [known.key for known in bench.ledger.known(1, after, upto, limit)]

        assert ask(None, None) == ["B", "a", "a-b", "a/b", "b", "ä", "日本"]
        assert ask("a", "b") == ["a-b", "a/b", "b"]
        assert ask(None, "a") == ["B", "a"]
        assert ask("b", None) == ["ä", "日本"]
        assert ask(None, None, 2) == ["B", "a"]

    def test_known_rows(self, bench: Bench) -> None:
        """What is known of an object: its state, its versions, and when its last event came."""
        before = bench.ledger.now()
        bench.imported("a.json")
        bench.note("a.json", version="v2", sequencer="0A")
        (known,) = bench.ledger.known(1, None, None, 10)
        assert (known.key, known.state, known.wanted, known.imported) == ("a.json", "done", "v2", "v1")
        assert known.sequencer == "s3:0A"
        assert before <= known.last_event <= bench.ledger.now()
        assert bench.ledger.known_keys(1, ["a.json", "none"]) == {"a.json": known}
        assert bench.ledger.known_keys(2, ["a.json"]) == {}

    def test_out_of_scope(self, bench: Bench) -> None:
        """What the configuration no longer covers is set aside with its tasks, its worker can't commit; what is
        gone stays gone."""
        bench.imported("a.json")
        lease, (work,) = bench.begin("b.json")
        begun = bench.ledger.begin_pass(1)
        ids = [bench.row(key)["id"] for key in ("a.json", "b.json")]
        bench.ledger.save_pass(begun, [], ids)

        assert (bench.state("a.json"), bench.state("b.json")) == ("out_of_scope", "out_of_scope")
        assert bench.commit(lease, done(work)).kept == frozenset()
        assert bench.texts("a.json") == ["a"]
        assert bench.note("a.json", "b.json") == {"changed": 2}
        assert (bench.state("a.json"), bench.state("b.json")) == ("done", "ready")

    def test_gone_is_not_out_of_scope(self, bench: Bench) -> None:
        """An object that is gone stays gone when the configuration stops covering its key."""
        bench.imported("a.json")
        work = bench.again("a.json", lambda work: Outcome(work.id, "gone", archive=True), kind="deleted", version=None)
        bench.ledger.save_pass(bench.ledger.begin_pass(1), [], [work.id])
        assert bench.state("a.json") == "gone"

    def test_old_passes_are_forgotten(self, bench: Bench) -> None:
        """Sweeping keeps the last twenty passes of a source."""
        ended: list[Pass] = []
        for _ in range(25):
            ended.append(bench.ledger.begin_pass(1))
            bench.ledger.end_pass(ended[-1])
        other = bench.ledger.begin_pass(2)
        bench.ledger.sweep(100)
        assert bench.count("passes") == 21
        last = bench.ledger.last_pass(1)
        assert last is not None
        assert last.id == ended[-1].id
        assert bench.ledger.begin_pass(2) == other
