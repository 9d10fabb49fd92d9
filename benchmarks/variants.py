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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
