"""application/x-npz: a ZIP of NumPy arrays, or a sparse matrix as SciPy saves it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from manymodels.content.limits import check_cells, check_decoded
from manymodels.content.npy_codec import as_bytes, decoded_size, named_columns, read_array, table_of
from manymodels.content.sparse import is_sparse_file, sparse_rows
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_SUFFIX = ".npy"
_MOST_MEMBERS = 10_000
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    LookupError,
)


def decode_npz(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of an .npz body: one array, columns by name, or a sparse matrix.

    One array is read as an .npy body is. Several are columns by their names: each of shape
    (n_rows,). What scipy.sparse.save_npz wrote becomes a CSR matrix, whatever its format.
    Raises BadRequest for anything else, and PayloadTooLarge for what grows too large unpacked.
    """
    arrays = _arrays(as_bytes(body, "NPZ"))
    if is_sparse_file(arrays):
        return Table(sparse_rows(arrays))
    if len(arrays) == 1:
        return table_of(next(iter(arrays.values())), columns)
    first = next(iter(arrays.values()))
    if any(
        array.ndim != 1 or array.shape != first.shape or array.dtype.names is not None
        for array in arrays.values()
    ):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:10])
        raise BadRequest(
            "the NPZ body is to hold one array of rows, or one-dimensional arrays of one length, "
            f"a column each; it holds {shapes}"
        )
    check_cells(len(first), len(arrays), "the NPZ body")
    return named_columns(arrays, columns)


def _arrays(body: bytes) -> dict[str, NDArray[Any]]:
    # Counted before the directory is read: an entry of 46 bytes becomes an object of 600.
    if body.count(_DIRECTORY_ENTRY) > _MOST_MEMBERS:
        raise BadRequest(f"the NPZ body has more than {_MOST_MEMBERS} members")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            _check_members(members)
            files = {member.filename: archive.read(member) for member in members}
    except _ZIP_FAULTS as error:
        reason = str(error).partition("\n")[0]
        raise BadRequest(f"the NPZ body is not a ZIP of arrays: {reason}") from error
    arrays = {
        name.removesuffix(_SUFFIX): read_array(data, f"the NPZ body's {name}")
        for name, data in files.items()
    }
    check_decoded(sum(decoded_size(array) for array in arrays.values()), "the NPZ body")
    return arrays


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Raise for what is not to be unpacked; no member unpacks to more than it says here."""
    if not members:
        raise BadRequest("the NPZ body holds no array")
    check_decoded(sum(member.file_size for member in members), "the NPZ body")
    seen = set()
    for member in members:
        name = member.filename
        if not name.endswith(_SUFFIX) or name in seen:
            again = " twice" if name in seen else ", which is no .npy file"
            raise BadRequest(f"the NPZ body holds {name!r}{again}")
        if member.compress_type not in _METHODS or member.flag_bits & _ENCRYPTED:
            raise BadRequest(f"the NPZ body's {name} is neither stored nor deflated, or encrypted")
        seen.add(name)
