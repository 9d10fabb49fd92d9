"""Presets, and single settings given as ``key=value``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.run.settings import Budget, RunSettings

PRESETS = Path(__file__).parent.parent / "Resources" / "Presets"


def preset_names() -> list[str]:
    """The presets that come with the library."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def load_settings(preset: str, assignments: Iterable[str] = (), **top: Any) -> RunSettings:
    """Settings of a preset with changes on top.

    Args:
        preset: a preset's name, or the path of a JSON file.
        assignments: ``finetuning.options.rank=8`` and the like; a value is JSON, or else text.
        top: top-level settings; those that are None change nothing.

    Raises:
        InputError: no such preset or setting, or a value that is not allowed.
    """
    path = PRESETS / f"{preset}.json"
    if not path.exists():
        path = Path(preset)
        if path.suffix != ".json" or not path.exists():
            raise InputError(
                f"There is no preset '{preset}'; choose one of {', '.join(preset_names())}, or "
                "give the path of a .json file."
            )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"The preset '{path}' is not valid JSON ({error}).") from error
    if not isinstance(tree, dict):
        raise InputError(f"The preset '{path}' is not a JSON object of settings.")
    tree["preset"] = path.stem
    return _changed(tree, assignments, **top)


def would_change(settings: RunSettings, assignments: Iterable[str] = (), **top: Any) -> bool:
    """Whether these assignments or top-level settings differ from what ``settings`` say.

    Args:
        settings: of a run.
        assignments, top: as for :func:`load_settings`.

    Raises:
        InputError: no such setting, or a value that is not allowed.
    """
    return _changed(settings.model_dump(mode="json"), assignments, **top) != settings


def _changed(tree: dict[str, Any], assignments: Iterable[str], **top: Any) -> RunSettings:
    """Settings from a tree of JSON values, with changes on top; the tree is altered."""
    given = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"'--set {assignment}' is not of the form key=value.")
        given[key.strip()] = _value(text)
    _leave_out_options(tree, given)
    for key, value in given.items():
        _assign(tree, key, value)
        # The preset's minutes would win over steps that somebody asks for.
        group, _, leaf = key.rpartition(".")
        if leaf == "steps" and f"{group}.minutes" not in given:
            _assign(tree, f"{group}.minutes", None)
    tree.update({key: value for key, value in top.items() if value is not None})
    try:
        return RunSettings.model_validate(tree)
    except ValidationError as error:
        raise InputError(_what_is_wrong(error)) from error


def _leave_out_options(tree: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Options belong to one strategy or method; another one that is given has none of them."""
    for group, choice in (("finetuning", "strategy"), ("retraining", "method")):
        own = tree.get(group) or {}
        chosen = own.get(choice, getattr(getattr(RunSettings(), group), choice))
        if given.get(f"{group}.{choice}", chosen) != chosen:
            own.pop("options", None)


def _what_is_wrong(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _settings_beside(problem["loc"])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
        meant = f"did you mean '{close[0]}'? Those" if close else "those"
        return f"There is no setting '{name}'; {meant} there are: {', '.join(known)}."
    words = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return f"These settings cannot be used: {words}."  # they do not go together
    return f"The setting '{name}' cannot be used: {words} (given: {problem['input']!r})."


def _settings_beside(place: tuple[int | str, ...]) -> list[str]:
    """Names of the settings in the group where a name was not found."""
    group: Any = RunSettings()
    for part in place[:-1]:
        # A group that is None unless set (supervised_budget) has no default to look into.
        group = getattr(group, str(part)) or Budget()
    return sorted(type(group).model_fields)


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:  # also where a group is switched off (warm_start)
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise InputError(f"The setting '{key}' does not exist: '{parent}' has no settings.")
    tree[leaf] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
