"""What a training that ran out of memory is asked again."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
from SAMSemiSegModule.process.lower import STEPS, lowered, lowerStill


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


def test_each_retry_lowers_something_until_the_processor_is_left(tmp_path):
    presets = pytest.importorskip("SAMSemiSegLib.run.presets")
    from SAMSemiSegModule.runs import startedWith

    for preset in ("quick", "balanced", "paper"):
        chosen, device = ["retraining.net.width=8", "foundation.name=sam_vit_b"], "cuda"
        seen = []
        while device != "cpu":
            settings = presets.load_settings(preset, chosen, device=device)
            assert settings not in seen
            seen.append(settings)
            (tmp_path / "config.json").write_text(settings.model_dump_json())
            _settings, lower = startedWith(tmp_path)
            lower, device = lowerStill(lower, device)
            chosen = [f"{key}={value}" for key, value in lower.items()]
        assert len(seen) >= 3
        # On the processor, the foundation model that goes with it.
        last = presets.load_settings(preset, chosen, device=device)
        assert last.foundation.name == ("sam_vit_b" if preset == "paper" else "auto")
        assert last.retraining.net.width == 8


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["retraining.budget.steps=50"],
        ["retraining.warm_start=null", "pseudolabels.vnet_share=0"],
        ["supervised_budget.steps=7", "finetuning.options.rank=2", "mixed_precision=no"],
        ["foundation.weights=/a folder/8", 'retraining.largest_component=["liver"]', "export=[]"],
    ],
)
def test_a_run_can_be_started_once_more_as_it_was(tmp_path, changes):
    presets = pytest.importorskip("SAMSemiSegLib.run.presets")
    from SAMSemiSegModule.runs import startedWith

    for preset in ("quick", "balanced", "paper"):
        settings = presets.load_settings(preset, changes, seed=5, device="cpu")
        (tmp_path / "config.json").write_text(settings.model_dump_json())
        found, chosen = startedWith(tmp_path)
        assignments = [f"{key}={value}" for key, value in chosen.items()]
        assert found == settings
        assert presets.load_settings(preset, assignments, seed=5, device="cpu") == settings


def test_a_run_whose_settings_cannot_be_read_is_not_started_from(tmp_path):
    pytest.importorskip("SAMSemiSegLib.run.presets")
    from SAMSemiSegModule.runs import startedWith

    assert startedWith(tmp_path) is None
    (tmp_path / "config.json").write_text('{"preset": 8')
    assert startedWith(tmp_path) is None
