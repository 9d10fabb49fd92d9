"""How far a run is, from its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slicer.i18n import tr as _

# Rough share of a whole run that each stage takes; only for the bar of the whole. Scoring comes
# between any two stages, so it has none.
SHARES = {
    "preprocessing": 0.03,
    "supervised": 0.0,
    "finetuning": 0.38,
    "pseudolabels": 0.10,
    "retraining": 0.42,
    "proposals": 0.05,
    "export": 0.02,
}
# The same where the V-Net is trained on the labels first.
WARM_SHARES = {
    "preprocessing": 0.03,
    "supervised": 0.0,
    "warm-start": 0.30,
    "finetuning": 0.06,
    "pseudolabels": 0.14,
    "retraining": 0.40,
    "proposals": 0.05,
    "export": 0.02,
}
# More points than the plot has pixels only cost time.
MOST_POINTS = 600


@dataclass
class RunProgress:
    """What the panel shows of a run.

    Attributes:
        stage: name of the stage in the event stream.
        stageFraction, fraction: 0..1, of the stage and of the whole.
        stageSecondsLeft, secondsLeft: None while nothing can be said.
        curves: points (step, value) by name, of the latest stage that trains.
        curvesOf: that stage.
        warnings: sentences for the user.
        shares: rough share of the whole that each stage of this run takes.
    """

    stage: str = ""
    stageFraction: float = 0.0
    fraction: float = 0.0
    stageSecondsLeft: float | None = None
    secondsLeft: float | None = None
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    curvesOf: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=lambda: SHARES)
    _started: float | None = None
    _startFraction: float = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event; what is missing or of another type is passed over."""
        kind = event.get("kind")
        time = event.get("time")
        if kind == "start" and isinstance(time, (int, float)):
            self._started, self._startFraction = float(time), self.fraction
        elif kind == "stage":
            self.stage = str(event.get("stage", ""))
            self._advance(event)
        elif kind == "progress":
            self._advance(event)
            self._addPoints(event)
        elif kind == "scores" and isinstance(event.get("values"), dict):
            self.scores = {k: v for k, v in event["values"].items() if isinstance(v, (int, float))}
        elif kind == "warning" and event.get("message"):
            self.warnings.append(str(event["message"]))
        elif kind == "end":
            self.fraction, self.secondsLeft = 1.0, 0.0

    def stageTitle(self) -> str:
        """The present stage in words."""
        return self.titleOf(self.stage)

    @staticmethod
    def titleOf(stage: str) -> str:
        """A stage in words; "evaluation:..." is said of each row that is scored."""
        return {
            "preprocessing": _("Preparing the volumes"),
            "supervised": _("Training on the labeled cases alone"),
            "warm-start": _("Training the V-Net on the labeled cases first"),
            "finetuning": _("Adapting the foundation model"),
            "pseudolabels": _("Writing pseudo-labels"),
            "evaluation": _("Scoring"),
            "retraining": _("Training the V-Net"),
            "selection": _("Choosing the volumes it is sure of"),
            "proposals": _("Segmenting the unlabeled cases"),
            "export": _("Exporting the model"),
        }.get(stage.partition(":")[0], stage)

    def _room(self) -> str:
        return self.stage.partition(":")[0]

    def _advance(self, event: dict[str, Any]) -> None:
        self.stage = str(event.get("stage") or self.stage)
        step, total = event.get("step"), event.get("total")
        if isinstance(step, (int, float)) and isinstance(total, (int, float)) and total > 0:
            self.stageFraction = min(max(step / total, 0.0), 1.0)
        left = event.get("seconds_left")
        self.stageSecondsLeft = float(left) if isinstance(left, (int, float)) else None
        room = self._room()
        if room == "warm-start":
            self.shares = WARM_SHARES
        if room in self.shares:
            order = list(self.shares)
            before = sum(self.shares[name] for name in order[: order.index(room)])
            whole = before + self.shares[room] * self.stageFraction
            self.fraction = max(self.fraction, min(whole, 1.0))  # stages come again in later rounds
        self._estimate(event.get("time"))

    def _estimate(self, now: Any) -> None:
        if self._started is None or not isinstance(now, (int, float)):
            return
        done, elapsed = self.fraction - self._startFraction, now - self._started
        if done > 0.02 and elapsed > 0:
            self.secondsLeft = elapsed / done * (1.0 - self.fraction)

    @property
    def shownCurves(self) -> dict[str, list[tuple[float, float]]]:
        """The curves to draw: where there is a single term, it is the total once more."""
        isOneTerm = len(self.curves) == 2 and "loss" in self.curves
        return {"loss": self.curves["loss"]} if isOneTerm else self.curves

    def _addPoints(self, event: dict[str, Any]) -> None:
        from SAMSemiSegLib.run.events import is_loss

        values, step = event.get("values"), event.get("step")
        if not isinstance(values, dict) or not isinstance(step, (int, float)):
            return
        if values and self.stage != self.curvesOf:
            self.curves, self.curvesOf = {}, self.stage
        for name, value in values.items():
            if not is_loss(name):
                continue
            if isinstance(value, (int, float)) and value == value:
                points = self.curves.setdefault(name.replace("_", " "), [])
                # A run that went on from a checkpoint repeats some steps.
                while points and points[-1][0] >= step:
                    points.pop()
                points.append((float(step), float(value)))
                if len(points) > MOST_POINTS:
                    points[:] = points[::2]


def inWords(seconds: float | None) -> str:
    """A time left: "about 3 minutes"."""
    if seconds is None:
        return _("time left not known yet")
    if seconds < 45:
        return _("less than a minute left")
    if seconds < 90:
        return _("about a minute left")
    if seconds < 90 * 60:
        return _("about {count} minutes left").format(count=max(round(seconds / 60), 1))
    return _("about {count:.1f} hours left").format(count=seconds / 3600)
