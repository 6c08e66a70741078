"""The rules of the ledger as pure functions: every cell of the state and event table."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import EventKind, ObjectEvent, Sequencer, fold
from pipeline.ledger import (
    Change,
    Known,
    OldRow,
    OnChange,
    State,
    content_of,
    match_rows,
    on_event,
    on_retry,
)
from pipeline.sinks.outcomes import key_of
from pipeline.tasks import Task

POLICIES: tuple[OnChange, ...] = ("ignore", "replace", "append")
OPEN: tuple[State, ...] = ("ready", "claimed")
BADLY: tuple[State, ...] = ("failed", "skipped")


def known(state: State, wanted: str | None = "v1", imported: str | None = None, sequencer: str | None = None) -> Known:
    """What is known of an object."""
    return Known(1, "a", state, wanted, imported, sequencer, 0.0)


def event(version: str | None = "v1", kind: EventKind = "created", sequencer: str | None = None) -> ObjectEvent:
    """Something that happened to it."""
    return ObjectEvent("s", "a", kind, version, Sequencer.parse(sequencer))


@pytest.mark.parametrize("policy", POLICIES)
class TestEvents:
    def test_never_seen(self, policy: OnChange) -> None:
        """A key never seen is new, with its version and sequencer; its deletion is nothing."""
        assert on_event(None, event(sequencer="s3:0A"), policy) == Change("new", "ready", "v1", "s3:0A")
        assert on_event(None, event(None, "seen"), policy) == Change("new", "ready", None, None)
        assert on_event(None, event(None, "deleted"), policy).effect == "unknown"

    @pytest.mark.parametrize("state", [*OPEN, *BADLY])
    def test_the_wanted_version_again(self, policy: OnChange, state: State) -> None:
        """The version that is wanted anyway changes nothing, and re-opens nothing that ended badly."""
        change = on_event(known(state), event(), policy)
        assert (change.effect, change.state, change.wanted) == ("duplicate", None, "v1")

    def test_the_imported_version_again(self, policy: OnChange) -> None:
        """The imported version changes nothing on a done object; what was wanted meanwhile is wanted no more."""
        change = on_event(known("done", wanted="v2", imported="v1"), event(), policy)
        assert (change.effect, change.state, change.wanted) == ("duplicate", None, "v1")

    @pytest.mark.parametrize("state", ["ready", "claimed", "failed", "skipped", "gone", "out_of_scope"])
    @pytest.mark.parametrize("imported", [None, "v0"])
    def test_another_version(self, policy: OnChange, state: State, imported: str | None) -> None:
        """Another version makes every object ready that isn't done: no task of it would be lost by that."""
        change = on_event(known(state, imported=imported), event("v2"), policy)
        unread = policy == "append" and state in ("ready", "claimed") and imported != "v1"
        assert change == Change("superseded" if unread else "changed", "ready", "v2", None)

    def test_another_version_on_done(self, policy: OnChange) -> None:
        """On a done object `on_change` decides: left alone but noted, or ready."""
        change = on_event(known("done", imported="v1"), event("v2"), policy)
        expected = Change("ignored", None, "v2") if policy == "ignore" else Change("changed", "ready", "v2")
        assert change == expected

    def test_an_ignored_version_again(self, policy: OnChange) -> None:
        """A version that was left alone is counted once; where it is wanted it makes the object ready."""
        change = on_event(known("done", wanted="v2", imported="v1"), event("v2"), policy)
        assert change.effect == ("duplicate" if policy == "ignore" else "changed")

    def test_the_same_version_on_gone(self, policy: OnChange) -> None:
        """An object that is there again is read again, whatever version it had."""
        change = on_event(known("gone", imported="v1"), event(), policy)
        assert change == Change("changed", "ready", "v1", None)

    def test_back_in_scope(self, policy: OnChange) -> None:
        """What the configuration covers again is done if it is as imported, else ready."""
        assert on_event(known("out_of_scope", imported="v1"), event(), policy).state == "done"
        assert on_event(known("out_of_scope", imported="v0"), event(), policy).state == "ready"

    @pytest.mark.parametrize("state", ["claimed", "done", "failed", "skipped", "gone", "out_of_scope"])
    def test_a_hint_without_version(self, policy: OnChange, state: State) -> None:
        """Where the event doesn't say which version, the store is asked: ready with no wanted version."""
        assert on_event(known(state, imported="v1"), event(None), policy) == Change("asked", "ready", None, None)

    def test_a_hint_on_what_will_be_asked_anyway(self, policy: OnChange) -> None:
        """An object that waits to be asked about needs no second hint, nor a deletion."""
        assert on_event(known("ready", wanted=None), event(None), policy).effect == "duplicate"
        assert on_event(known("ready", wanted=None), event(None, "deleted"), policy).effect == "duplicate"
        assert on_event(known("ready", wanted="v1"), event(None), policy).effect == "asked"

    @pytest.mark.parametrize("state", [*OPEN, "done", "out_of_scope"])
    def test_deletion_asks_the_store(self, policy: OnChange, state: State) -> None:
        """A deletion is a hint: the object is ready with no wanted version, and the importer asks."""
        change = on_event(known(state, imported="v1"), event(None, "deleted"), policy)
        assert change == Change("asked", "ready", None, None)

    @pytest.mark.parametrize("state", BADLY)
    def test_deletion_of_what_ended_badly(self, policy: OnChange, state: State) -> None:
        """Without tasks it is gone at once; with tasks of an older version the store is asked, so that they can
        be archived; a deletion of another version proves nothing."""
        assert on_event(known(state), event(None, "deleted"), policy).state == "gone"
        assert on_event(known(state), event("v1", "deleted"), policy).state == "gone"
        assert on_event(known(state), event("v0", "deleted"), policy).effect == "asked"
        assert on_event(known(state, imported="v0"), event(None, "deleted"), policy).effect == "asked"

    def test_deletion_of_what_is_gone(self, policy: OnChange) -> None:
        """It stays gone."""
        assert on_event(known("gone"), event(None, "deleted"), policy).effect == "duplicate"

    @pytest.mark.parametrize("state", ["ready", "claimed", "done", "failed", "skipped", "gone", "out_of_scope"])
    @pytest.mark.parametrize("kind", ["created", "deleted"])
    def test_older_sequencers(self, policy: OnChange, state: State, kind: EventKind) -> None:
        """An event that is older than the one known changes nothing, in any state."""
        row = known(state, sequencer="s3:00B")
        assert on_event(row, event("v9", kind, "s3:A"), policy) == Change("stale", None, "v1", "s3:00B")

    def test_sequencers_that_have_no_order(self, policy: OnChange) -> None:
        """Sequencers of two kinds can't be compared; an event without one leaves the known one."""
        assert on_event(known("failed", sequencer="s3:0B"), event("v2", sequencer="gcs:1"), policy).effect == "changed"
        assert on_event(known("ready", sequencer="s3:0B"), event("v2"), policy).sequencer == "s3:0B"
        assert on_event(known("ready", sequencer="s3:0B"), event("v2", sequencer="s3:0C"), policy).sequencer == "s3:0C"


