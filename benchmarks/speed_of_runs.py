"""The V-Net, the foundation models, prediction, the command: what a run spends its time on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measuring import Row, peak_gb, row, timed


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
        for dtype in (torch.bfloat16, None):
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
    for dtype in (torch.bfloat16, None):  # the peak of a process never falls: the smaller first
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
    geometry = Geometry.upright(size, spacing)
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
        geometry = Geometry.upright((48, 48, 32))
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
