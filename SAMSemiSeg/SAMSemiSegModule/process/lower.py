"""Settings that need less memory, for the one-click retry after running out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

# Each step goes further than the one before; the values are those of ``--set``. Sides of a patch
# are multiples of 32, which suit every method.
STEPS: tuple[dict[str, str], ...] = (
    {
        "finetuning.gradient_checkpointing": "true",
        "retraining.labeled_batch": "1",
        "retraining.unlabeled_batch": "1",
    },
    {"stitching.max_pixels": "262144", "retraining.patch": "[64, 64, 64]"},
    {"retraining.patch": "[64, 64, 32]", "retraining.net.width": "8"},
)

LOWERED = {key for step in STEPS for key in step}


def lowerStill(settings: Mapping[str, str], device: str) -> tuple[dict[str, str], str]:
    """Settings and device that need less memory than these.

    Args:
        settings: what was set by ``--set``, with all that is lowered here.
        device: the device that ran out of memory.
    """
    for times in range(1, len(STEPS) + 1):
        lower = lowered(settings, device, times)
        if lower != (settings, device):
            return lower
    lower, processor = lowered(settings, device, len(STEPS) + 1)
    if device != processor and "foundation.weights" not in lower:
        # The model that was chosen for the GPU; another one is the user's choice.
        from SAMSemiSegLib.run.settings import FoundationSettings

        if lower.get("foundation.name") == FoundationSettings().resolved("cuda"):
            lower["foundation.name"] = "auto"
    return lower, processor


def lowered(settings: Mapping[str, str], device: str, times: int) -> tuple[dict[str, str], str]:
    """Settings and device for the ``times``-th retry; the last ones go to the processor.

    Args:
        settings: what was set by ``--set``.
        device: the device that ran out of memory.
        times: 1 for the first retry.
    """
    result = dict(settings)
    for step in STEPS[:times]:
        result.update({key: _smaller(result.get(key), value) for key, value in step.items()})
    return result, "cpu" if times > len(STEPS) else device


def _smaller(chosen: str | None, value: str) -> str:
    """The value, or what was chosen where that is less already; of a patch, side by side."""
    try:
        ours, theirs = json.loads(value), json.loads(chosen or "")
        if isinstance(ours, list):
            return json.dumps([min(pair) for pair in zip(ours, theirs, strict=True)])
        return value if isinstance(ours, bool) else json.dumps(min(ours, theirs))
    except (ValueError, TypeError):
        return value