@pytest.mark.parametrize(
    ("state", "running", "force", "refused"),
    [
        ("failed", False, False, None),
        ("skipped", False, False, None),
        ("done", False, True, None),
        ("done", False, False, "--force"),
        ("claimed", True, True, "running"),
        ("claimed", False, False, "waiting"),
        ("ready", False, True, "waiting"),
        ("gone", False, True, "no longer has it"),
        ("out_of_scope", False, True, "no longer covers"),
    ],
)
def test_retry(state: State, running: bool, force: bool, refused: str | None) -> None:
    """Only what ended badly can be put back, and with force what is done; each refusal says why."""
    why = on_retry(state, running=running, force=force)
    assert why is None if refused is None else refused in str(why)


# --- fold -----------------------------------------------------------------------------------------------

versions = st.sampled_from(["v1", "v2", None])
sequencers = st.sampled_from([None, "s3:01", "s3:2", "s3:03", "gcs:5", "gcs:6"])
kinds = st.sampled_from(["created", "seen", "deleted"])
events = st.builds(
    lambda kind, version, token: ObjectEvent("s", "a", kind, version, Sequencer.parse(token)),
    kinds,
    versions,
    sequencers,
)


@given(st.lists(events, min_size=1, max_size=5))
def test_fold_is_safe_in_any_order(batch: list[ObjectEvent]) -> None:
    """Folding gives the newest event, one that all agree with, or a hint; never one that another contradicts."""
    (folded,) = fold(batch)
    hint = folded.version is None and folded.kind != "deleted"
    for each in batch:
        newer = each.sequencer is not None and each.sequencer.after(folded.sequencer)
        ordered = folded.sequencer is not None and folded.sequencer.after(each.sequencer)
        agrees = (each.kind == "deleted", each.version) == (folded.kind == "deleted", folded.version)
        both_deleted = each.kind == "deleted" == folded.kind
        assert hint or (not newer and (ordered or agrees or both_deleted))


