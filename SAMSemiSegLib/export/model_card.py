"""What an exported model says of itself, to programs (JSON) and to people (README.md).

The card travels inside every exported file and is all that prediction needs besides the network:
preprocessing, window, labels. It holds counts, settings and scores, and nothing of any patient: no
case ids, no file names, no paths, no dates.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from SAMSemiSegLib import __version__
from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.preprocessing.plan import Plan
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.pseudolabels.clean import channels_of
from SAMSemiSegLib.run.settings import NetSettings, RunSettings, Size3

FILE_NAME = "model_card.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataCounts(_Part):
    """Numbers of cases."""

    labeled: int
    unlabeled: int
    evaluated: int = 0


class CardScore(_Part):
    """Mean scores of one row and label over the evaluated cases; None: over no case."""

    row: str
    label: str
    cases: int
    failures: int
    dice: float | None
    jaccard: float | None
    hd95_mm: float | None
    asd_mm: float | None


class ModelCard(_Part):
    """Everything about an exported network but its weights.

    Attributes:
        format: version of this card's layout.
        name: of the model, as the user named the run or project.
        library_version: of SAMSemiSeg that made it.
        label_set: the labels in the order of the network's channels.
        plan: the preprocessing.
        patch: window of the sliding-window prediction, in preprocessed voxels.
        overlap: of neighboring windows, as a share of their side.
        scales: resolutions whose predictions are averaged, as shares of the preprocessed one's.
        largest_component: channels of which a prediction keeps only the largest component.
        net: width, normalization, dropout of the V-Net.
        data: numbers of cases.
        settings: of the run; paths are left out.
        scores: means over the cases that no stage has trained on.
    """

    format: Literal[1] = 1
    name: str
    library_version: str = __version__
    label_set: LabelSet
    plan: Plan
    patch: Size3
    overlap: float = Field(ge=0, lt=1)
    scales: tuple[float, ...] = (1.0,)
    largest_component: tuple[int, ...] = ()
    net: NetSettings
    data: DataCounts
    settings: dict[str, Any] = Field(default_factory=dict)
    scores: list[CardScore] = Field(default_factory=list)

    @classmethod
    def of_run(
        cls,
        name: str,
        label_set: LabelSet,
        plan: Plan,
        patch: Size3,
        net: NetSettings,
        settings: RunSettings,
        data: DataCounts,
        scores: Scores | None = None,
    ) -> ModelCard:
        """The card of a finished run. Its ``net`` may have another norm than the settings say."""
        plain = settings.model_dump(mode="json")
        plain["foundation"]["weights"] = None  # a path may name a user or a patient
        return cls(
            name=name,
            label_set=label_set,
            plan=plan,
            patch=patch,
            overlap=settings.retraining.overlap,
            scales=settings.retraining.scales,
            largest_component=tuple(
                channels_of(
                    settings.retraining.largest_component,
                    label_set.names,
                    "retraining.largest_component",
                )
            ),
            net=net,
            data=data,
            settings=plain,
            scores=_card_scores(scores or Scores()),
        )

    def to_json(self) -> str:
        """The card as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"


def write_card(card: ModelCard, folder: Path) -> None:
    """Write ``model_card.json`` and ``README.md`` into a folder."""
    write_text(folder / FILE_NAME, card.to_json())
    write_text(folder / "README.md", readme(card))


def readme(card: ModelCard) -> str:
    """The card in words, as Markdown."""
    names = ", ".join(card.label_set.names)
    rule, spacing = card.plan.intensity, _numbers(card.plan.spacing)
    lines = [
        f"# {card.name}",
        "",
        f"A 3D segmentation network (V-Net, width {card.net.width}) for: {names}. Trained by "
        f"SAMSemiSeg {card.library_version} on {card.data.labeled} labeled and "
        f"{card.data.unlabeled} unlabeled volumes.",
        "",
        "Not for clinical use. It has learned from few labeled cases; look at every result.",
        "",
        "## Use",
        "",
        "```",
        "samsemiseg predict MODEL IMAGE --output FOLDER",
        "```",
        "",
        "MODEL is `model.ts` (TorchScript), `model.onnx` or the folder `bundle` (MONAI). Each "
        "carries this card, so that a scan is preprocessed as in training and the result lies on "
        "the scan's own grid.",
        "",
        "Without SAMSemiSeg, MONAI runs the bundle on a folder of NIfTI or NRRD files, from within "
        "`bundle` and with the packages that its `configs/metadata.json` lists:",
        "",
        "```",
        "python -m monai.bundle run --config_file configs/inference.json --bundle_root . "
        "--dataset_dir IMAGES --output_dir RESULTS",
        "```",
        "",
        "## Labels",
        "",
        "| channel | name | value in files | color |",
        "|---|---|---|---|",
        "| 0 | background | 0 | |",
    ]
    lines += [
        f"| {channel} | {label.name} | {label.value} | "
        f"#{label.color[0]:02x}{label.color[1]:02x}{label.color[2]:02x} |"
        for channel, label in enumerate(card.label_set.labels, start=1)
    ]
    lines += [
        "",
        "## Preprocessing",
        "",
        f"Orientation {card.plan.orientation}; spacing {spacing} mm; gray values: `{rule.kind}` "
        f"(lower {rule.lower:g}, upper {rule.upper:g}, mean {rule.mean:g}, standard deviation "
        f"{rule.std:g}). Prediction by overlapping windows of {_numbers(card.patch)} voxels "
        f"(overlap {card.overlap:g}) with Gaussian weights{_looks(card)}.",
        "",
        *_cleaning(card),
        f"The training volumes looked like {card.plan.fingerprint.modality}; other kinds of "
        "images are outside of what the network knows.",
        "",
    ]
    if card.scores:
        lines += [
            "## Scores",
            "",
            f"On {card.data.evaluated} case(s) that no stage of the training had seen. Failures "
            "are cases that are missed altogether or have a Dice below 0.3; missed cases have no "
            "distances.",
            "",
            "| | label | Dice | Jaccard | HD95 mm | ASD mm | failures |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {s.row} | {s.label} | {_shown(s.dice, 3)} | {_shown(s.jaccard, 3)} | "
            f"{_shown(s.hd95_mm, 2)} | {_shown(s.asd_mm, 2)} | {s.failures} of {s.cases} |"
            for s in card.scores
        ]
        lines.append("")
    return "\n".join(lines)


def _looks(card: ModelCard) -> str:
    if card.scales == (1.0,):
        return ""
    return f", averaged over {_numbers(card.scales, ', ')} times the resolution"


def _cleaning(card: ModelCard) -> list[str]:
    names = ", ".join(card.label_set.names[channel - 1] for channel in card.largest_component)
    return [f"Of each result only the largest component is kept: {names}.", ""] if names else []


def _card_scores(scores: Scores) -> list[CardScore]:
    summary = scores.summary()
    if len(scores.labels) > 1:
        summary += [scores.overall(row) for row in scores.row_names]
    cards = []
    for s in summary:
        means = {name: figure.mean for name, figure in s.figures.items()}
        known = {name: None if math.isnan(mean) else mean for name, mean in means.items()}
        cards.append(
            CardScore(
                row=s.row,
                label=s.label,
                cases=s.cases,
                failures=s.failures,
                dice=known["dice"],
                jaccard=known["jaccard"],
                hd95_mm=known["hd95_mm"],
                asd_mm=known["asd_mm"],
            )
        )
    return cards


def _numbers(values: tuple[float, ...], between: str = " × ") -> str:
    return between.join(f"{value:.4g}" for value in values)


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
