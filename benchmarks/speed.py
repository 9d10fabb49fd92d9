"""Seconds and peak memory of each stage, each measured in a process of its own.

    python benchmarks/speed.py            # all rows
    python benchmarks/speed.py vnet sam   # some
    python benchmarks/speed.py --device cuda

Nothing needs downloading: where weights are not at hand, random ones do (speed is the same).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console
from rich.table import Table

Row = dict[str, float | str]
ROWS: dict[str, Callable[[str], list[Row]]] = {}


def row(function: Callable[[str], list[Row]]) -> Callable[[str], list[Row]]:
    """Register a measurement; its name is the function's."""
    ROWS[function.__name__] = function
    return function


def main(
    names: list[str] = typer.Argument(None, help="Rows; default: all."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    out: Path | None = typer.Option(None, help="Append the rows as JSON lines."),
    only: str = typer.Option("", hidden=True),
) -> None:
    """Measure and print one table."""
    if only:
        print(json.dumps(ROWS[only](device)))
        return
    table = Table("What", "Seconds", "Peak GB", "Remark")
    for name in names or list(ROWS):
        command = [sys.executable, __file__, "--device", device, "--only", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        rows = json.loads(lines[-1]) if done.returncode == 0 else [{"what": f"{name}: failed"}]
        for line in rows:
            cells = (line.get("seconds", ""), line.get("peak_gb", ""), line.get("remark", ""))
            table.add_row(str(line["what"]), *(str(cell) for cell in cells))
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line | {"device": device}) + "\n")
    Console().print(table)


def peak_gb(device: str) -> float:
    """Most memory this process has held, on the device or (cpu) in main memory."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def timed(function: Callable[[], object], device: str, times: int = 3) -> float:
    """Median seconds of a call, after one that is not counted."""
    import torch

    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds[1:]), 3)


def _train_step(net, x, y, dtype) -> None:
    """Forward and backward of one batch, as the training loop does it."""
    import torch

    from SAMSemiSegLib.training.losses import segmentation_loss

    with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        loss = segmentation_loss(net(x), y)
    loss.backward()
    net.zero_grad()


@row
def help_text(device: str) -> list[Row]:
    """``samsemiseg --help``."""
    command = [sys.executable, "-m", "SAMSemiSegLib", "--help"]
    seconds = timed(lambda: subprocess.run(command, capture_output=True, check=True), "cpu")
    return [{"what": "samsemiseg --help", "seconds": seconds, "remark": "limit 1"}]


@row
def vnet(device: str) -> list[Row]:
    """A step of the width-16 V-Net at 112x112x80, batch 2."""
    import torch

    from SAMSemiSegLib.retraining.vnet import VNet
    from SAMSemiSegLib.run.settings import NetSettings

    rows: list[Row] = []
    for width in (8, 16):
        net = VNet(2, NetSettings(width=width)).to(device)
        net = net.to(memory_format=torch.channels_last_3d)
        x = torch.randn(2, 1, 112, 112, 80, device=device)
        x = x.to(memory_format=torch.channels_last_3d)
        y = torch.zeros(2, 112, 112, 80, dtype=torch.uint8, device=device)
        for dtype in (None, torch.bfloat16):
            step = partial(_train_step, net, x, y, dtype)
            what = f"V-Net width {width}, 2 x 112x112x80, {'bf16' if dtype else 'fp32'}, step"
            rows.append({"what": what, "seconds": timed(step, device), "peak_gb": peak_gb(device)})
    return rows


def _sam_step(name: str, sides: tuple[int, int], device: str, checkpointing: bool) -> list[Row]:
    import torch

    from SAMSemiSegLib.finetuning.adapters.lora import add_lora
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.foundation.semantic import SemanticSAM

    rows: list[Row] = []
    for dtype in (torch.bfloat16, None) if device == "cuda" else (None, torch.bfloat16):
        model = FOUNDATION[name].build()
        add_lora(model)
        if checkpointing:
            model.enable_gradient_checkpointing()
        net = SemanticSAM(model, 2).to(device).train()
        canvas = torch.randn(1, 1, *sides, device=device)
        labels = torch.zeros(1, *sides, dtype=torch.uint8, device=device)

        step = partial(_train_step, net, canvas, labels, dtype)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        kind = "bf16" if dtype else "fp32"
        what = f"{name} {sides[0]}x{sides[1]}, LoRA, {kind}"
        what += ", gradient checkpointing" if checkpointing else ""
        seconds = timed(step, device, 10 if device == "cuda" else 1)
        rows.append({"what": what, "seconds": seconds, "peak_gb": peak_gb(device)})
    return rows


@row
def sam_checkpointing(device: str) -> list[Row]:
    """A LoRA step of ViT-B at 1024 with gradient checkpointing."""
    return _sam_step("sam_vit_b", (1024, 1024), device, True)


@row
def sam(device: str) -> list[Row]:
    """A LoRA step of ViT-B at 1024."""
    return _sam_step("sam_vit_b", (1024, 1024), device, False)


@row
def lite(device: str) -> list[Row]:
    """A LoRA step of lite_medsam on a canvas of one LA volume at half resolution."""
    return _sam_step("lite_medsam", (672, 512), device, False)


@row
def lite_checkpointing(device: str) -> list[Row]:
    """The same with gradient checkpointing."""
    return _sam_step("lite_medsam", (672, 512), device, True)


@row
def predict_la(device: str) -> list[Row]:
    """One volume of the LA set's usual size at full resolution."""
    return [_predict((192, 144, 88), (96, 80, 48), 16, 0.5, device)]