@given(
    st.lists(
        st.builds(lambda n: ObjectEvent("s", "a", "created", f"v{n}", Sequencer("s3", f"{n:X}")), st.integers(0, 300)),
        min_size=1,
        max_size=4,
    )
)
def test_fold_of_ordered_events(batch: list[ObjectEvent]) -> None:
    """Events that carry the store's own order fold to the newest, whatever order they come in."""
    newest = max(batch, key=lambda each: int(each.sequencer.value, 16) if each.sequencer else 0)
    assert {fold(order)[0].version for order in permutations(batch)} == {newest.version}


def test_fold_sorts_by_source_and_key() -> None:
    """One event a key comes out, sorted, so that two recorders take their rows in one order."""
    batch = [ObjectEvent(source, key, version="v") for source in "ba" for key in ("z", "a", "z")]
    assert [event.ref for event in fold(batch)] == [("a", "a"), ("a", "z"), ("b", "a"), ("b", "z")]


def test_fold_creation_and_deletion_of_one_generation() -> None:
    """A generation that was made and deleted may be there or not: the store is asked."""
    token = Sequencer("gcs", "7")
    batch = [ObjectEvent("s", "a", "created", "7", token), ObjectEvent("s", "a", "deleted", "7", token)]
    for order in permutations(batch):
        (folded,) = fold(order)
        assert (folded.kind, folded.version, folded.sequencer) == ("updated", None, token)


# --- matching rows ----------------------------------------------------------------------------------------

texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)
keyed = st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, None]), st.sampled_from(["a", "b"])), max_size=8)


def tasks_of(rows: list[tuple[int | None, str]]) -> list[Task]:
    """Tasks with a key and a text."""
    made = [{"text": text} if key is None else {"id": key, "text": text} for key, text in rows]
    return [Task(row, json.dumps(data)) for row, data in enumerate(made, start=1)]


def replaced(old: list[Task], new: list[Task], row_key: str | None) -> tuple[list[Task], set[int], set[int]]:
    """The tasks there are once a match was applied; the old ones that were rewritten, and that were left."""
    key = key_of(row_key)
    rows = [OldRow(100 + n, n, key and key(task), content_of(task)) for n, task in enumerate(old)]
    match = match_rows(rows, new, key)
    live: dict[int, Task] = {100 + n: task for n, task in enumerate(old)}
    for gone in match.archived:
        del live[gone]
    rewritten = {task_id for task_id, _ in match.updated}
    assert rewritten <= live.keys()
    assert len(rewritten) == len(match.updated)
    for task_id, (position, task) in match.updated:
        assert new[position] == task
        live[task_id] = task
    for position, task in match.added:
        assert new[position] == task
        live[1000 + position] = task
    assert (match.proposed, match.withdrawn) == ([], [])
    return list(live.values()), rewritten, live.keys() & {100 + n for n in range(len(old))}


