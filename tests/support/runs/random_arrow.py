"""Random Arrow tables: every type, nested in every other, nulls anywhere,
and any bits that a value may have."""

import random
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ZONES = (None, "UTC", "Asia/Kolkata", "+05:30", "-08:00")
_UNITS = ("s", "ms", "us", "ns")
_DAY_S = 86_400
_TEXTS = ("", "a", "é🙂", "null", "NaN", "\x00", "a long text that does not fit in a view", '"\n,')

_FIXED = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
      pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.month_day_nano_interval()),
    *(pa.timestamp(unit, zone) for unit in _UNITS for zone in _ZONES),
    *(pa.duration(unit) for unit in _UNITS),
]  # fmt: skip
_PER_DAY = {
    pa.time32("s"): _DAY_S,
    pa.time32("ms"): _DAY_S * 10**3,
    pa.time64("us"): _DAY_S * 10**6,
    pa.time64("ns"): _DAY_S * 10**9,
}
_TEXT = [pa.string(), pa.large_string(), pa.string_view()]
_BINARY = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3), pa.binary(16)]
_LISTS = ("list", "large_list", "fixed", "list_view", "large_list_view")
_NESTS = (*_LISTS, "struct", "map", "dense", "sparse", "dictionary", "run_ends", "extension")


def random_table(seed: int, num_rows: int) -> pa.Table:
    dice = random.Random(seed)
    columns = {
        f"c{index}": random_array(dice, num_rows, dice.choice((0, 0, 1, 2, 3)))
        for index in range(dice.randint(1, 6))
    }
    return pa.table(columns)


def random_array(dice: random.Random, length: int, depth: int) -> pa.Array:
    """Half of them are slices, whose buffers hold more than their rows."""
    if dice.random() < 0.5:
        before, after = dice.randint(0, 3), dice.randint(0, 3)
        return random_array(dice, before + length + after, depth).slice(before, length)
    kind = dice.choice(_NESTS) if depth else "leaf"
    if kind == "leaf":
        return _leaf(dice, length)
    if kind in _LISTS:
        return _list(dice, length, depth, kind)
    if kind in ("dense", "sparse"):
        return _union(dice, length, depth, kind)
    return {
        "struct": _struct,
        "map": _map,
        "dictionary": _dictionary,
        "run_ends": _run_ends,
        "extension": _extension,
    }[kind](dice, length, depth)


def _leaf(dice: random.Random, length: int) -> pa.Array:
    mask = _mask(dice, length)
    kind = dice.choice(
        ("fixed", "fixed", "day", "decimal", "text", "binary", "bool", "null", "date64")
    )
    if kind == "fixed":
        return _of_bits(dice, dice.choice(_FIXED), length, mask)
    if kind == "day":
        type_ = dice.choice(list(_PER_DAY))
        return pa.array([dice.randrange(_PER_DAY[type_]) for _ in range(length)], type_, mask=mask)
    if kind == "decimal":
        return _decimal(dice, length, mask)
    if kind == "text":
        return pa.array(dice.choices(_TEXTS, k=length), dice.choice(_TEXT), mask=mask)
    if kind == "binary":
        type_ = dice.choice(_BINARY)
        size = getattr(type_, "byte_width", None) if pa.types.is_fixed_size_binary(type_) else None
        values = [
            dice.randbytes(dice.randint(0, 20) if size is None else size) for _ in range(length)
        ]
        return pa.array(values, type_, mask=mask)
    if kind == "bool":
        return pa.array([dice.random() < 0.5 for _ in range(length)], pa.bool_(), mask=mask)
    if kind == "date64":
        days = [dice.randint(-(10**11), 10**11) * _DAY_S * 1000 for _ in range(length)]
        return pa.array(days, pa.int64(), mask=mask).view(pa.date64())
    return pa.nulls(length)


def _decimal(dice: random.Random, length: int, mask: np.ndarray) -> pa.Array:
    make, most = dice.choice(
        ((pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76))
    )
    precision = dice.randint(1, most)
    type_ = make(precision, dice.randint(-precision, precision))
    values = [dice.randrange(-(10**precision) + 1, 10**precision) for _ in range(length)]
    width = type_.byte_width
    data = b"".join(value.to_bytes(width, "little", signed=True) for value in values)
    return pa.Array.from_buffers(type_, length, [_validity(mask), pa.py_buffer(data)])


