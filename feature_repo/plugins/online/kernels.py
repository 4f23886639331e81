"""Loops over bytes, compiled: Feast's `Value` messages and Redis's protocol, many values at a time.

A *block* holds the encoded values of some columns: `data` (uint8), and for column c and row i `starts[c, i]` and
`lengths[c, i]`. Length -1 means that there is nothing (Redis's nil); length 0 is Feast's null. The writers below append
to `data` at `at` and return where they ended; the caller has made room (the bounds are in `values.py`), except for
`feature_vectors`, which makes its own.

All of them stand in one file because numba's cache on disk knows only the file of the function that was called: what it
calls in another file could change without being compiled again.

Wire formats: https://protobuf.dev/programming-guides/encoding and https://redis.io/docs/latest/develop/reference/protocol-spec.
"""

from __future__ import annotations

import numpy as np

from core.compiled import njit

_jit = njit(nogil=True)

VARINT, FIXED32, FIXED64, BYTES = 0, 5, 1, 2  # wire types
NONE = -1  # length of what is not there
ODD = -2  # an encoding that we do not write: left to the protobuf library
TOO_MANY = -3  # bytes or elements for Arrow's 32-bit offsets
MAX_OFFSET = 2**31 - 1
MORE, WRONG = -1, -2  # of the parsers: bytes are missing; not what was expected


@_jit
def put_varint(out, at, value):  # type: ignore[no-untyped-def]
    rest = np.uint64(value)  # a negative number takes ten bytes, as protobuf has it
    while rest >= np.uint64(128):
        out[at] = np.uint8((rest & np.uint64(127)) | np.uint64(128))
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@_jit
def put_little(out, at, value, width):  # type: ignore[no-untyped-def]
    for b in range(width):
        out[at + b] = np.uint8((np.uint64(value) >> np.uint64(8 * b)) & np.uint64(255))
    return at + width


@_jit
def varint_size(value):  # type: ignore[no-untyped-def]
    rest, size = np.uint64(value), 1
    while rest >= np.uint64(128):
        rest >>= np.uint64(7)
        size += 1
    return size


@_jit
def get_varint(data, at, end):  # type: ignore[no-untyped-def]
    """(value, position after it); the position is -1 where the bytes end too early."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < np.uint64(70):
        byte = data[at]
        at += 1
        value |= np.uint64(byte & 127) << shift
        if byte < 128:
            return np.int64(value), at
        shift += np.uint64(7)
    return np.int64(0), -1


@_jit
def copy(out, at, data, start, length):  # type: ignore[no-untyped-def]
    # Unsigned indices: a signed one is checked for counting from the end, which keeps the loop from being vectorised.
    to, of = np.uintp(at), np.uintp(start)
    for i in range(np.uintp(length)):
        out[to + i] = data[of + i]
    return at + length


@_jit
def encode_floats(values, valid, tag, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Scalars of float32 or float64; null and NaN become Feast's null, as in Feast's own converter. `valid` may be
    empty: no nulls."""
    raw = values.view(np.uint8)
    width = values.itemsize
    checked = valid.size > 0
    for i in range(values.size):
        starts[i] = at
        if (checked and not valid[i]) or values[i] != values[i]:
            lengths[i] = 0
            continue
        out[at] = tag
        at = copy(out, at + 1, raw, i * width, width)
        lengths[i] = 1 + width
    return at