@given(keyed, keyed, st.sampled_from([None, "id"]))
def test_matching_gives_the_new_content(
    old: list[tuple[int | None, str]], new: list[tuple[int | None, str]], row_key: str | None
) -> None:
    """Whatever the two versions are, replacing leaves exactly the new version's tasks."""
    live, _, _ = replaced(tasks_of(old), tasks_of(new), row_key)
    assert sorted(task.data for task in live) == sorted(task.data for task in tasks_of(new))


@given(texts, texts)
def test_equal_rows_are_not_rewritten(old: list[str], new: list[str]) -> None:
    """As many rows stay untouched as the two versions have in common."""
    before = tasks_of([(None, text) for text in old])
    _, rewritten, left = replaced(before, tasks_of([(None, text) for text in new]), None)
    common = sum(min(old.count(text), new.count(text)) for text in set(old))
    assert len(left - rewritten) == common
    assert len(left) == min(len(old), max(common, len(left)))


@given(keyed)
def test_the_same_version_touches_nothing(rows: list[tuple[int | None, str]]) -> None:
    """A file that didn't change rewrites, adds and archives nothing, whether its rows have keys or not."""
    for row_key in (None, "id"):
        tasks = tasks_of(rows)
        key = key_of(row_key)
        old = [OldRow(n, n, key and key(task), content_of(task)) for n, task in enumerate(tasks)]
        match = match_rows(old, tasks, key)
        assert (match.added, match.archived) == ([], [])
        if row_key is None:
            assert match.updated == []


@given(texts, texts, st.sets(st.integers(0, 7)), st.dictionaries(st.integers(0, 7), st.sampled_from(["a", "e"])))
def test_what_is_kept_is_never_rewritten(old: list[str], new: list[str], kept: set[int], told: dict[int, str]) -> None:
    """Every new row has its task; one that is kept has the row's content, or that is proposed, or was before."""
    before, after = tasks_of([(None, text) for text in old]), tasks_of([(None, text) for text in new])
    proposals = {n: content_of(task) for n, task in enumerate(tasks_of([(None, told.get(n, "")) for n in range(8)]))}
    rows = [
        OldRow(n, n, None, content_of(task), n in kept, proposals[n] if n in told and n in kept else None, n in told)
        for n, task in enumerate(before)
    ]
    match = match_rows(rows, after, None)

    assert not kept & {task_id for task_id, _ in match.updated}
    assert len(rows) - len(match.archived) + len(match.added) == len(new)
    touched = [task_id for task_id, _ in match.updated + match.moved]
    assert len(set(touched)) == len(touched)
    for task_id, (position, task) in match.proposed:
        assert task_id in kept
        assert content_of(after[position]) == content_of(task) not in (rows[task_id].content, rows[task_id].told)
    places = dict(match.moved)
    for row in rows:
        if row.id in kept and row.id not in match.archived and row.id not in dict(match.proposed):
            position = places[row.id].position if row.id in places else row.position
            assert content_of(after[position]) in (row.content, row.told)


def test_rows_with_a_key_are_never_matched_by_position() -> None:
    """Two rows with different keys are different tasks, even in the same place."""
    live, rewritten, left = replaced(tasks_of([(1, "a")]), tasks_of([(2, "b")]), "id")
    assert (len(live), rewritten, left) == (1, set(), set())


@given(st.integers(0, 2**64), st.integers(0, 2**64))
def test_s3_sequencers_compare_as_padded_hexadecimal(first: int, second: int) -> None:
    """Sequencers of different length are compared as AWS says: padded to one length."""
    one, two = Sequencer("s3", f"{first:X}"), Sequencer("s3", f"{second:x}")
    assert one.after(two) == (first > second)
    assert one.after(Sequencer("gcs", "1")) is None
