"""Files that list rows of a data set: .npy, or .csv or .txt with one number a line."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError

Rows = np.ndarray[Any, np.dtype[np.int64]]


def read_rows(file: str, option: str) -> Rows:
    """Return the listed rows, ascending.

    Raise UserError, naming the option that gave the file, if it is not a list of different rows.
    """
    rows = read_numbers(file, option)
    found: Rows
    found, counts = np.unique(rows, return_counts=True)
    if len(found) < len(rows):
        raise UserError(
            f"{option}={file} lists row {found[counts > 1][0]} more than once: list every row once"
        )
    if not len(found):
        raise UserError(f"{option}={file} lists no row: nothing would be selected")
    return found


def read_numbers(file: str, option: str) -> Rows:
    """Return the listed numbers in their order. Raise UserError if the file holds anything else."""
    path = Path(file).expanduser()
    readers = {".npy": _npy, ".csv": _csv, ".txt": _txt}
    if path.suffix not in readers:
        raise UserError(f"{option}={path}: write the rows as .npy, .csv or .txt")
    if not path.is_file():
        raise UserError(f"{option}={path} does not exist: correct the path")
    try:
        return readers[path.suffix](path)
    except Exception as error:  # a damaged .npy raises many kinds
        raise UserError(
            f"{option}={path} is no list of row numbers ({error}); "
            "write one non-negative integer a line, or a one-dimensional integer .npy"
        ) from error


def content(rows: Rows) -> str:
    """Return a checksum that identifies a list of rows, whatever the path of its file."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _npy(path: Path) -> Rows:
    rows = np.load(path, allow_pickle=False)
    if not isinstance(rows, np.ndarray):
        raise ValueError("it holds several arrays")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"its array is {rows.ndim}-dimensional of {rows.dtype}")
    if len(rows) and int(rows.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"it holds {rows.max()}")  # of which int64 makes a negative number
    listed: Rows = rows.astype(np.int64)
    return listed


def _csv(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets add a mark
        lines = [line for line in csv.reader(file) if line]
    if any(len(line) > 1 for line in lines):
        raise ValueError("it has several columns")
    cells = [line[0] for line in lines]
    if cells and _is_header(cells[0]):
        cells = cells[1:]
    return np.array([int(cell) for cell in cells], dtype=np.int64)


def _is_header(cell: str) -> bool:
    """Return whether a cell is a word: neither a number, of any notation, nor anything with a digit."""
    try:
        float(cell)
    except ValueError:
        return any(map(str.isalpha, cell)) and not any(map(str.isdigit, cell))
    return False


def _txt(path: Path) -> Rows:
    return np.array([int(word) for word in path.read_text(encoding="utf-8-sig").split()], dtype=np.int64)
