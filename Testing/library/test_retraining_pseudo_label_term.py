"""The pseudo-label term that is added to any method: SFR."""

from __future__ import annotations

import pytest
import torch

from SAMSemiSegLib.retraining.pseudo_label_term import PseudoLabelTerm, pseudo_label_weight
from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, UnlabeledBatch
from SAMSemiSegLib.retraining.student import build_method
from SAMSemiSegLib.run.settings import NetSettings, RetrainingSettings
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress

PATCH = (32, 32, 32)


def test_pseudo_label_term_hard_soft_weighted_selected() -> None:
    """SFR, eq. (6)-(8): total = the method's losses + μ·½(CE + Dice)(student(U), label, weight)."""
    image, hard = torch.randn(2, 1, *PATCH), torch.randint(2, (2, *PATCH), dtype=torch.uint8)
    labeled = LabeledBatch(image.flip(2), hard.flip(1))
    soft = torch.nn.functional.one_hot(hard.long(), 2).movedim(-1, 1).float() * 0.8 + 0.1
    confidence = torch.rand(2, *PATCH)
    unlabeled = UnlabeledBatch(image, hard, soft, confidence, torch.tensor([True, False]))
    net = NetSettings(width=2, norm="group", dropout=0.0)
    settings = RetrainingSettings(method="supervised", net=net, pseudo_label_mode="off")
    method = build_method(settings, 2, 1, 2, PATCH)
    logits = method.final_net()(unlabeled.image)

    def term(**changes: object) -> torch.Tensor | None:
        wanted = settings.model_copy(update=changes)
        result = PseudoLabelTerm(method, wanted).step(labeled, unlabeled, Progress(60, 100))
        return result.losses.get("pseudo_label")

    assert term() is None
    on = {"pseudo_label_mode": "on"}
    expected = segmentation_loss(logits, hard, confidence)
    assert torch.allclose(term(**on), expected)
    assert torch.allclose(term(**on, pseudo_label_weight=0.5), 0.5 * expected)
    assert torch.allclose(term(**on, pseudo_label_schedule="ramp_down"), 0.4 * expected)
    unweighted = term(**on, confidence_weights=False)
    assert torch.allclose(unweighted, segmentation_loss(logits, hard))
    softly = term(**on, pseudo_label_target="soft")
    assert torch.allclose(softly, segmentation_loss(logits, soft, confidence))
    selected = term(pseudo_label_mode="selected")
    assert torch.allclose(selected, segmentation_loss(logits[:1], hard[:1], confidence[:1]))


def test_pseudo_label_schedules() -> None:
    def weights(schedule: str) -> list[float]:
        settings = RetrainingSettings(pseudo_label_schedule=schedule, pseudo_label_weight=2)
        return [pseudo_label_weight(settings, t) for t in (0.0, 0.5, 1.0)]

    assert weights("constant") == [2, 2, 2]
    assert weights("ramp_down") == [2, 1, 0]
    up = weights("ramp_up")
    assert up[0] == pytest.approx(2 * 0.0067, rel=0.01) and up[1:] == [2, 2]
