"""Every semi-supervised method plain, with pseudo-labels (SFR) and with selection (SFR+).

With the same labeled cases and seed, all methods share preprocessing, the warm start, the
fine-tuned foundation model and its pseudo-labels; ways to fine-tune it share the first two; SFR+ in
rounds begins with the network of SFR. These are made once and linked into the run folders of the
others, which pass over what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.report.material import gather
from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.student import needs_of
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.settings import RunSettings

MODES = {"plain": "off", "sfr": "on", "sfr+": "selected"}

EARLY = {
    "warm-start": ("preprocessed", "warm-start", "evaluation/warm start.json"),
    "stage-2": ("finetuning", "pseudolabels", "evaluation/pseudo-labels.json"),
}
"""What runs share: the first, however the foundation model is fine-tuned; the second, those with
pseudo-labels that differ in their re-training alone."""
SECOND = {"stitching", "foundation", "finetuning", "pseudolabels"}
"""Settings that the warm start knows nothing of."""
LATER = {
    "method",
    "options",
    "budget",
    "pseudo_label_mode",
    "pseudo_label_weight",
    "pseudo_label_schedule",
    "pseudo_label_ramp",
    "pseudo_label_target",
    "confidence_weights",
    "selection",
    "unlabeled_batch",
    "final_model",
}
"""Settings of the re-training that its warm start knows nothing of."""

STAGE3 = ("retraining", "evaluation/re-trained.json")

Run = tuple[dict[str, Any], float]
"""Figures of a run's last network, and the seconds that its stages took."""
MISSING = "–"


@dataclass(frozen=True)
class Row:
    """A method in one of the three ways; both empty: what the settings say."""

    method: str = ""
    variant: str = ""

    @property
    def settings(self) -> list[str]:
        """As ``--set`` takes them."""
        if not self.method:
            return []
        mode = MODES[self.variant]
        return [f"retraining.method={self.method}", f"retraining.pseudo_label_mode={mode}"]

    @property
    def early(self) -> list[str]:
        """Which of ``EARLY`` it has in common with others."""
        if not self.method:
            return []
        return ["warm-start"] if self.variant == "plain" else list(EARLY)

    @property
    def key(self) -> dict[str, str]:
        """What tells its line in the results from others."""
        return {"method": self.method, "variant": self.variant} if self.method else {}

    def run_name(self, name: str, seed: int) -> str:
        """Of the run folder."""
        own = [self.method, self.variant.replace("+", "-plus")] if self.method else []
        return "-".join([name, *own, str(seed)])


def rows(methods: str, variants: str) -> list[Row]:
    """All wanted rows, SFR of a method before its SFR+.

    Args:
        methods: names separated by commas, ``all``, or nothing.
        variants: of plain, sfr, sfr+, separated by commas.

    Raises:
        InputError: there is no such method or variant.
    """
    if not methods:
        return [Row()]
    names = list(METHODS) if methods == "all" else [m.strip() for m in methods.split(",")]
    wanted = [v.strip() for v in variants.split(",")]
    unknown = [v for v in wanted if v not in MODES]
    if unknown:
        raise InputError(f"There is no variant '{unknown[0]}'; choose of {', '.join(MODES)}.")
    for name in names:
        METHODS[name]  # says which there are
    return [Row(name, variant) for name in names for variant in MODES if variant in wanted]


def shared_folders(project: Path, settings: RunSettings) -> dict[str, Path]:
    """Where the stages before re-training are kept for runs that agree in them: a folder for each
    of ``EARLY``."""
    told = settings.model_dump(
        mode="json",
        exclude={
            "preset",
            "retraining",
            "supervised_baseline",
            "supervised_budget",
            "pseudo_label_scores",
        },
    )
    own = settings.retraining
    if own.warm_start is not None:
        # A method that works with some norms only has a V-Net, and a warm start, of its own.
        norms = sorted(needs_of(own).norms)
        told["warm start"] = [own.model_dump(mode="json", exclude=LATER), norms]
    first = {key: value for key, value in told.items() if key not in SECOND}
    return {
        name: project / "shared" / hashlib.sha1(json.dumps(part).encode()).hexdigest()[:12]
        for name, part in zip(EARLY, (first, told), strict=True)
    }


def take_over(
    row: Row, folder: Path, shared: Mapping[str, Path], sfr: Path, settings: RunSettings
) -> None:
    """Link into a new run folder what other runs have made.

    Args:
        row: of the run.
        folder: of the run.
        shared: from :func:`shared_folders`.
        sfr: run folder of the same method with pseudo-labels.
        settings: of the run.
    """
    seconds = 0.0
    online = settings.retraining.selection.alternation == "online"
    for name in row.early:
        kept = shared[name]
        if (kept / f"{name}.json").exists():
            _link(kept, folder, EARLY[name])
            seconds += _seconds(kept, f"{name}.json")
    if row.variant == "sfr+" and not online and (sfr / "seconds.json").exists():
        if not alike(RunFolder(sfr).settings(), settings, but=("pseudo_label_mode", "selection")):
            raise InputError(
                f"The run '{sfr.name}', which SFR+ goes on from, was made with other settings; "
                "choose another --name, or delete it."
            )
        _link(sfr, folder, STAGE3)
        seconds = _seconds(sfr, "seconds.json")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "taken.json", {"seconds": seconds})


