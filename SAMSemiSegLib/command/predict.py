"""``samsemiseg predict``: segment scans with an exported model."""

from __future__ import annotations

import json
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SAMSemiSegLib.atomic import is_disk_full
from SAMSemiSegLib.errors import InputError, OutOfMemoryError

if TYPE_CHECKING:
    from SAMSemiSegLib.export.predictor import Predictor


class LabelFormat(str, Enum):
    """Formats of the label file."""

    seg_nrrd = "seg.nrrd"
    nii_gz = "nii.gz"


def predict(
    model: Annotated[
        Path, typer.Argument(help="A run's model folder, a .ts or .onnx file, or a bundle.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Scans: files or folders of DICOM slices.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: beside each scan.")
    ] = None,
    format: Annotated[LabelFormat, typer.Option(help="Of the label files.")] = (
        LabelFormat.seg_nrrd
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace segmentations that are there already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Segment scans with an exported model; each result lies on its scan's own grid.

    A scan that cannot be read, or is too large for this machine, is named, the others are done,
    and the exit code is 2.
    """
    outputs = [_output_of(image, output, format) for image in images]
    _check_names(images, outputs, overwrite)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from SAMSemiSegLib.export.predictor import Predictor
    from SAMSemiSegLib.training.memory import hold_to_free_memory

    predictor = Predictor.load(model, device)
    _check_writable(output, images)
    if predictor.on_cpu:
        hold_to_free_memory()
    results: list[dict[str, Any]] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, markup=False)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("Segmenting", total=len(images))
        for image, target in zip(images, outputs, strict=True):
            try:
                volumes = segment(predictor, image, target)
                results.append({"image": str(image), "output": str(target), "milliliters": volumes})
            except (InputError, OutOfMemoryError) as error:
                console.print(
                    str(error), style="red", highlight=False, markup=False, soft_wrap=True
                )
                results.append({"image": str(image), "output": None, "error": str(error)})
            bar.advance(task)
    _show(results, predictor.card.label_set.names, as_json)
    if any("error" in result for result in results):
        sys.stdout.flush()
        raise typer.Exit(InputError.exit_code)


def segment(predictor: Predictor, image: Path, target: Path) -> dict[str, float]:
    """Segment one scan and write the labels, whole or not at all.

    Returns:
        Milliliters of each label.

    Raises:
        InputError: the scan cannot be used.
        OutOfMemoryError: it is too large for this machine.
    """
    from SAMSemiSegLib.training.memory import memory_sentence
    from SAMSemiSegLib.volumes.reading import read_image
    from SAMSemiSegLib.volumes.writing import write_labels

    other = "predict it on a larger machine" if predictor.on_cpu else "use the device cpu"
    advice = f"'{image.name}' is too large; close other programs, or {other}."
    with memory_sentence(advice):
        volume = read_image(image)
        labels = predictor.predict(volume)
    label_set = predictor.card.label_set
    write_labels(
        target,
        labels,
        label_set.names,
        label_set.values,
        label_set.colors,
        label_set.terminologies,
        source=image,
        predicted=True,
    )
    x, y, z = volume.geometry.spacing
    return {
        name: round(int((labels.array == channel).sum()) * x * y * z / 1000, 3)
        for channel, name in enumerate(label_set.names, start=1)
    }


def _output_of(image: Path, folder: Path | None, format: LabelFormat) -> Path:
    """Name of the label file: ``scan.nii.gz`` becomes ``scan.seg.nrrd``, or
    ``scan_segmentation.nii.gz``, which is no scan's name."""
    from SAMSemiSegLib.volumes.formats import stem_of

    place = folder or image.absolute().parent
    # An unknown suffix stays part of the name; reading will tell what is wrong with the file.
    stem = image.absolute().name if image.is_dir() else stem_of(image)
    ending = ".seg.nrrd" if format is LabelFormat.seg_nrrd else "_segmentation.nii.gz"
    return place / (stem + ending)


def _check_names(images: list[Path], outputs: list[Path], overwrite: bool) -> None:
    """No result may take the place of a scan, of another result or, unless that is wanted, of a
    file that is there already: an expert's segmentation has the same name."""
    from SAMSemiSegLib.volumes.formats import check_name, suffix_of

    for path in (*images, *outputs):
        check_name(path)
    for image in images:
        if image.is_dir() and any(suffix_of(path) for path in image.iterdir()):
            raise InputError(
                f"'{image}' is a folder of images; name the files, in most shells '{image}/*'."
            )
    sources = {image.resolve() for image in images}
    for image, target in zip(images, outputs, strict=True):
        if target.resolve() in sources:
            raise InputError(
                f"The result of '{image}' would overwrite a scan ('{target}'); give another folder "
                "with --output."
            )
    seen: dict[Path, Path] = {}
    for image, target in zip(images, outputs, strict=True):
        if target in seen:
            raise InputError(
                f"'{seen[target]}' and '{image}' would both be written to '{target}'; run them "
                "apart, each with its own --output."
            )
        seen[target] = image
    there = [target for target in outputs if target.exists()]
    if there and not overwrite:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise InputError(
            f"'{there[0]}'{others} is there already; give another folder with --output, or replace "
            "it with --overwrite."
        )


def _check_writable(folder: Path | None, images: list[Path]) -> None:
    """Whether results can be written, tried by a file that is gone at once: told only after a
    prediction it would cost the time that one takes.

    Args:
        folder: of the results, made if need be; None: beside each scan.
    """
    beside = {image.absolute().parent for image in images if image.exists()}
    for place in [folder] if folder else sorted(beside):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if is_disk_full(error):
                raise
            raise InputError(
                f"Results cannot be written to '{place}' ({error.strerror}); give another folder "
                "with --output."
            ) from error


def _show(results: list[dict[str, Any]], names: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"results": results}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from SAMSemiSegLib.evaluation.scores import MOST_BESIDE

    done = [result for result in results if "error" not in result]
    if not done:
        return
    if len(names) > MOST_BESIDE:
        table = Table("Scan", "Label")
        table.add_column("ml", justify="right")
        for result in done:
            for name in names:
                volume = f"{result['milliliters'][name]:.2f}"
                table.add_row(Path(result["image"]).name, name, volume)
            table.add_section()
        console = Console(markup=False)
        console.print(table)
        for result in done:
            console.print(f"Written to {result['output']}", highlight=False, soft_wrap=True)
        return
    table = Table("Scan")
    for name in names:
        table.add_column(f"{name}, ml", justify="right")
    table.add_column("Written to", overflow="fold")  # a path that is cut off cannot be copied
    for result in done:
        volumes = (f"{result['milliliters'][name]:.2f}" for name in names)
        table.add_row(Path(result["image"]).name, *volumes, result["output"])
    Console(markup=False).print(table)
