"""What a training that ran out of memory is asked again."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
from SAMSemiSegModule.process.lower import STEPS, lowered


def test_each_retry_asks_for_less():
    assert lowered({}, "cuda", 1) == (STEPS[0], "cuda")
    settings, device = lowered({"seed": "1"}, "cuda", len(STEPS) + 1)
    assert device == "cpu" and settings["seed"] == "1"
    assert settings["retraining.patch"] == "[64, 64, 32]"


def test_a_retry_keeps_what_was_chosen_smaller_still():
    chosen = {"retraining.patch": "[32, 96, 96]", "stitching.max_pixels": "65536", "seed": "1"}
    settings, _device = lowered({**chosen, "finetuning.gradient_checkpointing": "false"}, "cpu", 2)
    assert settings["retraining.patch"] == "[32, 64, 64]"
    assert settings["stitching.max_pixels"] == "65536"
    assert settings["finetuning.gradient_checkpointing"] == "true"
    assert lowered({"retraining.patch": "none"}, "cpu", 2)[0]["retraining.patch"] == "[64, 64, 64]"


def test_the_library_takes_the_settings_of_each_retry():
    presets = pytest.importorskip("SAMSemiSegLib.run.presets")
    for preset in ("quick", "balanced", "paper"):
        for times in range(1, len(STEPS) + 1):
            settings, _device = lowered({}, "cuda", times)
            chosen = presets.load_settings(preset, [f"{k}={v}" for k, v in settings.items()])
            assert chosen.retraining.labeled_batch == 1
            assert chosen.finetuning.gradient_checkpointing
            if times > 1:  # whatever the method: MagicNet's patches are multiples of 32
                assert not any(side % 32 for side in chosen.retraining.patch)
