"""common: digests of columns do not depend on the pieces that a table comes in, and every change shows in them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stages.common.columns import embedding_column
from stages.common.digests import ColumnDigests

KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), st.none() | st.text(max_size=3)),
    "number": (pa.int32(), st.none() | st.integers(-2, 2)),
    "flag": (pa.bool_(), st.none() | st.booleans()),
    "real": (pa.float32(), st.none() | st.floats(width=32)),
    "lists": (pa.list_(pa.string()), st.none() | st.lists(st.none() | st.text(max_size=2), max_size=2)),
    "parts": (
        pa.list_(pa.struct({"type": pa.string(), "text": pa.string()})),
        st.none() | st.lists(st.none() | st.fixed_dictionaries({"type": st.text(max_size=1), "text": st.none()})),
    ),
}


def digests(table: pa.Table, cuts: list[int] | None = None) -> dict[str, str]:
    found = ColumnDigests()
    edges = [0, *sorted(cut % (len(table) + 1) for cut in cuts or []), len(table)]
    for first, end in itertools.pairwise(edges):
        found.add(table.slice(first, end - first))
    return found.digests()


rows = st.fixed_dictionaries({name: values for name, (_, values) in KINDS.items()})
SCHEMA = pa.schema({name: kind for name, (kind, _) in KINDS.items()})


@given(st.lists(rows, max_size=6), st.lists(st.integers(0, 6), max_size=3))
def test_pieces_make_no_difference(values: list[dict[str, Any]], cuts: list[int]) -> None:
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    assert digests(table, cuts) == digests(table)
    if len(table):  # values that a null hides do not count, nor do those beside a slice
        padded = pa.Table.from_pylist([values[-1], *values, values[0]], schema=SCHEMA)
        assert digests(padded.slice(1, len(table))) == digests(table)


def bits(value: Any) -> Any:
    """What tells two values apart: -0.0 from 0.0, and NaN only from other values."""
    return np.float32(value).tobytes() if isinstance(value, float) else value


@given(st.data())
def test_every_other_value_shows(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(KINDS)))
    kind, strategy = KINDS[name]
    one, two = (data.draw(st.lists(strategy, max_size=4)) for _ in range(2))
    tables = [pa.table({name: pa.array(values, kind)}) for values in (one, two)]
    same = [*map(bits, one)] == [*map(bits, two)]
    assert (digests(tables[0]) == digests(tables[1])) == same


def test_a_single_bit_of_an_embedding_shows() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float16)
    before = digests(pa.table({"embedding": embedding_column(values)}))
    flipped = values.copy()
    flipped.view(np.uint16)[3, 2] ^= 1
    assert digests(pa.table({"embedding": embedding_column(flipped)})) != before
    assert digests(pa.table({"embedding": embedding_column(values.reshape(7, 5))})) != before
