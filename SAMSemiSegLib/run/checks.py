"""What can be refused before a run has left anything behind."""

from __future__ import annotations

from pathlib import Path

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning import stage as finetuning
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.preprocessing.plan import read_window
from SAMSemiSegLib.preprocessing.stage import require_labels
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.clean import channels_of
from SAMSemiSegLib.pseudolabels.stage import require_canvases
from SAMSemiSegLib.retraining import student as retraining
from SAMSemiSegLib.run.settings import RunSettings


def check_before_start(project: Project, settings: RunSettings) -> None:
    """Refuse what no run could do, so that a misspelled name costs neither minutes nor the name of
    a run.

    Raises:
        InputError: no label; an unknown model, strategy, method, option or label; a patch
            or gray values that do not suit; a package or weights file that is not there.
    """
    require_labels(project)
    if settings.preprocessing.intensity == "window":
        read_window(settings.preprocessing)
    model = FOUNDATION[settings.foundation.resolved()]
    if model.requires is not None:
        model.requires()
    finetuning.read_options(settings.finetuning)
    retraining.check_warm_start(settings.retraining)
    needs = retraining.needs_of(settings.retraining)
    if needs.pseudo_labels and settings.retraining.pseudo_label_mode == "off":
        raise InputError(
            "The setting retraining.options.target=pseudo_label needs pseudo-labels; set "
            "retraining.pseudo_label_mode=on, or target back."
        )
    if settings.retraining.patch is not None:
        retraining.check_patch(settings.retraining.patch, settings.retraining)
    names = project.label_set.names
    for setting, choice in {
        "pseudolabels.largest_component": settings.pseudolabels.largest_component,
        "pseudolabels.fill_holes": settings.pseudolabels.fill_holes,
        "retraining.largest_component": settings.retraining.largest_component,
    }.items():
        channels_of(choice, names, setting)
    strategy = STRATEGIES[settings.finetuning.strategy]
    if settings.pseudolabels.flips:
        require_canvases(strategy, "flips")
    if settings.pseudolabels.prototype_agreement:
        require_canvases(strategy, "prototype_agreement")
        selection = settings.retraining.selection
        mode = settings.retraining.pseudo_label_mode
        if mode == "selected" and selection.alternation == "online":
            raise InputError(
                "The setting pseudolabels.prototype_agreement does not work with "
                "retraining.selection.alternation=online; set one of the two back."
            )
    pseudo_labels = settings.retraining.pseudo_label_mode != "off" and bool(project.unlabeled)
    if strategy.guided and pseudo_labels and settings.retraining.warm_start is None:
        raise InputError(
            f"{strategy.title} needs a V-Net trained before it; set retraining.warm_start.minutes, "
            "or choose another finetuning.strategy."
        )
    weights = settings.foundation.weights
    if weights is not None and not Path(weights).expanduser().is_file():
        raise InputError(f"There is no weights file '{weights}'; check foundation.weights.")
    if weights is None and model.weights is not None and model.weights.url is None:
        raise InputError(
            f"The weights of '{model.name}' cannot be fetched; set foundation.weights to their "
            "file."
        )
