"""SFR+: which volumes the re-trained net is sure of."""

import numpy as np
import pytest

from SAMSemiSegLib.retraining.selection import Evidence, Shape, select
from SAMSemiSegLib.run.settings import SelectionSettings


def ball(radius: float, certainty: float = 0.99, pieces: int = 1) -> np.ndarray:
    """(2, 24, 24, 24) probabilities of a ball, or of several small ones."""
    grid = np.indices((24, 24, 24)).astype(float)
    centers = [(12, 12, 12)] if pieces == 1 else [(4, 4, 4), (18, 4, 4), (4, 18, 4), (18, 18, 18)]
    inside = np.zeros((24, 24, 24), bool)
    for center in centers[:pieces]:
        inside |= ((grid - np.reshape(center, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2
    foreground = np.where(inside, certainty, 1 - 0.999)
    return np.stack([1 - foreground, foreground]).astype(np.float32)


LABELED = [Shape.of(ball(6).argmax(0), 2)]


def test_confidence_by_hand() -> None:
    """Eq. (8): four voxels with largest probabilities 0.9, 0.6, 0.8, 1; two of them are in the
    foreground band."""
    probabilities = np.array([[0.1, 0.6, 0.8, 1.0], [0.9, 0.4, 0.2, 0.0]]).reshape(2, 4, 1, 1)
    found = Evidence.of(probabilities)
    assert found.everywhere == pytest.approx((0.9 + 0.6 + 0.8 + 1.0) / 4)
    assert found.foreground == pytest.approx((0.9 + 0.6 + 0.8) / 3)
    assert found.shape == Shape(0.25, (0.25,), (1.0,))
    # Of a crop that reaches beyond its volume by the first two.
    inside = np.array([False, False, True, True]).reshape(4, 1, 1)
    found = Evidence.of(probabilities, inside)
    assert (found.everywhere, found.foreground) == pytest.approx((0.9, 0.8))
    assert found.shape.foreground == 0


def test_threshold_and_guards() -> None:
    evidence = {
        "good": Evidence.of(ball(6)),
        "unsure": Evidence.of(ball(6, certainty=0.6)),
        "empty": Evidence.of(ball(0, certainty=0.0)),
        "tiny": Evidence.of(ball(2)),
        "huge": Evidence.of(ball(11)),
        "pieces": Evidence.of(ball(4, pieces=4)),
    }
    found = select(evidence, LABELED, SelectionSettings())
    assert {id for id, d in found.items() if d.confident} == {"good"}
    assert found["empty"].confidence > 0.985  # the guard, not the threshold, keeps it out
    for id, word in [("unsure", "not within"), ("empty", "empty"), ("tiny", "times as large"),
                     ("huge", "times as large"), ("pieces", "in pieces")]:  # fmt: skip
        assert word in found[id].reason


def test_quantile_takes_the_best_plausible_ones() -> None:
    evidence = {f"case{i}": Evidence.of(ball(6, certainty=0.6 + 0.05 * i)) for i in range(4)}
    evidence["empty"] = Evidence.of(ball(0, certainty=0.0))
    settings = SelectionSettings(mode="quantile", quantile=0.4, confidence="foreground")
    found = select(evidence, LABELED, settings)
    assert {id for id, d in found.items() if d.confident} == {"case2", "case3"}


def test_a_missing_class_and_an_organ_of_two_parts() -> None:
    kidneys = Shape(0.1, (0.05, 0.05), (1.0, 0.5))  # the second class has two equal parts
    settings = SelectionSettings()

    def reason(shape: Shape) -> str:
        return select({"case": Evidence(0.99, 0.99, shape)}, [kidneys], settings)["case"].reason

    assert "within" in reason(Shape(0.1, (0.05, 0.05), (0.95, 0.45)))
    assert "Label 2 is in pieces" in reason(Shape(0.1, (0.05, 0.05), (0.95, 0.2)))
    assert "Label 1, which every labeled volume has" in reason(Shape(0.1, (0, 0.1), (0.0, 0.5)))


def test_without_guards_only_an_empty_prediction_is_refused() -> None:
    evidence = {"tiny": Evidence.of(ball(2)), "empty": Evidence.of(ball(0, certainty=0.0))}
    found = select(evidence, LABELED, SelectionSettings(guards=False))
    assert found["tiny"].confident and not found["empty"].confident
