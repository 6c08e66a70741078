"""A store seen through its source's limits of size and age, where an object was not looked at before it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ObjectSkipped
from pipeline.stores import Content, Reading, Store
from pipeline.stores.scope import OF_AGE, Scope


def within(store: Store, scope: Scope) -> Store:
    """The store itself, or where sizes are limited one that opens no object beyond the limits."""
    limited: Any = store if scope.bounds is None else Within(store, scope)
    made: Store = limited
    return made


class Within:
    """All that the store is, but for `open` and `contents`."""

    def __init__(self, store: Store, scope: Scope) -> None:
        self._store = store
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._contents(found) if name == "contents" else found

    def _contents(self, contents: Callable[[Iterable[str]], Iterator[Content]]) -> Any:
        """`Store.contents` that leaves to `open` what is beyond a limit."""

        def within(keys: Iterable[str]) -> Iterator[Content]:
            for found in contents(keys):
                yield None if found is None or self._scope.refuses(found[0]) is not None else found

        return within

    @contextmanager
    def open(self, key: str) -> Iterator[Reading]:
        """As `Store.open`. Raises ObjectSkipped (`left_out`) for an object beyond the limits of size."""
        with self._store.open(key) as reading:
            rule = self._scope.refuses(reading.entry)
            # A notification of a new version may come before its time; what it told of is taken all the same.
            if rule is not None and rule not in OF_AGE:
                raise ObjectSkipped("left_out", f"its {reading.entry.size:,} bytes are beyond {rule}")
            yield reading
