"""``samsemiseg demo``: the main job end to end on real scans, in minutes."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import typer

from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.errors import InputError

log = logging.getLogger(__name__)

NAME = "Hippocampus demo"
LABELED, UNLABELED, EVALUATION = 4, 24, 12


def demo(
    folder: Path = typer.Option(Path("demo"), help="Where the project is made, anew each time."),
    preset: str = typer.Option("demo", help="Preset of the run."),
    assignments: list[str] = typer.Option([], "--set", help="One setting, as key=value."),
    as_json: bool = typer.Option(False, "--json", help="Print the scores as JSON."),
) -> None:
    """Train on four labeled hippocampus scans and 24 unlabeled ones; score on 12 others.

    Scans come from SAMSEMISEG_DATA or ../shared/data where they are there, else from the public
    archive (27 MB); without internet, phantoms are generated.
    """
    from SAMSemiSegLib.command.train import train
    from SAMSemiSegLib.project.importing import import_cases
    from SAMSemiSegLib.project.label_set import Label, LabelSet
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.run.presets import load_settings

    project_folder = folder / "project"
    assignments = ["supervised_baseline=true", *assignments]
    load_settings(preset, assignments)  # a misspelled one must not cost the last demo
    if project_folder.exists():
        is_demo = (project_folder / "project.json").exists()
        if not is_demo or Project.load(project_folder).name != NAME:
            raise InputError(f"'{project_folder}' is not a demo's project; name another --folder.")
        shutil.rmtree(project_folder)
    images, labels, order, about = _scans(folder)
    typer.echo(about, err=as_json)
    names = order.read_text(encoding="utf-8").split()
    label_set = LabelSet(
        labels=[
            Label(value=1, name="Anterior", color=(111, 184, 210)),
            Label(value=2, name="Posterior", color=(216, 101, 79)),
        ]
    )
    project = Project.create(project_folder, label_set, NAME)
    chosen = names[: LABELED + UNLABELED] + names[-EVALUATION:]
    chosen_order = folder / "order.txt"
    write_text(chosen_order, "\n".join(chosen) + "\n")
    import_cases(
        project,
        images,
        labels,
        labeled=LABELED,
        order=chosen_order,
        evaluate=EVALUATION,
        copy=False,
        keep_references=False,
    )
    train(
        project_folder,
        preset,
        assignments,
        run="demo",
        device="auto",
        seed=None,
        resume=False,
        stop_with_parent=False,
        as_json=as_json,
    )
    picture = project_folder / "runs" / "demo" / "pseudolabels" / f"{names[LABELED]}.png"
    typer.echo(f"Picture: {picture}", err=as_json)


def find_data(name: str) -> Path | None:
    """A set of scans, ``hippocampus`` or ``la``, in SAMSEMISEG_DATA or beside the repository."""
    repository = Path(__file__).resolve().parents[2]
    places = [os.environ.get("SAMSEMISEG_DATA"), repository.parent / "shared" / "data"]
    for place in places:
        if place and (Path(place) / name / "train.list").exists():
            return Path(place) / name
    return None


def _scans(folder: Path) -> tuple[Path, Path, Path, str]:
    """Folders of images and labels, a file with the order of the cases, and a sentence on them."""
    found = find_data("hippocampus")
    if found is not None:
        about = f"Hippocampus scans of {found} (Medical Segmentation Decathlon, CC BY-SA 4.0)."
        return found / "images", found / "labels", found / "train.list", about
    order = folder / "all_cases.txt"
    folder.mkdir(parents=True, exist_ok=True)
    archive = _download(folder)
    if archive is not None:
        names = sorted(path.name.split(".")[0] for path in (archive / "imagesTr").glob("[!.]*.gz"))
        write_text(order, "\n".join(names) + "\n")
        about = "Hippocampus scans of the Medical Segmentation Decathlon (CC BY-SA 4.0)."
        return archive / "imagesTr", archive / "labelsTr", order, about
    from SAMSemiSegLib.project.phantoms import write_phantoms

    count = LABELED + UNLABELED + EVALUATION
    images, labels = write_phantoms(folder / "phantoms", count, seed=0)
    names = sorted(path.name.split(".")[0] for path in images.iterdir())
    write_text(order, "\n".join(names) + "\n")
    about = "No real scans here and none could be downloaded: generated phantoms are used."
    return images, labels, order, about


def _download(folder: Path) -> Path | None:
    """The public archive, or None where it cannot be had."""
    from monai.apps import DecathlonDataset, download_and_extract

    name = "Task04_Hippocampus"
    target = folder / name
    if not (target / "imagesTr").exists():
        try:
            download_and_extract(
                DecathlonDataset.resource[name],
                folder / f"{name}.tar",
                folder,
                hash_val=DecathlonDataset.md5[name],
                progress=False,
            )
        except Exception as error:  # MONAI raises plain ones too
            log.info("The hippocampus archive could not be downloaded: %s", error)
            return None
    return target
