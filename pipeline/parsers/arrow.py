"""Parquet and Arrow (Feather), by the optional extra `arrow`: one task a row, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from pipeline.errors import ObjectSkipped
from pipeline.parsers.arrowvalues import Converter, converter_of, storage_of
from pipeline.parsers.contract import PIECE_BYTES, BadRow, Body, Parser, Rules
from pipeline.parsers.encoding import failed, read_up_to
from pipeline.parsers.items import plain_task, plain_tasks, rejected
from pipeline.parsers.records import names_of
from pipeline.tasks import Parsed, RejectedRow, Task

_ROWS = 250
"""Rows in one piece: values of more no longer fit into the caches."""
_READ_AHEAD = 4
"""So many pieces are read from a row group at a time."""
_COPY_BYTES = 1024 * 1024
_FILE_MAGIC = b"ARROW1"

Form = Literal["parquet", "arrow"]


@contextmanager
def _opened(body: Body) -> Iterator[pa.NativeFile]:
    """The body as a file that can be read from its end: in memory if it is small, else a copy on disk."""
    if body.content is not None:
        yield pa.BufferReader(body.content)
        return
    with NamedTemporaryFile() as copy:
        with body.open() as stream:
            while part := read_up_to(stream, _COPY_BYTES):
                copy.write(part)
        copy.flush()
        if copy.tell() == 0:
            yield pa.BufferReader(b"")
            return
        # Not mapped into memory: what was read of a mapped file counts as the process's own.
        with pa.OSFile(copy.name) as file:
            yield file


def _parquet_batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    reader = pyarrow.parquet.ParquetFile(file)
    meta = reader.metadata
    for group in range(meta.num_row_groups):
        found = meta.row_group(group)
        row_bytes = max(1, found.total_byte_size // max(1, found.num_rows))
        size = max(1, min(_ROWS, PIECE_BYTES // row_bytes))
        for batch in reader.iter_batches(size * _READ_AHEAD, row_groups=[group], use_threads=False):
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)


def _arrow_batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    file.seek(0)
    reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
    batches = (reader.get_batch(n) for n in range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        batch.validate(full=True)
        row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
        size = max(1, min(_ROWS, PIECE_BYTES // row_bytes))
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


_BATCHES = {"parquet": _parquet_batches, "arrow": _arrow_batches}


class _Columns:
    """A batch's rows as data; made once for all batches of a schema."""

    def __init__(self, schema: pa.Schema, rules: Rules) -> None:
        self.names = names_of(schema.names)
        self._rules = rules
        self._storage = [storage_of(kind) for kind in schema.types]
        self._converters: list[Converter | None] = [converter_of(kind) for kind in schema.types]
        self._floats = [place for place, kind in enumerate(schema.types) if pa.types.is_floating(kind)]
        self._plain = all(
            converter is None or place in self._floats for place, converter in enumerate(self._converters)
        )

    def piece(self, batch: pa.RecordBatch, first: int) -> Parsed:
        """The tasks and rejected rows of a batch that begins with row `first`."""
        columns = [
            column if column.type == storage else column.cast(storage, safe=False)
            for column, storage in zip(batch.columns, self._storage, strict=True)
        ]
        numbers = range(first, first + batch.num_rows)
        if self._is_ordinary(columns, batch.nbytes):
            datas = pa.RecordBatch.from_arrays(columns, names=self.names).to_pylist()
            tasks = plain_tasks(datas, numbers, self._rules)
            if tasks is not None:
                return Parsed(tasks)
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        outcomes = [self._outcome(row, number) for row, number in zip(rows, numbers, strict=True)]
        return Parsed(
            [outcome for outcome in outcomes if isinstance(outcome, Task)],
            [outcome for outcome in outcomes if isinstance(outcome, RejectedRow)],
        )

    def _is_ordinary(self, columns: list[pa.Array], size: int) -> bool:
        if not self._plain or size > self._rules.limits.item_bytes or self._rules.options.preannotated_from_fields:
            return False
        finite = (pc.all(pc.is_finite(columns[place])).as_py() for place in self._floats)
        return all(known is not False for known in finite)

    def _outcome(self, row: tuple[Any, ...], number: int) -> Task | RejectedRow:
        try:
            task = plain_task(self._data(row), number, self._rules)
            self._check_size(task)
        except BadRow as bad:
            return rejected(bad, number, None, None, repr(row[:_SHOWN_CELLS]))
        return task

    def _data(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return {
            name: value if value is None or convert is None else convert(value)
            for name, value, convert in zip(self.names, row, self._converters, strict=True)
        }

    def _check_size(self, task: Task) -> None:
        limit = self._rules.limits.item_bytes
        if len(task.data) > limit:
            raise BadRow("too_large", f"the row is larger than {limit} bytes")


_SHOWN_CELLS = 20


def _parse(body: Body, rules: Rules, form: Form) -> Iterator[Parsed]:
    row = 0
    columns: _Columns | None = None
    with _opened(body) as file:
        try:
            for batch in _BATCHES[form](file):
                columns = columns or _Columns(batch.schema, rules)
                piece = columns.piece(batch, row + 1)
                row += batch.num_rows
                yield piece
        except UnicodeDecodeError as error:
            failed(0, "utf-8", f"in row {row + 1} or a little after it: {error.reason}")
        except _CORRUPT as error:
            why = BadRow("syntax", f"the {form} file cannot be read: {error}")
            yield Parsed([], [rejected(why, row + 1, None, None, "")])
            return
    if row == 0:
        raise ObjectSkipped("no_tasks", "the table has no row")


_CORRUPT = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError)
"""What pyarrow raises for files that are not what they say."""

parser = Parser("parquet", 1, partial(_parse, form="parquet"))
ipc_parser = Parser("arrow", 1, partial(_parse, form="arrow"))
PARSERS = {"parquet": parser, "arrow": ipc_parser}