def _of_bits(dice: random.Random, type_: pa.DataType, length: int, mask: np.ndarray) -> pa.Array:
    width = type_.bit_width // 8
    edges = [
        b"\x00" * width,
        b"\xff" * width,
        b"\xff" * (width - 1) + b"\x7f",
        b"\x00" * (width - 1) + b"\x80",
    ]
    values = [
        dice.choice((*edges, dice.randbytes(width), dice.randbytes(width))) for _ in range(length)
    ]
    return pa.Array.from_buffers(type_, length, [_validity(mask), pa.py_buffer(b"".join(values))])


def _list(dice: random.Random, length: int, depth: int, kind: str) -> pa.Array:
    mask = _mask(dice, length)
    if kind == "fixed":
        size = dice.randint(1, 3)
        values = random_array(dice, length * size, depth - 1)
        return pa.FixedSizeListArray.from_arrays(values, size, mask=pa.array(mask))
    sizes = [dice.randint(0, 3) for _ in range(length)]
    ends = [0, *accumulate(sizes)]
    values = random_array(dice, ends[-1], depth - 1)
    is_large = kind.startswith("large")
    numbers = pa.int64() if is_large else pa.int32()
    if kind.endswith("view"):
        make = pa.LargeListViewArray if is_large else pa.ListViewArray
        starts = [dice.randint(0, ends[-1] - size) for size in sizes]  # in any order, and shared
        return make.from_arrays(
            pa.array(starts, numbers), pa.array(sizes, numbers), values, mask=pa.array(mask)
        )
    make = pa.LargeListArray if is_large else pa.ListArray
    return make.from_arrays(pa.array(ends, numbers), values, mask=pa.array(mask))


def _struct(dice: random.Random, length: int, depth: int) -> pa.Array:
    mask = _mask(dice, length)
    count = dice.choice((0, 1, 2, 3))
    if count == 0:
        return pa.array([None if is_null else {} for is_null in mask], pa.struct([]))
    children = [random_array(dice, length, depth - 1) for _ in range(count)]
    names = ["a", "b.c", "é"][:count]
    return pa.StructArray.from_arrays(children, names=names, mask=pa.array(mask))


def _map(dice: random.Random, length: int, depth: int) -> pa.Array:
    mask = _mask(dice, length)
    sizes = [0 if is_null else dice.randint(0, 3) for is_null in mask]
    ends = [0, *accumulate(sizes)]
    keys = pa.array([f"k{i}" for i in range(ends[-1])], dice.choice(_TEXT))
    items = random_array(dice, ends[-1], depth - 1)
    offsets = pa.array(ends, pa.int32())
    return pa.MapArray.from_arrays(offsets, keys, items, mask=pa.array(mask))


def _union(dice: random.Random, length: int, depth: int, mode: str) -> pa.Array:
    count = dice.randint(1, 3)
    codes = sorted(dice.sample(range(100), count))
    chosen = [dice.randrange(count) for _ in range(length)]
    types = pa.array([codes[index] for index in chosen], pa.int8())
    names = ["x", "y", "x"][:count]
    if mode == "sparse":
        children = [random_array(dice, length, depth - 1) for _ in range(count)]
        return pa.UnionArray.from_sparse(types, children, names, codes)
    sizes = [0] * count
    offsets = []
    for index in chosen:
        offsets.append(sizes[index])
        sizes[index] += 1
    children = [random_array(dice, size, depth - 1) for size in sizes]
    return pa.UnionArray.from_dense(types, pa.array(offsets, pa.int32()), children, names, codes)


def _dictionary(dice: random.Random, length: int, depth: int) -> pa.Array:
    values = _leaf(dice, dice.randint(1, 4))
    indices = pa.array(
        [dice.randrange(len(values)) for _ in range(length)], dice.choice((pa.int8(), pa.int32())),
        mask=_mask(dice, length),
    )  # fmt: skip
    return pa.DictionaryArray.from_arrays(indices, values)


