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
from pipeline.parsers.arrowlengths import MAGIC, Lengths
from pipeline.parsers.arrowsizes import OBJECT_BYTES, bytes_of, elements, longest
from pipeline.parsers.arrowvalues import Converter, converter_of, storage_of
from pipeline.parsers.contract import PIECE_BYTES, BadRow, Body, Limits, Parser, Rules
from pipeline.parsers.encoding import failed, read_up_to
from pipeline.parsers.items import plain_task, plain_tasks, rejected
from pipeline.parsers.records import names_of
from pipeline.tasks import Parsed, RejectedRow, Task

_ROWS = 250
"""Rows in one piece: values of more no longer fit into the caches."""
_READ_AHEAD = 4
"""So many pieces are read from a row group at a time."""
_HELD_BYTES = 16 * PIECE_BYTES
"""What is read at a time may take so much, should each of its values be as long as the longest."""
_FIXED_BYTES = 8
_RAW_TIMES = 8
"""A row that takes this many times the limit in memory is beyond it as JSON, too, and is not made."""
_TEXT = "BYTE_ARRAY"
_COPY_BYTES = 1024 * 1024

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
    texts = [leaf.path for leaf in map(reader.schema.column, range(len(reader.schema))) if leaf.physical_type == _TEXT]
    probe = pyarrow.parquet.ParquetFile(file, metadata=meta, read_dictionary=texts)
    for group in range(meta.num_row_groups):
        found = meta.row_group(group)
        row_bytes = max(1, found.total_byte_size // max(1, found.num_rows))
        size = max(1, min(_ROWS, PIECE_BYTES // row_bytes))
        most = max(1, _HELD_BYTES // _widest(found, probe, group))
        for batch in reader.iter_batches(min(size * _READ_AHEAD, most), row_groups=[group], use_threads=False):
            yield from _cut(batch, size)


def _widest(group: Any, probe: pyarrow.parquet.ParquetFile, number: int) -> int:
    """What a row of the group may take once its dictionaries are gone: its values as long as the longest of them."""
    first = next(probe.iter_batches(1, row_groups=[number], use_threads=False), None)
    most = 0 if first is None else max(map(longest, first.columns), default=0)
    values = sum(int(group.column(place).num_values) for place in range(group.num_columns))
    return max(1, values // max(1, int(group.num_rows)) * max(_FIXED_BYTES, most))


def _cut(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Pieces of a batch, by what it really takes."""
    nested = [column for column in batch.columns if pa.types.is_nested(column.type)]
    taken = max(batch.nbytes, sum(elements(column) * max(OBJECT_BYTES, longest(column)) for column in nested))
    row_bytes = max(1, taken // max(1, batch.num_rows), *map(longest, batch.columns))
    size = max(1, min(most, PIECE_BYTES // row_bytes))
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size)


def _arrow_batches(file: pa.NativeFile, limits: Limits) -> Iterator[pa.RecordBatch]:
    is_file = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    for batch in (_of_file if is_file else _of_stream)(file, Lengths(file, limits)):
        batch.validate(full=True)
        yield from _cut(batch, _ROWS)


def _of_file(file: pa.NativeFile, lengths: Lengths) -> Iterator[pa.RecordBatch]:
    yield from map(pa.ipc.open_file(file).get_batch, lengths.of_file())


def _of_stream(file: pa.NativeFile, lengths: Lengths) -> Iterator[pa.RecordBatch]:
    lengths.opening()
    file.seek(0)
    reader = pa.ipc.open_stream(file)
    while True:
        at = file.tell()
        lengths.of_stream(at)
        file.seek(at)
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        yield batch


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
        if batch.num_rows == 1 and self._is_huge(batch):
            return Parsed([], [rejected(self._too_large(), first, None, None, "")])
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

    def _is_huge(self, row: pa.RecordBatch) -> bool:
        return sum(map(bytes_of, row.columns)) > _RAW_TIMES * self._rules.limits.item_bytes

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
        if len(task.data) > self._rules.limits.item_bytes:
            raise self._too_large()

    def _too_large(self) -> BadRow:
        return BadRow("too_large", f"the row is larger than {self._rules.limits.item_bytes} bytes")


_SHOWN_CELLS = 20


def _parse(body: Body, rules: Rules, form: Form) -> Iterator[Parsed]:
    row = 0
    columns: _Columns | None = None
    with _opened(body) as file:
        try:
            for batch in _parquet_batches(file) if form == "parquet" else _arrow_batches(file, rules.limits):
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
