"""Which files of a folder are which cases, and what each case is for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import matching_stem
from SAMSemiSegLib.volumes.formats import SUFFIXES, check_name, stem_of, suffix_of


@dataclass
class Found:
    """An image and what is to become of it."""

    image: Path
    label: Path | None
    use: str = "unlabeled"  # or "labeled", "evaluation"


def match_files(images: Path, labels: Path | None) -> tuple[list[Found], list[str]]:
    """The images of a folder by name, each with the label of its name, and what the user should be
    told.

    Raises:
        InputError: there is no image, no label of an image's name, or two files of one name.
    """
    by_stem = _listed(images, images=True)
    if not by_stem:
        raise InputError(
            f"The folder '{images}' holds no image; give a folder of "
            f"{', '.join(SUFFIXES[1:])} files, or of folders of DICOM slices."
        )
    label_by_stem = _listed(labels, images=False) if labels is not None else {}
    by_stem, notes = _first_channels(by_stem, label_by_stem)
    found = [Found(image, label_by_stem.get(stem)) for stem, image in by_stem.items()]
    if labels is not None and not any(f.label for f in found):
        raise InputError(
            f"No label in '{labels}' has the name of an image in '{images}'; name each label as "
            "its image (endings such as _seg, -label, _gt may differ)."
        )
    return found, notes


def _listed(folder: Path, images: bool) -> dict[str, Path]:
    """Image files (and folders of DICOM slices) by what their names have in common, sorted."""
    from SAMSemiSegLib.volumes.dicom import is_series_folder

    if not folder.is_dir():
        raise InputError(f"There is no folder '{folder}'; check the path.")
    if images and is_series_folder(folder):
        return {matching_stem(folder.name): folder}
    result: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            usable = images and is_series_folder(path)
        else:  # a segmentation that lies among images is none
            usable = suffix_of(path) not in (("", ".seg.nrrd") if images else ("",))
        if not usable:
            continue
        check_name(path)
        stem = matching_stem(path.name)
        if stem in result:
            raise InputError(
                f"'{result[stem].name}' and '{path.name}' in '{folder}' would be the same case; "
                "rename one or move it elsewhere."
            )
        result[stem] = path
    return result


def _first_channels(
    images: dict[str, Path], labels: dict[str, Path]
) -> tuple[dict[str, Path], list[str]]:
    """Without the further channels of scans (``_0001``, ... beside ``_0000``, as nnU-Net has them):
    as cases of their own, those of a patient who is held out would train.

    Digits may number the cases instead. Labels tell, for the channels of a scan share one; else
    channels are where every name has the same numbers, and there is more than one name.
    """
    numbered: dict[str, dict[str, str]] = {}
    for stem, path in images.items():
        if m := re.fullmatch(r"(.+)_(\d{4})", stem_of(path.name)):
            numbered.setdefault(m[1], {})[m[2]] = stem
    scans = [numbers for numbers in numbered.values() if "0000" in numbers]
    further = {stem for numbers in scans for n, stem in numbers.items() if n != "0000"}
    if not further or len(scans) < 2:
        return images, []
    labeled = labels.keys() & {numbers["0000"] for numbers in scans}
    is_alike = len({frozenset(numbers) for numbers in scans}) == 1
    if further & labels.keys() or not (len(labeled) > 1 or is_alike):
        return images, ["Images numbered _0000, _0001, ... are taken for a case each."]
    note = f"{len(further)} images are further channels (_0001, ...) and were left out."
    return {stem: path for stem, path in images.items() if stem not in further}, [note]


def in_order(found: list[Found], order: Path, images: Path) -> tuple[list[Found], list[str]]:
    """Those that a list names, in its order, and what the user should be told.

    Raises:
        InputError: a name without an image, or named twice; no such list.
    """
    by_stem = {matching_stem(f.image.name): f for f in found}
    names = read_list(order)
    wanted = [_named(name, by_stem, f"named in '{order}'", images) for name in names]
    if len({id(f) for f in wanted}) < len(wanted):
        raise InputError(f"The list '{order}' names a case twice; name each once.")
    left_out = len(found) - len(wanted)
    notes = []
    if left_out:
        notes.append(
            f"{left_out} images in '{images}' are not named in '{order.name}' and were left out."
        )
    return wanted, notes


def _named(name: str, by_stem: dict[str, Found], where: str, images: Path | None) -> Found:
    item = by_stem.get(matching_stem(name))
    if item is None:
        place = f"in '{images}'" if images else "among the imported cases"
        raise InputError(f"There is no image {place} for the case '{name}' {where}; mend the name.")
    return item


def choose(
    found: list[Found],
    labeled: int | Sequence[str] | None,
    evaluate: int | Sequence[str] | None,
    labels: Path | None,
) -> None:
    """Set ``use`` of each case; the arguments are those of ``import_cases``.

    Raises:
        InputError: more cases than there are, an unknown name, or one without a label.
    """
    by_stem = {matching_stem(f.image.name): f for f in found}
    if isinstance(evaluate, int):
        if not 0 <= evaluate <= len(found):
            raise InputError(
                f"--evaluate {evaluate} asks for more cases than the {len(found)} new ones there "
                "are; lower it."
            )
        held_out = found[len(found) - evaluate :]
    else:
        held_out = [_named(name, by_stem, "of --evaluate", None) for name in evaluate or ()]
    for item in held_out:
        item.use = "evaluation"

    training = [f for f in found if f.use != "evaluation"]
    if labeled is None:
        chosen = [f for f in training if f.label is not None]
    elif isinstance(labeled, int):
        if not 0 <= labeled <= len(training):
            raise InputError(
                f"--labeled {labeled} asks for more cases than the {len(training)} new ones that "
                "are left for training; lower it."
            )
        chosen = training[:labeled]
    else:
        chosen = [_named(name, by_stem, "of --labeled", None) for name in labeled]
    for item in chosen:
        if item.use == "evaluation":
            raise InputError(
                f"The case '{item.image.name}' is both in --labeled and in --evaluate; take it out "
                "of one of them."
            )
        item.use = "labeled"
    for item in found:
        if item.use != "unlabeled" and item.label is None:
            place = f"in '{labels}'" if labels else "(no --labels folder was given)"
            option = "--labeled" if item.use == "labeled" else "--evaluate"
            raise InputError(
                f"There is no label {place} for '{item.image.name}', which {option} names; add the "
                "label or leave the case out."
            )


def read_list(path: Path) -> list[str]:
    """The names in a text file, one a line; empty lines and lines that start with # are skipped.

    Raises:
        InputError: it cannot be read, or holds no name.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The list '{path}' cannot be read; give a text file with one case name a line."
        ) from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"The list '{path}' is empty; write one case name a line.")
    return names
