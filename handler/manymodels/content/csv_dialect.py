"""What a CSV body is written in: its delimiter, and whether its first row is a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from manymodels.content.body_text import shortened
from manymodels.content.csv_numbers import number, numbers
from manymodels.content.table import Columns, text_positions
from manymodels.errors import BadRequest

Fields = Sequence[Sequence[str]]
COMMA = ","
_SNIFFED = "\t;"
_DELIMITERS = {"tab": "\t", "\\t": "\t", "semicolon": ";", "space": " ", "pipe": "|", "comma": ","}
_NOT_NAMES = {"na", "n/a", "null", "none", "true", "false"}
"""Words that are data in a column of numbers."""
_NOT_DELIMITERS = '"\r\n\0'
_HEADER = {
    "present": True, "yes": True, "true": True, "1": True,
    "absent": False, "no": False, "false": False, "0": False,
}  # fmt: skip


def fields(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of a CSV text (RFC 4180), without those that are only white space.

    Raises BadRequest that names the line where a quoted field is not closed, or goes on after it.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            # A lone pair of quotes is an empty field; white space without quotes is no row.
            if len(row) > 1 or (row and (row[0].strip() or not row[0])):
                yield row
    except csv.Error as error:
        raise BadRequest(f"the CSV body is malformed at line {reader.line_num}: {error}") from error


def delimiter_of(text: str, parameters: Mapping[str, str], columns: Columns) -> str:
    """Return what the parameter ``delimiter`` says, or a comma.

    Tab and semicolon are found without it where nothing else can be meant: the text has no comma,
    and by only one of them it falls into rows of numbers (or with the model's names at the top)
    of one width, which is the model's. Raises BadRequest for a parameter that is no delimiter.
    """
    if "delimiter" in parameters:
        return _declared_delimiter(parameters["delimiter"])
    if COMMA in text:
        return COMMA
    possible = [mark for mark in _SNIFFED if mark in text and _divides(text, mark, columns)]
    return possible[0] if len(possible) == 1 else COMMA


def header_declared(parameters: Mapping[str, str]) -> bool | None:
    """Return what the parameter ``header`` says (RFC 4180: present or absent), None if nothing.

    Raises BadRequest for another value.
    """
    value = parameters.get("header")
    if value is None:
        return None
    declared = _HEADER.get(value.lower())
    if declared is None:
        raise BadRequest(
            f"the parameter header of text/csv is {shortened(value)!r}; it may be present or absent"
        )
    return declared


def has_header(first: Sequence[str], further: Fields, columns: Columns) -> bool:
    """Whether the first row cannot be data; where it might be, it is.

    A header is a row of which most fields are the model's names (so that a column that is missing
    or not the model's is named later), or a row of distinct texts above columns of numbers: above
    one such column where the model takes nothing but numbers, else above each column that the
    model does not take as text.
    """
    if _named_by_model(first, further, columns):
        return True
    if not further or len(set(first)) < len(first):
        return False
    if not all(_may_be_name(field.strip()) for field in first):
        return False
    positions = range(len(first))
    if columns.numbers:
        return any(_numeric(further, position) for position in positions)
    text = text_positions(columns, None, len(first))
    tested = [position for position in positions if position not in text]
    return bool(tested) and all(_numeric(further, position) for position in tested)


def _named_by_model(first: Sequence[str], further: Fields, columns: Columns) -> bool:
    if columns.names is None:
        return False
    known = set(columns.names)
    named = [field.strip() in known and number(field) is None for field in first]
    if 2 * sum(named) <= len(named):
        return False
    # One row alone may be data that happens to be a name, if the model takes text at all.
    return bool(further) or columns.numbers or (all(named) and len(named) > 1)


def _may_be_name(text: str) -> bool:
    """Whether a text is rather a column's name than a number with a slip in it."""
    if number(text) is not None or text.lower() in _NOT_NAMES:
        return False
    return not (text[0].isdigit() or text[0] in "+-.") and any(map(str.isalpha, text))


def _numeric(rows: Fields, position: int) -> bool:
    """Whether a column is numbers, with gaps perhaps."""
    column = [row[position] if position < len(row) else "" for row in rows]
    if not any(field.strip() for field in column):
        return False
    return numbers(column) is not None or all(map(_is_number, column))


def _declared_delimiter(value: str) -> str:
    delimiter = _DELIMITERS.get(value.lower(), value)
    if len(delimiter) != 1 or delimiter in _NOT_DELIMITERS:
        raise BadRequest(
            f"the parameter delimiter of text/csv is {shortened(value)!r}; it may be one character "
            f"or {', '.join(name for name in _DELIMITERS if name.isalpha())}"
        )
    return delimiter


def _divides(text: str, mark: str, columns: Columns) -> bool:
    try:
        first, *further = fields(text, mark)
    except (BadRequest, ValueError):  # ValueError where there are no rows
        return False
    width = len(first)
    if width < 2 or any(len(row) != width for row in further):
        return False
    if _named_by_model(first, further, columns):
        return True
    # Of a model of numbers the width need not be right: the answer then names both.
    if columns.count is not None and width != columns.count and not columns.numbers:
        return False
    if not all(map(_is_number, chain.from_iterable(further))):
        return False
    return all(map(_is_number, first)) or has_header(first, further, columns)


def _is_number(field: str) -> bool:
    return number(field) is not None
