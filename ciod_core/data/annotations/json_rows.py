"""JSON text of many records at once: a column of text beside the columns of numbers.

Encoding 860,000 boxes one by one takes longer than parsing them. Here digits are computed column by column, once for
all rows; a selection of rows is then written by copying their text.

Legend: N rows, W characters of the widest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.signedinteger]

SEPARATOR = b",\n"
# Rows of one block stay in the processor's cache while their columns are filled, and while they are written.
BLOCK = 8192


@dataclass(frozen=True)
class JsonRows:
    """Rows of JSON text, each followed by a separator, side by side in one buffer.

    Attributes:
        text: the buffer.
        starts_N: where each row starts in it.
        ends_N: where each row ends, behind its separator.
    """

    text: UInt8Array
    starts_N: Int64Array
    ends_N: Int64Array

    @classmethod
    def of(cls, text: UInt8Array, ends_N: Int64Array) -> JsonRows:
        """Rows that follow each other without a gap and end at `ends_N`."""
        return cls(text, np.concatenate([np.zeros(1, dtype=np.int64), ends_N[:-1]])[: len(ends_N)], ends_N)

    @classmethod
    def of_records(cls, records: Sequence[bytes]) -> JsonRows:
        """Rows from texts that were encoded one by one."""
        lengths_N = np.fromiter(map(len, records), dtype=np.int64, count=len(records)) + len(SEPARATOR)
        text = np.frombuffer(SEPARATOR.join(records) + SEPARATOR, dtype=np.uint8)
        return cls.of(text, np.cumsum(lengths_N))

    def select(self, rows_N: BoolArray | Int64Array) -> JsonRows:
        """The rows of a mask, or of these numbers; the buffer is shared."""
        return JsonRows(self.text, self.starts_N[rows_N], self.ends_N[rows_N])

    def blocks(self) -> Iterator[bytes]:
        """The rows as the inside of a JSON array, a few thousand rows at a time."""
        view, count = self.text.data, len(self.starts_N)
        for first in range(0, count, BLOCK):
            starts_N, ends_N = self.starts_N[first : first + BLOCK], self.ends_N[first : first + BLOCK]
            # Neighbours in the buffer are copied together.
            breaks = np.flatnonzero(starts_N[1:] != ends_N[:-1]) + 1
            starts = starts_N[np.concatenate([[0], breaks])].tolist()
            ends = ends_N[np.concatenate([breaks - 1, [-1]])].tolist()
            if first + BLOCK >= count:
                ends[-1] -= len(SEPARATOR)
            yield b"".join([view[start:end] for start, end in zip(starts, ends, strict=True)])


class NumberField:
    """A column of decimal numbers: text before each number, then its digits.

    Numbers are whole multiples of 10**−decimals; trailing zeros of the fraction are not written.
    """

    def __init__(self, prefix: str, values_N: IntArray, decimals: int = 0) -> None:
        self.prefix = np.frombuffer(prefix.encode("ascii"), dtype=np.uint8)
        largest = max(abs(int(values_N.min(initial=0))), int(values_N.max(initial=0)))
        # Division of 32-bit integers is several times faster.
        self.values_N: IntArray = values_N.astype(np.int32) if largest < 2**31 else values_N
        self.decimals = decimals
        self.whole_digits = max(1, len(str(largest)) - decimals)

    @property
    def width(self) -> int:
        """Characters of prefix, sign, digits and decimal point."""
        return len(self.prefix) + 1 + self.whole_digits + (self.decimals + 1 if self.decimals else 0)

    def fill(self, rows_NW: UInt8Array, block: slice) -> None:
        """Write the numbers of a block of rows into their columns, from the last digit to the first.

        Where a number needs no character, the cell stays NUL, which JSON text never holds.
        """
        values_N = self.values_N[block]
        rows_NW[:, : len(self.prefix)] = self.prefix
        rows_NW[:, len(self.prefix)] = np.where(values_N < 0, ord("-"), 0)
        rest_N = np.abs(values_N)
        column = self.width - 1
        if self.decimals:
            written_N = np.zeros(len(rest_N), dtype=np.bool_)
            for _ in range(self.decimals):
                rest_N, digit_N = _split_last_digit(rest_N)
                written_N |= digit_N > 0
                rows_NW[:, column] = np.where(written_N, digit_N + ord("0"), 0)
                column -= 1
            rows_NW[:, column] = np.where(written_N, ord("."), 0)
            column -= 1
        for place in range(self.whole_digits):
            written_N = rest_N > 0 if place else np.ones(len(rest_N), dtype=np.bool_)
            rest_N, digit_N = _split_last_digit(rest_N)
            rows_NW[:, column] = np.where(written_N, digit_N + ord("0"), 0)
            column -= 1


def encode_rows(fields: Sequence[NumberField], end: str) -> JsonRows:
    """One text per row: every field in turn, then `end`.

    Args:
        fields: columns of the same length.
        end: what closes a row, such as `}`.
    """
    count = len(fields[0].values_N)
    tail = np.frombuffer(end.encode("ascii") + SEPARATOR, dtype=np.uint8)
    width = sum(field.width for field in fields) + len(tail)
    blocks: list[bytes] = []
    lengths: list[Int64Array] = []
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        rows_NW = np.zeros((block.stop - start, width), dtype=np.uint8)
        column = 0
        for field in fields:
            field.fill(rows_NW[:, column : column + field.width], block)
            column += field.width
        rows_NW[:, column:] = tail
        lengths.append(np.count_nonzero(rows_NW, axis=1).astype(np.int64))
        blocks.append(rows_NW.tobytes().translate(None, b"\0"))
    text = np.frombuffer(b"".join(blocks), dtype=np.uint8)
    return JsonRows.of(text, np.cumsum(np.concatenate([np.zeros(0, dtype=np.int64), *lengths])))


def _split_last_digit(values_N: IntArray) -> tuple[IntArray, UInt8Array]:
    rest_N = values_N // 10
    return rest_N, (values_N - rest_N * 10).astype(np.uint8)
