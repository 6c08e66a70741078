"""What `status` says of a source beside its row in the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def source_notes(row: dict[str, Any]) -> Iterator[str]:
    """Sentences on a source that wants to be looked at."""
    if row["retired"]:
        return
    if row["revisions"]:
        yield (
            f"{row['name']}: {row['revisions']:,} proposed revisions of annotated tasks wait;"
            " `labelfeed revisions` lists them"
        )
