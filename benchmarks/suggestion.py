"""Does it pay to label the suggested volumes? Dice against the number of labeled volumes.

    python benchmarks/suggestion.py run --dataset hippocampus --labels 1 --labels 4 --seeds 5
    python benchmarks/suggestion.py table
    python benchmarks/suggestion.py agreement --dataset la

A person is simulated who labels volumes in one of three orders: at random; the suggested first
ones; or in rounds, where the first suggestion is followed by suggestions made with the confidence
of the network trained so far. After every number of labels a small V-Net is trained anew, on the
labeled volumes alone, at low resolution and for a fixed number of steps: what is compared is the
choice, not the best Dice that can be had. Each network appends one JSON line.

The order never sees a label that was not asked for. Scores are on the source volumes' own grid.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from accuracy import DATASETS, read, show
from projects import is_whole
from scipy.stats import spearmanr

from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.command.app import main
from SAMSemiSegLib.command.demo import find_data
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.preprocessing.orientation import Orientation
from SAMSemiSegLib.preprocessing.plan import make_plan
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.resampling import resample
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.confidence import volume_score, voxel_confidence
from SAMSemiSegLib.retraining.crops import CropSampler
from SAMSemiSegLib.retraining.inference import predict_probabilities
from SAMSemiSegLib.retraining.patch import choose_patch
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import (
    AugmentationSettings,
    FoundationSettings,
    NetSettings,
    PreprocessingSettings,
    RetrainingSettings,
    Size3,
)
from SAMSemiSegLib.suggestion.choice import first_to_label, next_to_label
from SAMSemiSegLib.suggestion.descriptors import descriptors_of
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.randomness import generator, seed_torch
from SAMSemiSegLib.volumes.reading import read_image, read_image_geometry, read_labels
from SAMSemiSegLib.volumes.volume import Volume

Array = np.ndarray[Any, Any]

RESULTS = Path(__file__).parent / "results" / "suggestion.jsonl"
ORDERS = ("random", "first", "rounds")
BOX = (32, 32, 16)
SCALE = {"hippocampus": 0.5, "la": 0.25}

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class Scan:
    """A preprocessed case in memory; see ``TrainingCase`` of the crops.

    Attributes:
        image: (X, Y, Z).
        labels: (X, Y, Z).
        source: the label (channel indices) on the source volume's grid.
    """

    image: Array
    labels: Array
    source: Volume
    pseudo_label: None = None
    selected: bool = True


@app.command()
def run(
    dataset: str = typer.Option(..., help="la or hippocampus."),
    labels: list[int] = typer.Option([1, 2, 4, 8], help="Numbers of labeled volumes, rising."),
    orders: list[str] = typer.Option(list(ORDERS), help="Of random, first, rounds."),
    seeds: int = typer.Option(5, help="Random orders, and initializations of the networks."),
    steps: int = typer.Option(300, help="Of training, at each number of labels."),
    pool: int = typer.Option(64, help="Volumes that may be labeled: the first lines of the list."),
    results: Path = typer.Option(RESULTS, help="File the lines are appended to."),
    workspace: Path = typer.Option(Path("benchmarks/runs"), help="Project with the descriptors."),
) -> None:
    """Train after each number of labels, for each order and seed; lines that are there stay."""
    unknown = [order for order in orders if order not in ORDERS]
    if unknown:
        raise InputError(f"There is no order '{unknown[0]}'; choose of {', '.join(ORDERS)}.")
    if labels != sorted(set(labels)):
        raise InputError("The numbers of labels (--labels) must rise.")
    project = _project(dataset, pool, workspace)
    preprocessor, scans, evaluation = _read(project, SCALE[dataset])
    points = _points(project, project.unlabeled)
    results.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        # The first labels are the same in two of the orders, and so are their networks.
        nets: dict[tuple[int, ...], tuple[VNet, Size3, float]] = {}
        for order in orders:
            key = {"dataset": dataset, "order": order, "seed": seed, "steps": steps, "pool": pool}
            there = {(*(line[k] for k in key), line["labels"]) for line in read(results)}
            wanted = [n for n in labels if (*key.values(), n) not in there]
            if not wanted:
                continue
            chosen: list[int] = []
            confidence: list[float | None] = []
            for count in labels:
                chosen += _choose(order, points, confidence, count - len(chosen), chosen, seed)
                if tuple(chosen) not in nets:
                    nets[tuple(chosen)] = _train([scans[i] for i in chosen], project, steps, seed)
                net, patch, seconds = nets[tuple(chosen)]
                if count in wanted:
                    dice = _dice(net, patch, evaluation, preprocessor, project)
                    line = {
                        **key,
                        "labels": count,
                        "dice": statistics.fmean(dice),
                        "worst": min(dice),
                        "failures": sum(d < 0.3 for d in dice),
                        "chosen": [project.unlabeled[i].id for i in chosen],
                        "seconds": round(seconds, 1),
                    }
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(f"{dataset} {order} seed {seed}, {count} labels: {line['dice']:.3f}")
                if order == "rounds":
                    confidence = [_confidence(net, patch, scan) for scan in scans]


@app.command()
def table(results: Path = typer.Argument(RESULTS), markdown: bool = False) -> None:
    """Mean Dice of each order and number of labels, and its difference to the random order."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for line in read(results):
        groups.setdefault((line["dataset"], line["labels"], line["order"]), []).append(line)
    rows = []
    for (dataset, labels, order), lines in sorted(groups.items()):
        dice = [100 * line["dice"] for line in lines]
        random = groups.get((dataset, labels, "random"))
        gain = "–"
        if random and order != "random":
            gain = (
                f"{statistics.fmean(dice) - statistics.fmean(100 * r['dice'] for r in random):+.1f}"
            )
        spread = f" ± {statistics.stdev(dice):.1f}" if len(dice) > 1 else ""
        cells = (dataset, str(labels), order, f"{statistics.fmean(dice):.1f}{spread} ({len(dice)})")
        rows.append((*cells, f"{min(dice):.1f}", gain))
    show(("Set", "Labels", "Order", "Dice %", "Worst order", "Over random"), rows, markdown)


