"""The split of a list into training, validation and test parts, by the published formula, whole subjects together.

A permutation by NumPy's ``RandomState(seed)`` is taken from the front: the first ceil(test * n) items are the test
part, and of what is left the same again with validation / (training + validation); the rest is for training. This is
what AxonDeepSynth gets from scikit-learn with seed 42.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RequestError

__all__ = ["RATIOS", "Ratios", "split", "split_groups", "subject_of"]

RATIOS = (0.8, 0.1, 0.1)
_SUBJECT = re.compile(r"(?<![A-Za-z0-9])sub-[A-Za-z0-9]+")
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Ratios:
    """Shares of training, validation and test, which sum to 1.

    Raises
    ------
    RequestError : a share that is negative, no training share, or another sum.

    """

    train: float = RATIOS[0]
    val: float = RATIOS[1]
    test: float = RATIOS[2]

    def __post_init__(self) -> None:
        """Check the shares."""
        shares = (self.train, self.val, self.test)
        if not all(math.isfinite(share) and share >= 0 for share in shares) or self.train <= 0:
            raise RequestError(f"the shares {_text(shares)} cannot be used", "give three numbers such as 0.8 0.1 0.1")
        if abs(sum(shares) - 1) > _SUM_TOLERANCE:
            raise RequestError(
                f"the shares {_text(shares)} sum to {sum(shares):g}, not to 1", "for instance 0.8 0.1 0.1"
            )


def split(count: int, ratios: Ratios, *, seed: int = 42, what: str = "images") -> dict[str, list[int]]:
    """Return the numbers of the items of each part, in the order in which they are stored.

    Parameters
    ----------
    count : items in all.
    ratios : shares of the parts; one with a share of 0 stays empty.
    what : the items, for errors.

    Raises
    ------
    InputError : too few items for the parts that are asked for.

    """
    order = np.random.RandomState(seed).permutation(count)  # the legacy generator: its draws are the published ones
    taken = math.ceil(ratios.test * count)
    test, rest = order[:taken], order[taken:]
    if ratios.val:
        again = np.random.RandomState(seed).permutation(len(rest))
        taken = math.ceil(ratios.val / (ratios.train + ratios.val) * len(rest))
        val, train = rest[again[:taken]], rest[again[taken:]]
    else:
        val, train = rest[:0], rest
    if not len(train) or (ratios.val and not len(val)):
        raise InputError(
            f"{count} {what} are too few for training, validation and test",
            "give more, or set shares to 0, for instance --ratios 1 0 0",
        )
    return {"train": train.tolist(), "val": val.tolist(), "test": test.tolist()}


def split_groups(
    groups: Sequence[str], ratios: Ratios, *, seed: int = 42, what: str = "subjects"
) -> dict[str, list[int]]:
    """Return the numbers of the items of each part so that items of one group stay together.

    Parameters
    ----------
    groups : name of each item's group; the formula is applied to the sorted names.

    Raises
    ------
    InputError : too few groups for the parts that are asked for.

    """
    names = sorted(set(groups))
    parts = split(len(names), ratios, seed=seed, what=what)
    members: dict[str, list[int]] = {name: [] for name in names}
    for number, name in enumerate(groups):
        members[name].append(number)
    return {part: [item for k in numbers for item in members[names[k]]] for part, numbers in parts.items()}


def subject_of(path: str) -> str:
    """Return the BIDS subject in a path, the folder's rather than the file's, or an empty text."""
    found = _SUBJECT.search(path.replace("\\", "/"))
    return found.group() if found else ""


def _text(shares: Sequence[float]) -> str:
    return " ".join(f"{share:g}" for share in shares)