@_jit
def encode_ints(values, valid, tag, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Integers, booleans and seconds, as int64."""
    checked = valid.size > 0
    for i in range(values.size):
        starts[i] = at
        if checked and not valid[i]:
            lengths[i] = 0
            continue
        out[at] = tag
        at = put_varint(out, at + 1, values[i])
        lengths[i] = at - starts[i]
    return at


@_jit
def encode_texts(offsets, data, valid, tag, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Strings and bytes of an Arrow binary array."""
    checked = valid.size > 0
    for i in range(offsets.size - 1):
        starts[i] = at
        if checked and not valid[i]:
            lengths[i] = 0
            continue
        size = offsets[i + 1] - offsets[i]
        out[at] = tag
        at = copy(out, put_varint(out, at + 1, size), data, offsets[i], size)
        lengths[i] = at - starts[i]
    return at


@_jit
def encode_fixed_lists(offsets, data, width, valid, field, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Lists of float32, float64 or booleans (one byte each): packed fixed-width elements."""
    checked = valid.size > 0
    for i in range(offsets.size - 1):
        starts[i] = at
        if checked and not valid[i]:
            lengths[i] = 0
            continue
        size = (offsets[i + 1] - offsets[i]) * width
        at = put_varint(out, at, field << 3 | BYTES)
        if size == 0:
            out[at] = 0
            at += 1
        else:
            at = put_varint(out, at, 1 + varint_size(size) + size)
            out[at] = 1 << 3 | BYTES
            at = put_varint(out, at + 1, size)
            at = copy(out, at, data, offsets[i] * width, size)
        lengths[i] = at - starts[i]
    return at


@_jit
def encode_int_lists(offsets, values, valid, field, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Lists of integers or seconds: packed varints."""
    checked = valid.size > 0
    for i in range(offsets.size - 1):
        starts[i] = at
        if checked and not valid[i]:
            lengths[i] = 0
            continue
        size = 0
        for j in range(offsets[i], offsets[i + 1]):
            size += varint_size(values[j])
        at = put_varint(out, at, field << 3 | BYTES)
        if size == 0:
            out[at] = 0
            at += 1
        else:
            at = put_varint(out, at, 1 + varint_size(size) + size)
            out[at] = 1 << 3 | BYTES
            at = put_varint(out, at + 1, size)
            for j in range(offsets[i], offsets[i + 1]):
                at = put_varint(out, at, values[j])
        lengths[i] = at - starts[i]
    return at


@_jit
def encode_text_lists(offsets, inner, data, valid, field, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Lists of strings or bytes."""
    checked = valid.size > 0
    for i in range(offsets.size - 1):
        starts[i] = at
        if checked and not valid[i]:
            lengths[i] = 0
            continue
        size = 0
        for j in range(offsets[i], offsets[i + 1]):
            one = inner[j + 1] - inner[j]
            size += 1 + varint_size(one) + one
        at = put_varint(out, at, field << 3 | BYTES)
        at = put_varint(out, at, size)
        for j in range(offsets[i], offsets[i + 1]):
            one = inner[j + 1] - inner[j]
            out[at] = 1 << 3 | BYTES
            at = copy(out, put_varint(out, at + 1, one), data, inner[j], one)
        lengths[i] = at - starts[i]
    return at


@_jit
def encode_instants(micros, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """`google.protobuf.Timestamp` of microseconds since 1970."""
    for i in range(micros.size):
        starts[i] = at
        seconds = micros[i] // 1_000_000
        nanos = (micros[i] - seconds * 1_000_000) * 1000
        if seconds != 0:
            out[at] = 1 << 3 | VARINT
            at = put_varint(out, at + 1, seconds)
        if nanos != 0:
            out[at] = 2 << 3 | VARINT
            at = put_varint(out, at + 1, nanos)
        lengths[i] = at - starts[i]
    return at


@_jit
def decode_instants(data, starts, lengths, micros, found):  # type: ignore[no-untyped-def]
    """Inverse of `encode_instants`, nanoseconds cut to microseconds; returns False at bytes that are no timestamp."""
    for i in range(starts.size):
        found[i] = lengths[i] >= 0
        micros[i] = 0
        at, end = starts[i], starts[i] + max(lengths[i], 0)
        while at < end:
            tag = data[at]
            value, at = get_varint(data, at + 1, end)
            if at < 0:
                return False
            if tag == 8:
                micros[i] += value * 1_000_000
            elif tag == 16:
                micros[i] += value // 1000
    return True


@_jit
def encode_versions(event, created, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Event and created microseconds as two little-endian int64."""
    for i in range(event.size):
        starts[i] = at
        lengths[i] = 16
        at = put_little(out, put_little(out, at, event[i], 8), created[i], 8)
    return at


@_jit
def decode_versions(data, starts, lengths, event, created):  # type: ignore[no-untyped-def]
    """Inverse of `encode_versions`. Where there is none, or where it is of another event (somebody who does not know
    of versions wrote since), created is the least integer: anything computed for that instant is newer."""
    for i in range(starts.size):
        created[i] = np.iinfo(np.int64).min
        if lengths[i] != 16:
            continue
        one, two = np.uint64(0), np.uint64(0)
        for b in range(8):
            one |= np.uint64(data[starts[i] + b]) << np.uint64(8 * b)
            two |= np.uint64(data[starts[i] + 8 + b]) << np.uint64(8 * b)
        if np.int64(one) == event[i]:
            created[i] = np.int64(two)


@_jit
def decode_floats(data, starts, lengths, tag, raw, width, valid):  # type: ignore[no-untyped-def]
    """Scalars into `raw`, the bytes of a float array; returns the first row that is encoded in another way, or -1."""
    for i in range(starts.size):
        valid[i] = lengths[i] > 0
        if lengths[i] <= 0:
            continue
        if lengths[i] != 1 + width or data[starts[i]] != tag:
            return i
        copy(raw, i * width, data, starts[i] + 1, width)
    return -1


@_jit
def decode_ints(data, starts, lengths, tag, values, valid):  # type: ignore[no-untyped-def]
    for i in range(starts.size):
        valid[i] = lengths[i] > 0
        if lengths[i] <= 0:
            continue
        end = starts[i] + lengths[i]
        value, at = get_varint(data, starts[i] + 1, end)
        if data[starts[i]] != tag or at != end:
            return i
        values[i] = value
    return -1


@_jit
def decode_numbers(data, starts, lengths, tags, out):  # type: ignore[no-untyped-def]
    """Scalar columns into one float32 matrix `out` (rows, columns), NaN where there is none; `tags` are the columns'
    tag bytes. Returns False at an encoding that we do not write."""
    word = np.empty(8, np.uint8)
    single, double = word.view(np.float32), word.view(np.float64)
    for c in range(starts.shape[0]):
        for i in range(starts.shape[1]):
            size, at = lengths[c, i], starts[c, i]
            if size <= 0:
                out[i, c] = np.nan
                continue
            if data[at] != tags[c]:
                return False
            wire = tags[c] & 7
            if wire == FIXED32:
                if size != 5:
                    return False
                copy(word, 0, data, at + 1, 4)
                out[i, c] = single[0]
            elif wire == FIXED64:
                if size != 9:
                    return False
                copy(word, 0, data, at + 1, 8)
                out[i, c] = double[0]
            else:
                value, end = get_varint(data, at + 1, at + size)
                if end != at + size:
                    return False
                # What Feast writes for a timestamp that is null.
                out[i, c] = np.nan if tags[c] == 64 and value == np.iinfo(np.int64).min else value
    return True


@_jit
def text_spans(data, starts, lengths, tag, begin, offsets, valid):  # type: ignore[no-untyped-def]
    """Where each string's bytes begin, and the Arrow offsets of all; else as `decode_floats`, or TOO_MANY."""
    total = 0
    for i in range(starts.size):
        offsets[i] = total
        valid[i] = lengths[i] > 0
        begin[i] = 0
        if lengths[i] <= 0:
            continue
        end = starts[i] + lengths[i]
        size, at = get_varint(data, starts[i] + 1, end)
        if data[starts[i]] != tag or at < 0 or at + size != end:
            return i
        begin[i] = at
        total += size
        if total > MAX_OFFSET:
            return TOO_MANY
    offsets[starts.size] = total
    return -1


@_jit
def list_spans(data, starts, lengths, field, width, begin, offsets, valid):  # type: ignore[no-untyped-def]
    """`text_spans` for packed lists of elements of `width` bytes; offsets count elements."""
    total = 0
    for i in range(starts.size):
        offsets[i] = total
        valid[i] = lengths[i] > 0
        begin[i] = 0
        if lengths[i] <= 0:
            continue
        end = starts[i] + lengths[i]
        tag, at = get_varint(data, starts[i], end)
        if at < 0 or tag != (field << 3 | BYTES):
            return i
        size, at = get_varint(data, at, end)
        if at < 0 or at + size != end:
            return i
        if size == 0:
            continue
        inner, after = get_varint(data, at + 1, end)
        if data[at] != (1 << 3 | BYTES) or after < 0 or after + inner != end or inner % width:
            return i
        begin[i] = after
        total += inner // width
        if total > MAX_OFFSET:
            return TOO_MANY
    offsets[starts.size] = total
    return -1


@_jit
def list_width(data, starts, lengths, field):  # type: ignore[no-untyped-def]
    """Number of elements of lists of float32 that all have the same; NONE where there is no list, ODD where they differ
    or one is encoded in a way that we do not write."""
    width = NONE
    for i in range(starts.size):
        if lengths[i] <= 0:
            continue
        end = starts[i] + lengths[i]
        tag, at = get_varint(data, starts[i], end)
        if at < 0 or tag != (field << 3 | BYTES):
            return ODD
        size, at = get_varint(data, at, end)
        if at < 0 or at + size != end:
            return ODD
        inner = 0
        if size > 0:
            inner, after = get_varint(data, at + 1, end)
            if data[at] != (1 << 3 | BYTES) or after < 0 or after + inner != end or inner % 4:
                return ODD
        if width == NONE:
            width = inner // 4
        elif width != inner // 4:
            return ODD
    return width


@_jit
def decode_matrix(data, starts, lengths, out):  # type: ignore[no-untyped-def]
    """Lists for which `list_width` gave the width of the float32 matrix `out`; NaN where there is none."""
    rows, width = out.shape
    raw = out.reshape(rows * width).view(np.uint8)
    for i in range(rows):
        if lengths[i] <= 0:
            out[i, :] = np.nan
        else:
            copy(raw, i * width * 4, data, starts[i] + lengths[i] - width * 4, width * 4)


@_jit
def gather_spans(data, begin, offsets, width, out):  # type: ignore[no-untyped-def]
    """Copies every span behind the one before; `offsets` counts elements of `width` bytes."""
    for i in range(begin.size):
        copy(out, offsets[i] * width, data, begin[i], (offsets[i + 1] - offsets[i]) * width)


@_jit
def put_number(out, at, value):  # type: ignore[no-untyped-def]
    """A non-negative decimal number in ASCII."""
    if value < 10:
        out[at] = np.uint8(48 + value)
        return at + 1
    digits, rest = 0, np.uint64(value)
    while rest > np.uint64(0):
        rest //= np.uint64(10)
        digits += 1
    rest = np.uint64(value)
    for d in range(digits - 1, -1, -1):
        out[at + d] = np.uint8(np.uint64(48) + rest % np.uint64(10))
        rest //= np.uint64(10)
    return at + digits


@_jit
def put_bulk(out, at, data, start, length):  # type: ignore[no-untyped-def]
    """A bulk string: `$length`, the bytes."""
    out[at] = 36  # $
    at = put_number(out, at + 1, length)
    out[at], out[at + 1] = 13, 10
    at = copy(out, at + 2, data, start, length)
    out[at], out[at + 1] = 13, 10
    return at + 2


@_jit
def commands(out, at, chosen, head, keys, key_at, key_size, tail, tails, one, one_at, one_size, two, two_at, two_size):  # type: ignore[no-untyped-def]
    """A command for each chosen row: `head`, its key, then for each column of two blocks `tail[tails[c]:tails[c + 1]]`
    (a constant argument, such as the field's name) and the value. With no columns, all of `tail` follows the key."""
    first, second = one_at.shape[0], two_at.shape[0]
    for i in chosen:
        at = copy(out, at, head, 0, head.size)
        at = put_bulk(out, at, keys, key_at[i], key_size[i])
        if first + second == 0:
            at = copy(out, at, tail, 0, tail.size)
        for c in range(first):
            at = copy(out, at, tail, tails[c], tails[c + 1] - tails[c])
            at = put_bulk(out, at, one, one_at[c, i], one_size[c, i])
        for c in range(second):
            at = copy(out, at, tail, tails[first + c], tails[first + c + 1] - tails[first + c])
            at = put_bulk(out, at, two, two_at[c, i], two_size[c, i])
    return at


@_jit
def get_line(data, at, end):  # type: ignore[no-untyped-def]
    """(number on the line at `at`, position behind its CR LF); the position is MORE where the line is not complete."""
    value, sign = 0, 1
    while at < end:
        byte = data[at]
        if byte == 13:
            if at + 1 >= end:
                return 0, MORE
            return sign * value, at + 2
        if byte == 45:
            sign = -1
        elif 48 <= byte <= 57:
            value = value * 10 + (byte - 48)
        at += 1
    return 0, MORE


@_jit
def parse_arrays(data, at, end, row, starts, lengths):  # type: ignore[no-untyped-def]
    """Replies to HMGET from `row` on: arrays of bulk strings into `starts[:, row]`, `lengths[:, row]`. Returns the rows
    that are complete, where they end, and 0, or WRONG where an answer is something else (such as an error)."""
    columns, rows = starts.shape
    while row < rows:
        if at >= end:
            return row, at, 0
        if data[at] != 42:  # *
            return row, at, WRONG
        count, place = get_line(data, at + 1, end)
        if place == MORE:
            return row, at, 0
        if count != columns:
            return row, at, WRONG
        for c in range(columns):
            if place >= end:
                return row, at, 0
            kind = data[place]
            if kind != 36 and kind != 95:  # $ and, in protocol 3, _ for nil
                return row, at, WRONG
            size, place = get_line(data, place + 1, end)
            if kind == 95:
                size = NONE
            if place == MORE:
                return row, at, 0
            if size < 0:
                starts[c, row], lengths[c, row] = 0, NONE
                continue
            if place + size + 2 > end:
                return row, at, 0
            starts[c, row], lengths[c, row] = place, size
            place += size + 2
        at = place
        row += 1
    return row, at, 0


@_jit
def skip_replies(data, at, end, wanted):  # type: ignore[no-untyped-def]
    """Passes over up to `wanted` replies, nested ones counted within theirs. Returns how many are still wanted, where
    the last complete one ends, where an error stands (-1: nowhere), and the sum of the integers among them."""
    total = 0
    while wanted > 0 and at < end:
        place, open_, error = at, 1, -1
        while open_ > 0:
            if place >= end:
                return wanted, at, -1, total
            kind = data[place]
            number, after = get_line(data, place + 1, end)
            if after == MORE:
                return wanted, at, -1, total
            if kind == 45 and error < 0:
                error = place
            open_ -= 1
            if kind == 42 and number > 0:
                open_ += number
            elif kind == 36 and number >= 0:
                after += number + 2
                if after > end:
                    return wanted, at, -1, total
            place = after
        if data[at] == 58:  # :
            number, _ = get_line(data, at + 1, end)
            total += number
        at = place
        wanted -= 1
        if error >= 0:
            return wanted, at, error, total
    return wanted, at, -1, total


@_jit
def parse_hex(text, bounds, rows, column_at, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """Values written as `position:HEX,position:HEX,…`, a text for each of `rows`; `column_at` maps a position to a
    column (-1: none). The bytes go to `out` from `at` on."""
    for i in range(rows.size):
        place, end = bounds[i], bounds[i + 1]
        while place < end:
            position = 0
            while text[place] != 58:  # :
                position = position * 10 + (text[place] - 48)
                place += 1
            place += 1
            column, begin = column_at[position], at
            while place < end and text[place] != 44:  # ,
                high, low = text[place], text[place + 1]
                high = high - 48 if high < 65 else high - 55
                low = low - 48 if low < 65 else low - 55
                out[at] = high << 4 | low
                at += 1
                place += 2
            place += 1
            if column >= 0:
                starts[column, rows[i]], lengths[column, rows[i]] = begin, at - begin
    return at


@_jit
def feature_vectors(data, starts, lengths, states, event_us):  # type: ignore[no-untyped-def]
    """`GetOnlineFeaturesResponse.results` (field 2) of some features (rows of `starts`): for each a `FeatureVector` of
    values (1), packed statuses (2) and event timestamps (3). A value whose status is not PRESENT is null."""
    features, rows = starts.shape
    moments, moment_at, moment_size = np.empty(24 * rows, np.uint8), np.empty(rows, np.int64), np.empty(rows, np.int32)
    encode_instants(event_us, moments, 0, moment_at, moment_size)
    fixed = 1 + varint_size(rows) + rows
    for i in range(rows):
        fixed += 1 + varint_size(moment_size[i]) + moment_size[i]
    sizes, total = np.empty(features, np.int64), 0
    for c in range(features):
        size = fixed
        for i in range(rows):
            held = max(lengths[c, i], 0) if states[c, i] == 1 else 0
            size += 1 + varint_size(held) + held
        sizes[c] = size
        total += 1 + varint_size(size) + size
    out, at = np.empty(total, np.uint8), 0
    for c in range(features):
        out[at] = 2 << 3 | BYTES
        at = put_varint(out, at + 1, sizes[c])
        for i in range(rows):
            held = max(lengths[c, i], 0) if states[c, i] == 1 else 0
            out[at] = 1 << 3 | BYTES
            at = copy(out, put_varint(out, at + 1, held), data, starts[c, i], held)
        out[at] = 2 << 3 | BYTES
        at = put_varint(out, at + 1, rows)
        for i in range(rows):
            out[at + i] = states[c, i]
        at += rows
        for i in range(rows):
            out[at] = 3 << 3 | BYTES
            at = copy(out, put_varint(out, at + 1, moment_size[i]), moments, moment_at[i], moment_size[i])
    return out


@_jit
def encode_key_texts(offsets, data, kind, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """A string or bytes of an entity key: its type, its length (both little-endian uint32), its bytes."""
    for i in range(offsets.size - 1):
        size = offsets[i + 1] - offsets[i]
        starts[i], lengths[i] = at, 8 + size
        at = put_little(out, at, kind, 4)
        at = put_little(out, at, size, 4)
        at = copy(out, at, data, offsets[i], size)
    return at


@_jit
def encode_key_ints(values, width, kind, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """An integer of an entity key."""
    for i in range(values.size):
        starts[i], lengths[i] = at, 8 + width
        at = put_little(out, at, kind, 4)
        at = put_little(out, at, width, 4)
        at = put_little(out, at, values[i], width)
    return at


@_jit
def join(prefix, suffix, data, parts, sizes, out, at, starts, lengths):  # type: ignore[no-untyped-def]
    """For each row `prefix`, its part of each column, `suffix`."""
    for i in range(parts.shape[1]):
        starts[i] = at
        at = copy(out, at, prefix, 0, prefix.size)
        for c in range(parts.shape[0]):
            at = copy(out, at, data, parts[c, i], sizes[c, i])
        at = copy(out, at, suffix, 0, suffix.size)
        lengths[i] = at - starts[i]
    return at


@_jit
def newest(codes, event, created, best):  # type: ignore[no-untyped-def]
    """For each code the row with the latest (event, created), the last of equal ones, into `best` (filled with -1)."""
    for i in range(codes.size):
        held = best[codes[i]]
        if held < 0 or event[i] > event[held] or (event[i] == event[held] and created[i] >= created[held]):
            best[codes[i]] = i
