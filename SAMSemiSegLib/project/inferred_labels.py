"""The label set of a project that was not told one: what its label files hold."""

from __future__ import annotations

from pathlib import Path

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.label_set import LabelSet


def inferred_labels(labels: list[Path]) -> LabelSet:
    """The label set that label files have in common: their values, with segments' names.

    Slicer numbers the segments of each file anew, so that one value may stand for several names:
    the later ones get values of their own, for segments are found by their names.

    Raises:
        InputError: too many values, or a label map without names has a value of several names.
    """
    from SAMSemiSegLib.volumes.reading import label_values

    found = [(v, name.strip()) for path in labels for v, name in label_values(path).items()]
    nameless = {value for value, name in found if not name}
    names: dict[int, str] = {}
    for value, name in found:
        if not name or name.casefold() in (known.casefold() for known in names.values()):
            continue
        if value in names and value in nameless:
            raise InputError(
                f"The label files give the value {value} to '{names[value]}' and to '{name}', and "
                "one of them has no names; say before what is to be segmented, and name the values "
                "alike."
            )
        taken = value in names
        names[max([*names, *nameless]) + 1 if taken else value] = name
    names |= {value: "" for value in nameless if value not in names}
    if len(names) > 64:
        raise InputError(
            f"The label files hold {len(names)} values, which is too many for a label set; check "
            "that they are labels, or say before what is to be segmented."
        )
    values = sorted(names)
    return LabelSet.of([names[v] or f"label_{v}" for v in values], values)
