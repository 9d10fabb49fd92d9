"""The command lines of the library that the panel starts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _


def parseSettings(text: str) -> dict[str, str]:
    """Settings typed as ``key=value key=value``; values with spaces in quotes.

    Raises:
        ValueError: a word is not of that form; the message names it.
    """
    settings = {}
    reader = shlex.shlex(text, posix=True)
    reader.whitespace_split = True
    reader.commenters = ""
    reader.escape = ""  # a backslash belongs to a path of Windows
    try:
        words = list(reader)
    except ValueError as error:
        raise ValueError(
            _("The further settings cannot be read: {error}.").format(error=error)
        ) from error
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ValueError(
                _(
                    "The further setting '{word}' is not of the form key=value, for example "
                    "retraining.net.width=8; a value with spaces stands in quotes."
                ).format(word=word)
            )
        settings[key] = value
    return settings


def chosenSettings(parameters: Any) -> dict[str, str]:
    """What the panel sets on top of the preset, as ``--set`` takes it."""
    settings = {
        "foundation.name": parameters.foundation,
        "finetuning.strategy": parameters.strategy,
        "retraining.method": parameters.method,
        "supervised_baseline": "true" if parameters.supervisedBaseline else "",
    }
    if parameters.finetuningMinutes > 0:
        settings["finetuning.budget.minutes"] = f"{parameters.finetuningMinutes:g}"
    if parameters.retrainingMinutes > 0:
        settings["retraining.budget.minutes"] = f"{parameters.retrainingMinutes:g}"
    # What is left to the preset is not set: it may name one, and settings that go with it.
    chosen = {key: value for key, value in settings.items() if value not in ("", "auto")}
    return {**chosen, **parseSettings(parameters.extraSettings)}


def runSettings(parameters: Any, settings: Mapping[str, str]) -> Any:
    """All settings of a run as the library would have them.

    Args:
        parameters: preset and device.
        settings: on top of the preset.

    Raises:
        InputError: the library would refuse them.
    """
    from SAMSemiSegLib.run.presets import load_settings

    assignments = [f"{key}={value}" for key, value in settings.items()]
    return load_settings(parameters.preset, assignments, device=parameters.device)


def warmStartMinutes() -> str:
    """What 'Balanced' gives the V-Net before re-training, for presets that have none."""
    from SAMSemiSegLib.run.presets import load_settings

    return str(load_settings("balanced").retraining.warm_start.minutes)


def trainArguments(
    project: Path, run: str, parameters: Any, settings: Mapping[str, str], device: str
) -> list[str]:
    """``samsemiseg train`` for a new run.

    Args:
        parameters: preset and seed.
        settings: on top of the preset.
    """
    arguments = ["train", str(project), "--preset", parameters.preset, "--run", run]
    arguments += ["--device", device, "--seed", str(parameters.seed)]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    return arguments


def resumeArguments(project: Path, run: str) -> list[str]:
    """``samsemiseg train`` to go on with a run as it was started."""
    return ["train", str(project), "--run", run, "--resume"]


def predictArguments(
    model: Path, images: list[Path], output: Path, device: str, overwrite: bool = False
) -> list[str]:
    """``samsemiseg predict`` for some images."""
    words = [str(image) for image in images]
    arguments = ["predict", str(model), *words, "--output", str(output), "--device", device]
    return [*arguments, "--json", *(["--overwrite"] if overwrite else [])]