@row
def predict_ct(device: str) -> list[Row]:
    """A 512x512x600 CT volume at 1.5 mm inside."""
    return [_predict((512, 512, 600), (96, 96, 96), 16, 0.25, device, spacing=(0.75, 0.75, 1.0))]


def _predict(
    size: tuple[int, int, int],
    patch: tuple[int, int, int],
    width: int,
    overlap: float,
    device: str,
    spacing: tuple[float, float, float] = (0.625, 0.625, 0.625),
) -> Row:
    import numpy as np
    import torch

    from SAMSemiSegLib.preprocessing.plan import make_plan
    from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
    from SAMSemiSegLib.retraining.inference import predict_probabilities
    from SAMSemiSegLib.retraining.vnet import VNet
    from SAMSemiSegLib.run.settings import NetSettings, PreprocessingSettings
    from SAMSemiSegLib.volumes.volume import Geometry, Volume

    generator = np.random.default_rng(0)
    array = generator.integers(0, 255, size, dtype=np.int16)
    geometry = Geometry(size, spacing, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    volume = Volume(array, geometry)
    large = array.size > 1e8
    inside = (1.5, 1.5, 1.5) if large else None
    preprocessor = Preprocessor(make_plan([volume], PreprocessingSettings(spacing=inside)))
    net = VNet(2, NetSettings(width=width)).to(device).eval()
    net = net.to(memory_format=torch.channels_last_3d)

    def once() -> None:
        image = torch.from_numpy(preprocessor.image(volume))
        probabilities = predict_probabilities(net, image, patch, overlap, device)
        preprocessor.back(probabilities.numpy(), geometry)

    began = time.perf_counter()
    once()
    seconds = round(time.perf_counter() - began, 1)
    what = "predict {}x{}x{}, width {}, overlap {}".format(*size, width, overlap)
    return {"what": what, "seconds": seconds, "peak_gb": peak_gb(device)}


@row
def thousand_cases(device: str) -> list[Row]:
    """1,000 cases imported and listed."""
    import numpy as np

    from SAMSemiSegLib.project.importing import import_cases
    from SAMSemiSegLib.project.label_set import Label, LabelSet
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.volumes.volume import Geometry, Volume
    from SAMSemiSegLib.volumes.writing import write_image

    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        generator = np.random.default_rng(0)
        geometry = Geometry(
            (48, 48, 32), (1.0, 1.0, 1.0), (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
        )
        array = generator.integers(0, 255, geometry.size, dtype=np.uint8)
        for i in range(1000):
            write_image(images / f"case_{i:04}.nrrd", Volume(array, geometry))
        labels = LabelSet(labels=[Label(value=1, name="organ", color=(255, 0, 0))])
        began = time.perf_counter()
        project = Project.create(Path(name) / "project", labels)
        import_cases(project, images, None, None, None, None, copy=False, keep_references=False)
        command = [sys.executable, "-m", "SAMSemiSegLib", "project", "status"]
        subprocess.run([*command, str(Path(name) / "project")], capture_output=True, check=True)
        seconds = round(time.perf_counter() - began, 1)
    what = "1,000 cases imported and listed"
    return [{"what": what, "seconds": seconds, "peak_gb": peak_gb("cpu"), "remark": "limit 30"}]


@row
def ratio_to_published(device: str) -> list[Row]:
    """Our re-training step against one that runs SAM on the unlabeled crops, as the published
    code does: same V-Net, same crops."""
    import torch

    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.foundation.semantic import SemanticSAM
    from SAMSemiSegLib.retraining.vnet import VNet
    from SAMSemiSegLib.run.settings import NetSettings, StitchingSettings
    from SAMSemiSegLib.stitching.layout import plan_layout
    from SAMSemiSegLib.stitching.stitch import stitch, unstitch
    from SAMSemiSegLib.training.losses import segmentation_loss

    net = VNet(2, NetSettings(width=8)).to(device).to(memory_format=torch.channels_last_3d)
    sam = SemanticSAM(FOUNDATION["lite_medsam"].build(), 2).to(device).eval()
    crops = torch.randn(4, 1, 80, 64, 48, device=device)
    labels = torch.zeros(4, 80, 64, 48, dtype=torch.uint8, device=device)
    layout = plan_layout((80, 64, 48), StitchingSettings(), 32)

    def stored() -> None:
        segmentation_loss(net(crops), labels).backward()

    def online() -> None:
        with torch.no_grad():
            for crop in crops[2:, 0]:
                logits = sam(stitch(crop, layout, 0.0)[None, None])
                unstitch(logits[0], layout).argmax(0)
        stored()

    ours, theirs = timed(stored, device), timed(online, device)
    remark = f"the published way takes {theirs} s: {theirs / ours:.1f} times ours"
    return [{"what": "re-training step, stored pseudo-labels", "seconds": ours, "remark": remark}]


SEQUENCES = (8, 32, 128)
"""Slices, each an embedding of 256 x 32 x 32: 512 pixels a side with a stride of 16."""


def _sequences(name: str, predict, step, trained: tuple[int, ...], device: str) -> list[Row]:
    """Prediction of sequences of rising length, then training steps (whole sequences); the peak is
    that of the process so far, above what it held before."""
    import torch

    rows: list[Row] = []
    before = peak_gb("cpu")
    for kind, lengths in (("prediction", SEQUENCES), ("training step", trained)):
        for length in lengths:
            sequence = torch.randn(length, 256, 32, 32, device=device)
            began, busy = time.perf_counter(), time.process_time()
            if kind == "prediction":
                with torch.inference_mode():
                    predict(sequence)
            else:
                step(sequence)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = round(time.perf_counter() - began, 2)
            remark = f"{time.process_time() - busy:.2f} s of processor time"
            peak = peak_gb(device) if device == "cuda" else round(peak_gb(device) - before, 2)
            what = f"{name}, {length} slices, {kind}"
            rows.append({"what": what, "seconds": seconds, "peak_gb": peak, "remark": remark})
    return rows


@row
def propagation(device: str) -> list[Row]:
    """ECT's propagation along the slices, in the windows in which volumes are predicted."""
    from SAMSemiSegLib.finetuning.cross_teaching.propagation import Propagation

    module = Propagation().to(device)
    reach, window = module.reach, 8

    def predict(sequence) -> None:
        for start in range(0, len(sequence), window):
            low = max(start - reach, 0)
            module(sequence[low : start + window + reach])[start - low :][:window]

    def step(sequence) -> None:
        module(sequence).square().mean().backward()

    return _sequences("propagation", predict, step, (8, 32, 128), device)


@row
def memory_attention(device: str) -> list[Row]:
    """Memory attention as SAM 2 and MedSAM-2 have it, with random weights: 4 layers of attention
    within the slice and to the 7 slices before, whose memories have 64 channels."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, key_channels: int) -> None:
            super().__init__()
            self.q, self.out = nn.Linear(256, 256), nn.Linear(256, 256)
            self.k, self.v = nn.Linear(key_channels, 256), nn.Linear(key_channels, 256)

        def forward(self, x, keys):
            parts = self.q(x), self.k(keys), self.v(keys)
            q, k, v = (part.unsqueeze(1) for part in parts)
            found = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(found.squeeze(1))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.memory = Attention(256), Attention(64)
            self.mlp = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256))
            self.norms = nn.ModuleList(nn.LayerNorm(256) for _ in range(3))

        def forward(self, x, memory):
            inside = self.norms[0](x)
            x = x + self.own(inside, inside)
            x = x + self.memory(self.norms[1](x), memory)
            return x + self.mlp(self.norms[2](x))

    layers = nn.ModuleList(Layer() for _ in range(4)).to(device)
    encode = nn.Linear(256, 64).to(device)

    def run(sequence) -> list:
        memories: list = []
        answers = []
        for slice_ in sequence:
            x = slice_.flatten(1).T[None]
            if memories:
                memory = torch.cat(memories[-7:], 1)
                for layer in layers:
                    x = layer(x, memory)
            memories = [*memories[-6:], encode(x)]
            answers.append(x)
        return answers

    def step(sequence) -> None:
        torch.cat(run(sequence)).square().mean().backward()

    return _sequences("memory attention", run, step, (8,), device)


@row
def kept_embeddings(device: str) -> list[Row]:
    """A step of ECT on 8 + 8 slices of two LA volumes at half resolution: encoding them, and with
    the embeddings kept."""
    import torch

    from SAMSemiSegLib.finetuning.strategies.ect import ECTStrategy
    from SAMSemiSegLib.finetuning.strategy import Sample
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.run.settings import StitchingSettings
    from SAMSemiSegLib.training.progress import Progress

    torch.manual_seed(0)
    model = FOUNDATION["lite_medsam"].build()
    strategy = ECTStrategy(model, 2, StitchingSettings(), ECTStrategy.Options()).to(device).train()
    image = torch.randn(96, 72, 44, device=device)
    labels = torch.zeros(96, 72, 44, dtype=torch.uint8, device=device)

    def step() -> None:
        torch.manual_seed(1)
        labeled, unlabeled = Sample("a", image, labels, 0), Sample("b", image, None, 0)
        terms = strategy.step([labeled], [unlabeled], Progress(1, 2))
        torch.stack(list(terms.values())).sum().backward()

    began = time.perf_counter()
    step()
    first = round(time.perf_counter() - began, 2)
    kept = timed(step, device)
    remark = f"{first} s when the slices are new"
    peak = peak_gb(device)
    what = "ECT step, lite_medsam, embeddings kept"
    return [{"what": what, "seconds": kept, "peak_gb": peak, "remark": remark}]


if __name__ == "__main__":
    typer.run(main)
