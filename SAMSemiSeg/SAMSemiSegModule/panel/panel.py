"""The panel as a whole: sections, message line, first use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.install.installer import restartNeeded, versionsInUse
from SAMSemiSegModule.panel.labels_section import LabelsSection
from SAMSemiSegModule.panel.model_section import ModelSection
from SAMSemiSegModule.panel.project_section import ProjectSection
from SAMSemiSegModule.panel.review_section import ReviewSection
from SAMSemiSegModule.panel.services import Services
from SAMSemiSegModule.panel.train_section import TrainSection

# Errors whose message is a sentence for the user; all others are the program's own.
SENTENCES = (ValueError, OSError, RuntimeError)


class Panel:
    """Owns the five sections and shows them their parameter node."""

    def __init__(self, services: Services, layout: Any) -> None:
        self.services = services
        services.changed = self.refresh
        services.errorsShown = self.errorsShown
        services.tell = self.tell
        self.widget = slicer.util.loadUI(str(services.resource("UI/SAMSemiSeg.ui")))
        layout.addWidget(self.widget)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        ui = self.ui
        self.project = ProjectSection(services, ui.projectButton)
        self.labels = LabelsSection(services, ui.labelsButton)
        self.train = TrainSection(services, ui.trainingButton)
        self.review = ReviewSection(services, ui.reviewButton)
        self.model = ModelSection(services, ui.modelButton)
        self.sections = [self.project, self.labels, self.train, self.review, self.model]
        self.review.editCase = self.labels.editCase
        self.review.trainAgain = self.train.train
        self.project.reconnect = self.train.reconnect
        ui.closeMessageButton.clicked.connect(self.clearMessage)
        ui.installButton.clicked.connect(self._install)
        ui.installWheelsButton.clicked.connect(self._installFromFolder)
        ui.restartButton.clicked.connect(self._restart)
        ui.restartButton.visible = False
        self._guiTags: list[tuple[Any, int]] = []
        self._refreshing = False
        self.clearMessage()

    def setParameters(self, parameters: Any) -> None:
        """Show this parameter node; None: let go of the one there was."""
        for wrapper, tag in self._guiTags:
            wrapper.disconnectGui(tag)
        self._guiTags = []
        self.services.parameters = parameters
        if parameters is None:
            self.labels.leaveEditor()
            self.train.curves.forget()
            self.model.leaveScene()
            return
        for section in self.sections:
            self._guiTags.append((parameters, parameters.connectGui(section.ui)))
        self._openSavedProject(parameters)
        self.refresh()

    def refresh(self) -> None:
        """Show the present state everywhere."""
        if self._refreshing:
            return
        self._refreshing = True
        try:
            isInstalled, reason = self.services.installer.isValid()
            self.ui.installFrame.visible = not isInstalled
            self.ui.installLabel.text = reason
            for section in self.sections:
                section.button.enabled = isInstalled
                if isInstalled:
                    section.refresh()
        finally:
            self._refreshing = False

    def enter(self) -> None:
        """The module comes on screen; another program may have changed the project meanwhile."""
        self.review.setShortcutsEnabled(True)
        self.labels.enter()
        with self.errorsShown(clear=False):
            self.services.store.refresh()
            self.train.enter()
            self.train.reconnect()
        self.refresh()

    def exit(self) -> None:
        """The module leaves the screen; a training goes on and is still followed."""
        self.review.setShortcutsEnabled(False)
        self.labels.exit()

    def cleanup(self) -> None:
        """The panel is taken down (module reload, end of Slicer)."""
        self.setParameters(None)
        for section in self.sections:
            section.cleanup()

    def endWithSlicer(self) -> None:
        """Slicer closes."""
        self.train.endWithSlicer()
        self.model.endWithSlicer()

    @contextmanager
    def errorsShown(self, clear: bool = True) -> Iterator[None]:
        """Show in the message line what goes wrong; the log has the details.

        Args:
            clear: take away the message before, as a click does; what comes by itself leaves it
                until it is read.
        """
        if clear:
            self.clearMessage()
        try:
            yield
        except Exception as error:
            logging.exception("SAMSemiSeg")
            if isinstance(error, SENTENCES) or hasattr(error, "exit_code"):
                self.tell(str(error))
            else:
                self.tell(
                    _(
                        "Something unexpected went wrong: {error}. The Python console tells more."
                    ).format(error=error)
                )

    def tell(self, text: str) -> None:
        """Show a sentence at the top of the panel."""
        self.ui.messageLabel.text = text
        self.ui.messageFrame.visible = True

    def clearMessage(self) -> None:
        """Hide the message line."""
        self.ui.messageLabel.text = ""
        self.ui.messageFrame.visible = False

    def _openSavedProject(self, parameters: Any) -> None:
        """The scene remembers its project; it may be gone, or the packages may be missing."""
        folder, store = parameters.projectFolder, self.services.store
        if not folder and store.folder is not None:  # a scene closed under an open project
            parameters.projectFolder = str(store.folder)
            return
        if not folder or str(store.folder) == folder or not self.services.installer.isValid()[0]:
            return
        store.close()  # the project of another scene must not pass for this one's
        if not (Path(folder) / "project.json").is_file():
            self.tell(
                _("The scene's project '{folder}' is not there; open it where it is now.").format(
                    folder=folder
                )
            )
            return
        with self.errorsShown():
            store.open(Path(folder))
            self.train.reconnect()

    def _install(self) -> None:
        self._installFrom(None)

    def _installFromFolder(self) -> None:
        folder = self.services.dialogs.pickFolder(_("Folder of wheels"))
        if folder is not None:
            self._installFrom(folder)

    def _installFrom(self, wheels: Path | None) -> None:
        installer = self.services.installer
        with self.errorsShown():
            before = versionsInUse(installer.missing())
            installer.install(wheels)
            self.ui.restartButton.visible = restartNeeded(before)
            self.train.enter()
        self.refresh()

    def _restart(self) -> None:
        slicer.app.restart()