def alike(made: RunSettings, wanted: RunSettings, but: Sequence[str] = ()) -> bool:
    """Whether a run was made with the settings that are wanted.

    Args:
        made: of the run; its foundation model is named, where ``auto`` was wanted.
        wanted: now.
        but: settings of the re-training that may differ.
    """
    told = [settings.model_dump(mode="json") for settings in (made, wanted)]
    if wanted.foundation.name == "auto":
        told[1]["foundation"]["name"] = made.foundation.name
    for tree in told:
        for name in but:
            del tree["retraining"][name]
    return told[0] == told[1]


def keep(row: Row, folder: Path, shared: Mapping[str, Path]) -> float:
    """Link a finished run's early stages for the others.

    Args:
        row: of the run.
        folder: of the run.
        shared: from :func:`shared_folders`.

    Returns:
        The seconds that its training and pseudo-labels took, those that it took over included.
    """
    told = gather(folder).seconds
    # Neither reading, scoring nor the last segmentations are a method's own time.
    aside = ("preprocessing", "evaluation", "proposals", "export")
    stages = {name: took for name, took in told.items() if not name.startswith(aside)}
    seconds = sum(stages.values()) + _seconds(folder, "taken.json")
    write_json(folder / "seconds.json", {"seconds": seconds})
    for name in row.early:
        if not (shared[name] / f"{name}.json").exists():
            _link(folder, shared[name], EARLY[name])
            early = sum(stages.get(stage, 0.0) for stage in EARLY[name])
            write_json(shared[name] / f"{name}.json", {"seconds": early})
    return seconds


def title(line: dict[str, Any]) -> str:
    """Configuration, method and variant of a line of the results."""
    return " ".join(filter(None, (line["name"], line.get("method"), line.get("variant"))))


def final_row(line: dict[str, Any]) -> str:
    """Name of the row that holds the scores of a run's last network."""
    return [row for row in line["rows"] if row.startswith("re-trained")][-1]


def ranking(
    lines: Sequence[dict[str, Any]], published: Callable[[str, int, str], float | None]
) -> list[tuple[str, ...]]:
    """One row for each set, number of labels, configuration and method; within a configuration the
    method with the best Dice in any of the three ways first.

    Args:
        lines: of the results file; those without a method are left out.
        published: Dice in percent by set, number of labels and ``method/variant``, where known.

    Returns:
        Set, labels, configuration, method; Dice in percent plain, with SFR and with SFR+ (mean,
        standard deviation and number of runs where there are several); then, each for the three
        ways, HD95 in millimeters, failed cases, published Dice, minutes.
    """
    groups: dict[tuple[Any, ...], dict[str, list[Run]]] = {}
    for line in lines:
        if "method" in line:
            key = (line["dataset"], line["labels"], line["name"], line["method"])
            run = line["rows"][final_row(line)], line["seconds"]
            groups.setdefault(key, {}).setdefault(line["variant"], []).append(run)
    ranked = []
    for key, ways in groups.items():
        dice = {way: _dice(runs) for way, runs in ways.items()}
        known = {way: published(key[0], key[1], f"{key[3]}/{way}") for way in MODES}
        of_ways = (
            {way: _hd95(runs) for way, runs in ways.items()},
            {way: _failed(runs) for way, runs in ways.items()},
            {way: f"{figure:.1f}" for way, figure in known.items() if figure is not None},
            {way: f"{statistics.fmean(s for _, s in runs) / 60:.1f}" for way, runs in ways.items()},
        )
        cells = (
            *(str(part) for part in key),
            *(dice[way][1] if way in dice else MISSING for way in MODES),
            *(", ".join(shown.get(way, MISSING) for way in MODES) for shown in of_ways),
        )
        best, _ = max(dice.values())
        ranked.append(((*key[:3], -best), cells))
    return [cells for _, cells in sorted(ranked)]


def _dice(runs: Sequence[Run]) -> tuple[float, str]:
    """Mean Dice in percent, and as it is shown."""
    dice = [100 * figures["dice"] for figures, _ in runs]
    mean = statistics.fmean(dice)
    spread = f" ± {statistics.stdev(dice):.1f} ({len(dice)})" if len(dice) > 1 else ""
    return mean, f"{mean:.1f}{spread}"


def _hd95(runs: Sequence[Run]) -> str:
    known = [figures["hd95_mm"] for figures, _ in runs if figures["hd95_mm"] is not None]
    return f"{statistics.fmean(known):.1f}" if known else MISSING


def _failed(runs: Sequence[Run]) -> str:
    return str(sum(figures["failures"] for figures, _ in runs))


def _seconds(folder: Path, name: str) -> float:
    path = folder / name
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0


def _link(source: Path, target: Path, parts: Sequence[str]) -> None:
    """Hard links of files and folders, each whole or not at all. Files are never changed in place,
    only replaced, so that a link is as good as a copy."""
    for part in parts:
        start, end = source / part, target / part
        if end.exists() or not start.exists():
            continue
        end.parent.mkdir(parents=True, exist_ok=True)
        if start.is_dir():
            temporary = end.with_name(f".{end.name}.linking")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(start, temporary, copy_function=os.link)
            temporary.rename(end)
        else:
            os.link(start, end)
