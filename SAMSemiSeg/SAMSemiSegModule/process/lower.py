"""Settings that need less memory, for the one-click retry after running out of it."""

from __future__ import annotations

from collections.abc import Mapping

# Each step goes further than the one before; the values are those of ``--set``.
STEPS: tuple[dict[str, str], ...] = (
    {
        "finetuning.gradient_checkpointing": "true",
        "retraining.labeled_batch": "1",
        "retraining.unlabeled_batch": "1",
    },
    {"stitching.max_pixels": "262144", "retraining.patch": "[64, 64, 64]"},
    {"retraining.patch": "[48, 48, 48]", "retraining.net.width": "8"},
)


def lowered(settings: Mapping[str, str], device: str, times: int) -> tuple[dict[str, str], str]:
    """Settings and device for the ``times``-th retry; the last ones go to the processor.

    Args:
        settings: what was set by ``--set``.
        device: the device that ran out of memory.
        times: 1 for the first retry.
    """
    result = dict(settings)
    for step in STEPS[:times]:
        result.update(step)
    return result, "cpu" if times > len(STEPS) else device
