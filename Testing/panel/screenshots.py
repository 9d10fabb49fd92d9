"""Makes the pictures of the tutorial: each section in each state, beside Slicer's own views.

    python Testing/panel/screenshots.py SCANS [PICTURES]

SCANS is a folder with ``images``, ``labels`` and ``train.list`` (hippocampus); the pictures go to
``docs/pictures``. A real training runs for about five minutes; its project is made in
``hippocampus`` in the folder for temporary files, and removed afterwards.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SAMSemiSeg"), str(Path(__file__).parent)]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from host.application import openModule, startHost  # noqa: E402

slicer = startHost()
import qt  # noqa: E402
from host.views import FourUp  # noqa: E402
from PIL import Image  # noqa: E402
from SAMSemiSegModule.install.requirements import Requirement  # noqa: E402
from SAMSemiSegModule.process.command import ChildCommand  # noqa: E402
from SAMSemiSegModule.process.runner import ProcessRunner  # noqa: E402
from SAMSemiSegModule.story import CASES, Story  # noqa: E402

PANEL_WIDTH, HEIGHT = 430, 640
SETTINGS = (
    "retraining.warm_start.minutes=1.5 finetuning.budget.minutes=0.4 retraining.budget.minutes=1.5"
)
FAKE = ROOT / "Testing" / "module" / "fake_library"
SECTIONS = ("projectButton", "labelsButton", "trainingButton", "reviewButton", "modelButton")


class Camera:
    """Takes pictures of the panel beside the views."""

    def __init__(self, widget, pictures: Path) -> None:
        self._widget = widget
        self._panel = widget.panel
        self._pictures = pictures
        self._views = FourUp(HEIGHT // 2)
        pictures.mkdir(parents=True, exist_ok=True)

    def take(self, name: str, opened: str, withViews: bool = True) -> None:
        """A picture of one section, opened, with the others folded."""
        for section in SECTIONS:
            getattr(self._panel.ui, section).collapsed = section != opened
        parent = self._widget.parent
        # Another width in between, so that wrapped texts are laid out anew.
        for width in (PANEL_WIDTH + 20, PANEL_WIDTH, PANEL_WIDTH + 20, PANEL_WIDTH, PANEL_WIDTH):
            # As tall as its contents: Slicer has the panel in a scroll area.
            wanted = parent.layout().totalHeightForWidth(width)
            parent.resize(width, max(HEIGHT, wanted))
            slicer.app.processEvents()
        with tempfile.TemporaryDirectory() as folder:
            grab = Path(folder) / "panel.png"
            parent.grab().save(str(grab))
            panel = Image.open(grab).convert("RGB")
            picture = panel
            if withViews:
                views = self._four(Path(folder) / "views.png")
                height = max(panel.height, HEIGHT)
                views = views.resize((height, height), Image.Resampling.LANCZOS)
                picture = Image.new("RGB", (panel.width + height + 4, height), "#efefef")
                picture.paste(panel, (0, 0))
                picture.paste(views, (panel.width + 4, 0))
        small = withPalette(picture, panel)
        small.save(self._pictures / f"{name}.png", optimize=True)
        print(name, f"{(self._pictures / f'{name}.png').stat().st_size // 1024} KB", flush=True)

    def _four(self, path: Path) -> Image.Image:
        parameters = self._panel.services.parameters
        volume, segmentation = parameters.caseVolume, parameters.caseSegmentation
        if volume is None:
            volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        if segmentation is None:  # the result of applying the model
            nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            segmentation = next((n for n in nodes if n.GetDisplayNode().GetVisibility()), None)
        if volume is not None:
            self._views.show(volume, segmentation, 0.55)
        self._views.save(str(path))
        return Image.open(path).convert("RGB")


def withPalette(picture: Image.Image, panel: Image.Image) -> Image.Image:
    """With 256 colors, which keeps the file small; 64 of them are the panel's own, so that thin
    curves and letters keep theirs."""
    palette = panel.quantize(64).getpalette()[: 3 * 64]
    palette += picture.quantize(192, kmeans=4).getpalette()[: 3 * 192]
    colors = Image.new("P", (1, 1))
    colors.putpalette(palette)
    return picture.quantize(palette=colors, dither=Image.Dither.NONE)


def firstUse(camera: Camera, panel) -> None:
    """Before anything is installed."""
    installer = panel.services.installer
    present = installer._findMissing
    installer._findMissing = lambda wanted: [Requirement("torch"), Requirement("monai")]
    panel.refresh()
    camera.take("install", "projectButton", withViews=False)
    installer._findMissing = present
    panel.refresh()


def main(scans: Path, pictures: Path) -> None:
    widget = openModule()
    panel = widget.panel
    panel.services.installer._findMissing = lambda wanted: []
    widget.parent.show()
    camera = Camera(widget, pictures)
    folder = Path(tempfile.gettempdir()) / "hippocampus"
    if folder.exists():
        sys.exit(f"'{folder}' exists; remove it first.")
    try:
        story = Story(panel, scans, folder)
        story.preset, story.settings = "quick", SETTINGS
        story.wait(lambda: len(panel.train._catalog.methods()) > 1, 60)
        firstUse(camera, panel)
        story.loadScans()
        story.createProject()
        names = (scans / "train.list").read_text(encoding="utf-8").split()
        panel.project._openCase(names[0])
        camera.take("project", "projectButton")
        _addForScoring(panel, scans, names[CASES : CASES + 2])
        panel.labels.editCase()
        camera.take("labels", "labelsButton")
        camera.take("train", "trainingButton")
        outOfMemory(camera, panel, story)
        story.train()
        story.wait(lambda: len(panel.train.progress.curves.get("loss", [])) > 12)
        story.wait(lambda: False, 1.5, mustHappen=False)
        camera.take("training", "trainingButton")
        story.click(panel.train.ui.cancelButton)
        story.wait(lambda: panel.train.outcome is not None)
        camera.take("cancelled", "trainingButton")
        story.click(panel.train.ui.continueButton)
        story.finishTraining(1800)
        story.click(panel.review.ui.nextButton)
        camera.take("review", "reviewButton")
        panel.labels.editCase()
        camera.take("correct", "labelsButton")
        story.click(panel.review.ui.correctButton)
        while panel.review.ui.acceptButton.enabled:
            story.click(panel.review.ui.acceptButton)
        camera.take("reviewed", "reviewButton", withViews=False)
        story.apply()
        camera.take("model", "modelButton")
        camera.take("cases", "projectButton")
    finally:
        panel.endWithSlicer()
        shutil.rmtree(folder, ignore_errors=True)


def outOfMemory(camera: Camera, panel, story: Story) -> None:
    """A run that ends for want of memory; nothing of it is kept."""
    trainer = panel.services.trainer
    environment = {**os.environ, "FAKE_BEHAVIOR": "out_of_memory"}
    panel.services.trainer = ProcessRunner(lambda: ChildCommand(sys.executable, FAKE, environment))
    story.train()
    story.wait(lambda: panel.train.outcome is not None)
    camera.take("out-of-memory", "trainingButton", withViews=False)
    panel.services.trainer = trainer
    shutil.rmtree(panel.services.store.runFolder("run-1"))


def _addForScoring(panel, scans: Path, names: list[str]) -> None:
    """Two labeled cases that only score."""
    store = panel.services.store
    for name in names:
        image, label = scans / "images" / f"{name}.nii.gz", scans / "labels" / f"{name}.nii.gz"
        store.addFile(image, label)
    panel.refresh()
    panel.project._table.select(names)
    panel.project.ui.scoreOnlyButton.click()
    panel.project._table.select([])
    assert store.counts()[2] == len(names), panel.ui.messageLabel.text


if __name__ == "__main__":
    qt.QSettings().clear()
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "pictures"
    main(Path(sys.argv[1]), target)