@app.command()
def agreement(
    dataset: str = typer.Option(..., help="la or hippocampus."),
    pool: int = typer.Option(64, help="As of run."),
    workspace: Path = typer.Option(Path("benchmarks/runs"), help="Project with the descriptors."),
) -> None:
    """Spearman's correlation of two volumes' distance with the Dice of their labels, each volume
    brought to the same box, over all pairs of evaluation cases: the descriptors' only test."""
    project = _project(dataset, pool, workspace)
    masks = []
    for case in project.evaluation:
        assert case.reference is not None
        grid = read_image_geometry(project.path(case.image))
        label, _ = read_labels(project.path(case.reference), project.label_set.values, grid)
        array = Orientation.of(grid).forward(label.array)
        channels = range(1, project.label_set.channels)
        masks.append([(resample(array == k, BOX) > 0.5).ravel() for k in channels])
    inside = np.array(masks, dtype=np.float32)  # (n, C, voxels)
    shared = np.einsum("icv,jcv->ijc", inside, inside)
    volume = inside.sum(2)
    dice = (2 * shared / (volume[:, None] + volume[None])).mean(2)
    pairs = np.triu_indices(len(inside), 1)
    points = _points(project, project.evaluation)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    print(f"{dataset}: {spearmanr(distance[pairs], dice[pairs]).statistic:.2f}")


