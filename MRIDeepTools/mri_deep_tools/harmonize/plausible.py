"""Is it believable that this is a T1w brain, and that it was registered? Stop or warn where it is not."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..progress import Progress
from ..registration import Registration

__all__ = ["judge_contrast", "judge_registration"]

LEAST_OVERLAP, LEAST_CORRELATION, DOUBTFUL_CORRELATION = 0.75, 0.3, 0.6
LEAST_INFORMATION = 0.03  # normalised; T1w brains in their place had 0.07 to 0.13, ones that lay wrongly 0.02 to 0.06
SIZES = (0.72, 1.2)  # of the brain against the template, in each direction; adults have 0.8 to 1.05
_WHITE, _GREY = (2, 41), (3, 42)  # cerebral white matter and cortex in the labels of SynthSeg


def judge_contrast(data: np.ndarray, labels: np.ndarray, name: str, progress: Progress, *, unchecked: bool) -> None:
    """Stop, or with ``unchecked`` warn, when white matter is not brighter than cortex; both arrays are (X, Y, Z).

    Raises
    ------
    InputError : it is not, so the scan is not T1w.

    """
    white, grey = (data[np.isin(labels, codes)] for codes in (_WHITE, _GREY))
    if not white.size or not grey.size or np.median(white) > np.median(grey):
        return
    fault = f"{name} does not look like a T1w scan: its white matter is not brighter than its cortex"
    if not unchecked:
        raise InputError(fault, "give the T1w scan, or switch this check off (--unchecked)")
    progress.warn(fault)


def judge_registration(found: Registration, name: str, progress: Progress, *, unchecked: bool) -> None:
    """Stop, or with ``unchecked`` warn, when a registration is implausible or the contrast is not that of T1w.

    Raises
    ------
    InputError : brain and template differ in size, do not overlap, or have unrelated intensities.

    """
    fault = _fault(found, name)
    if fault and not unchecked:
        raise InputError(fault, "check contrast, brain mask and field of view, or switch this check off (--unchecked)")
    if fault:
        progress.warn(fault)
    elif found.correlation < DOUBTFUL_CORRELATION:
        progress.warn(
            f"{name} correlates with the template by {found.correlation:.2f} only: check contrast and registration"
        )


def _fault(found: Registration, name: str) -> str:
    if not SIZES[0] <= found.scale <= SIZES[1]:
        return (
            f"the brain of {name} is {found.scale:.2f} times as long as the template's: its voxel sizes or its brain "
            "mask are wrong, or it is not an adult's"
        )
    if found.overlap < LEAST_OVERLAP:
        return f"the registration failed: brain and template overlap by {found.overlap:.2f} only"
    if found.correlation < LEAST_CORRELATION:
        return (
            f"{name} does not look like a T1w scan: its intensities correlate with those of the template by "
            f"{found.correlation:.2f} only"
        )
    if found.mutual_information < LEAST_INFORMATION:
        return (
            f"the registration failed: {name} and the template share {found.mutual_information:.3f} of their "
            "information only"
        )
    return ""