def _run_ends(dice: random.Random, length: int, depth: int) -> pa.Array:
    if length == 0:
        return pc.run_end_encode(pa.array([], pa.int32()))
    ends = sorted({length, *(dice.randint(1, length) for _ in range(3))})
    values = random_array(dice, len(ends), 0)
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int32()), values)


def _extension(dice: random.Random, length: int, depth: int) -> pa.Array:
    mask = _mask(dice, length)
    kind = dice.choice(("uuid", "json", "bool8", "opaque", "tensor"))
    if kind == "uuid":
        storage = pa.array([dice.randbytes(16) for _ in range(length)], pa.binary(16), mask=mask)
        return pa.ExtensionArray.from_storage(pa.uuid(), storage)
    if kind == "json":
        return pa.ExtensionArray.from_storage(
            pa.json_(), pa.array(["{}"] * length, pa.string(), mask=mask)
        )
    if kind == "bool8":
        return pa.ExtensionArray.from_storage(
            pa.bool8(), pa.array([1] * length, pa.int8(), mask=mask)
        )
    if kind == "tensor":
        storage = pa.FixedSizeListArray.from_arrays(pa.array(range(length * 2), pa.int32()), 2)
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [2]), storage)
    storage = random_array(dice, length, depth - 1)
    while isinstance(storage.type, pa.BaseExtensionType):  # a file of Arrow forgets the inner one
        storage = storage.storage
    return pa.ExtensionArray.from_storage(pa.opaque(storage.type, "type", "vendor"), storage)


def _mask(dice: random.Random, length: int) -> np.ndarray:
    share = dice.choice((0, 0, 0.3, 1))
    return np.array([dice.random() < share for _ in range(length)], bool)


def _validity(mask: np.ndarray) -> pa.Buffer:
    return pa.array(~mask).buffers()[1]


def bits(array: pa.Array | pa.ChunkedArray) -> list:
    """What each row holds, bit for bit, whatever its encoding or layout; None where it is null."""
    if isinstance(array, pa.ChunkedArray):
        return [row for chunk in array.chunks for row in bits(chunk)]
    type_, rows = array.type, range(len(array))
    if isinstance(type_, pa.BaseExtensionType):
        return bits(array.storage)
    if pa.types.is_dictionary(type_):
        values = bits(array.dictionary)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(type_):
        values, ends = bits(array.values), array.run_ends.to_pylist()
        return [
            values[next(i for i, end in enumerate(ends) if row + array.offset < end)]
            for row in rows
        ]
    if pa.types.is_union(type_):
        # Not its type_codes and offsets: in pyarrow 26 those of a slice begin with the whole array.
        codes = array.buffers()[1].to_pybytes()[array.offset :][: len(array)] if len(array) else b""
        places = list(rows)
        if type_.mode == "dense" and len(array):
            places = memoryview(array.buffers()[2]).cast("i").tolist()[array.offset :][: len(array)]
        children = {code: bits(array.field(i)) for i, code in enumerate(type_.type_codes)}
        return [(code, children[code][place]) for code, place in zip(codes, places, strict=True)]
    is_valid = array.is_valid().to_pylist()
    if pa.types.is_struct(type_):
        children = [bits(array.field(i)) for i in range(type_.num_fields)]
        return [tuple(child[row] for child in children) if is_valid[row] else None for row in rows]
    if pa.types.is_nested(type_):
        return [tuple(bits(array[row].values)) if is_valid[row] else None for row in rows]
    if (pa.types.is_primitive(type_) and not pa.types.is_boolean(type_)) or pa.types.is_decimal(
        type_
    ):
        width = type_.bit_width // 8
        data = (array.buffers()[1] or pa.py_buffer(b"")).to_pybytes()
        starts = [(row + array.offset) * width for row in rows]
        return [data[s : s + width] if ok else None for s, ok in zip(starts, is_valid, strict=True)]
    if type_ == pa.month_day_nano_interval():
        data = (array.buffers()[1] or pa.py_buffer(b"")).to_pybytes()
        starts = [(row + array.offset) * 16 for row in rows]
        return [data[s : s + 16] if ok else None for s, ok in zip(starts, is_valid, strict=True)]
    return array.to_pylist()