def _project(name: str, pool: int, workspace: Path) -> Project:
    """The pool unlabeled, with references; the evaluation cases."""
    if name not in DATASETS:
        raise InputError(f"There is no set '{name}'; choose of {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    folder = workspace / f"suggestion-{dataset.name}-{pool}"
    if is_whole(folder):
        return Project.load(folder)
    data = find_data(dataset.name)
    if data is None:
        raise InputError(f"The scans of '{dataset.name}' are not here; set SAMSEMISEG_DATA.")
    names = (data / "train.list").read_text(encoding="utf-8").split()
    used = names[: min(pool, dataset.training)] + names[-dataset.evaluation :]
    order = folder.parent / f"{folder.name}.txt"
    write_text(order, "\n".join(used) + "\n")
    project = Project.create(folder, LabelSet.of(dataset.labels), folder.name)
    import_cases(
        project,
        data / "images",
        data / "labels",
        labeled=0,
        order=order,
        evaluate=dataset.evaluation,
        copy=False,
        keep_references=True,
    )
    return project


def _read(project: Project, scale: float) -> tuple[Preprocessor, list[Scan], list[Scan]]:
    """The pool and the evaluation cases, preprocessed by a plan made from the pool's images."""
    images = [read_image(project.path(case.image)) for case in project.unlabeled]
    preprocessor = Preprocessor(make_plan(images, PreprocessingSettings(scale=scale)))

    def scan(case: Case) -> Scan:
        volume = read_image(project.path(case.image))
        assert case.reference is not None
        label, _ = read_labels(
            project.path(case.reference), project.label_set.values, volume.geometry
        )
        return Scan(preprocessor.image(volume), preprocessor.labels(label), label)

    return (
        preprocessor,
        [scan(case) for case in project.unlabeled],
        [scan(case) for case in project.evaluation],
    )


def _points(project: Project, cases: Sequence[Case]) -> Array:
    """(n, d) descriptors."""
    settings = FoundationSettings(name="lite_medsam")
    found, _ = descriptors_of(project, cases, lambda: load_model(settings), settings.name)
    return np.stack([found[case.id] for case in cases]).astype(np.float64)


def _choose(
    order: str,
    points: Array,
    confidence: Sequence[float | None],
    count: int,
    labeled: Sequence[int],
    seed: int,
) -> list[int]:
    """The next so many volumes to label."""
    if order == "random":
        shuffled = generator(seed, "random-order", 0).permutation(len(points)).tolist()
        return shuffled[len(labeled) : len(labeled) + count]
    if order == "rounds" and labeled:
        return [p.index for p in next_to_label(points, confidence, count, labeled)]
    return [p.index for p in first_to_label(points, count, labeled)]


def _train(
    scans: Sequence[Scan], project: Project, steps: int, seed: int
) -> tuple[VNet, Size3, float]:
    """A V-Net of 8 filters on these volumes alone, its patch and the seconds it took; AdamW, poly
    schedule, batches of two crops."""
    began = time.monotonic()
    channels = project.label_set.channels
    shape = np.median([scan.image.shape for scan in scans], axis=0)
    patch = choose_patch(shape.tolist(), channels)
    settings = RetrainingSettings()
    sampler = CropSampler(scans, patch, settings, Augmentation(AugmentationSettings()))
    seed_torch(seed, "suggestion-init", 0)
    net = VNet(channels, NetSettings(width=8, dropout=0))
    net.train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (1 - s / steps) ** 0.9)
    for step in range(steps):
        batch = sampler.draw_labeled(generator(seed, "suggestion", step))
        image = batch.image.contiguous(memory_format=torch.channels_last_3d)
        loss = segmentation_loss(net(image), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    # At prediction each window is normalized by itself, as is the default of a run.
    return net.plain("instance").eval(), patch, time.monotonic() - began


def _dice(
    net: VNet,
    patch: Size3,
    scans: Sequence[Scan],
    preprocessor: Preprocessor,
    project: Project,
) -> list[float]:
    """Of each scan, the mean over the labels."""
    result = []
    for scan in scans:
        probabilities = predict_probabilities(net, torch.from_numpy(scan.image), patch)
        found = preprocessor.back(probabilities.numpy(), scan.source.geometry)
        truth = scan.source.array
        result.append(
            statistics.fmean(
                2 * np.sum((found == k) & (truth == k)) / np.sum((found == k) * 1 + (truth == k))
                for k in range(1, project.label_set.channels)
            )
        )
    return result


def _confidence(net: VNet, patch: Size3, scan: Scan) -> float:
    """As the project keeps it of a proposal."""
    probabilities = predict_probabilities(net, torch.from_numpy(scan.image), patch).numpy()
    return volume_score(probabilities.argmax(0), voxel_confidence(probabilities))


if __name__ == "__main__":
    main(app)
