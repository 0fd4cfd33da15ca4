"""Estimates of a record: the batches that a request hits, and the largest setting that fits a disk."""

import math
from bisect import bisect_right
from collections.abc import Callable

# Shares with two significant digits, ascending, from 1e-6 to 0.99.
SHARES = [float(f"{digits}e{power}") for power in range(-7, -1) for digits in range(10, 100)]


def share_of_batches_hit(rows: int, tracked: int, batch_size: int) -> float:
    """Return the expected share of the batches of a pass over `rows` rows that hold any of `tracked`.

    Amnesiac unlearning of `tracked` rows subtracts this share of all updates. The last batch of a pass
    may be smaller than `batch_size`, and is hit less often.

    >>> round(share_of_batches_hit(60000, 6131, 64), 3)
    0.999
    >>> round(share_of_batches_hit(100, 1, 99), 3)  # a row is in one of the two batches
    0.5
    """
    full, left = divmod(rows, batch_size)
    last = _chance(rows, tracked, left) if left else 0.0
    return (full * _chance(rows, tracked, batch_size) + last) / max(1, full + bool(left))


def _chance(rows: int, tracked: int, size: int) -> float:
    """Return the probability that `size` rows drawn out of `rows` hold any of `tracked` ones."""
    others = rows - tracked
    if others < size:
        return 1.0
    # Hypergeometric: 1 − C(others, B)/C(rows, B). The factors B! cancel; lgamma(n + 1) is ln n!.
    ways = math.lgamma(others + 1) - math.lgamma(others - size + 1)
    return 1 - math.exp(ways - math.lgamma(rows + 1) + math.lgamma(rows - size + 1))


def largest_share(fits: Callable[[float], bool], below: float) -> float | None:
    """Return the largest share of two significant digits below `below` that fits, or None.

    Every share below one that fits must fit too.
    """
    shares = [share for share in SHARES if share < below]
    found = bisect_right(shares, False, key=lambda share: not fits(share))
    return shares[found - 1] if found else None


def largest_count(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number from 1 to `most` that fits, or 0; smaller numbers must fit too."""
    return bisect_right(range(1, most + 1), False, key=lambda count: not fits(count))


def in_words(size: float) -> str:
    """Return a number of bytes with its unit, for messages."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
