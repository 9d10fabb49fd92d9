"""The project folder as the panel sees it; the folder on disk is the truth.

A training process writes to the project too (it offers pseudo-labels), so the file is read again
whenever it has changed, and before every change of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

FILE = "project.json"
STATES = ("unlabeled", "labeled", "pseudo", "corrected", "accepted", "rejected")


class ProjectStore:
    """At most one open project."""

    def __init__(self) -> None:
        self._project: Any = None
        self._stamp: tuple[int, int] | None = None

    def isValid(self) -> tuple[bool, str]:
        """Whether a project is open."""
        if self._project is None:
            return False, _("Create or open a project first.")
        return True, ""

    @property
    def project(self) -> Any:
        """The library's ``Project``, None where none is open."""
        return self._project

    @property
    def folder(self) -> Path | None:
        return None if self._project is None else self._project.folder

    @property
    def labels(self) -> list[Any]:
        """The label set's labels, in their order."""
        return [] if self._project is None else list(self._project.label_set.labels)

    @property
    def cases(self) -> list[Any]:
        return [] if self._project is None else list(self._project.cases)

    def create(self, folder: Path) -> None:
        """Start a project in a folder."""
        from SAMSemiSegLib.project.project import Project

        self._set(Project.create(folder))

    def open(self, folder: Path) -> None:
        """Open the project of a folder."""
        from SAMSemiSegLib.errors import InputError
        from SAMSemiSegLib.project.project import Project

        if not (folder / FILE).is_file():
            raise InputError(
                _(
                    "There is no project in '{folder}'; choose its folder by 'Open...', or start "
                    "one by 'New...'."
                ).format(folder=folder)
            )
        self._set(Project.load(folder))

    def close(self) -> None:
        self._project, self._stamp = None, None

    def refresh(self) -> bool:
        """Read the project again if its file has changed; whether it had."""
        if self._project is None or self._currentStamp() == self._stamp:
            return False
        self.open(self._project.folder)
        return True

    def case(self, caseId: str) -> Any:
        """The case of that id, None where there is none."""
        return next((case for case in self.cases if case.id == caseId), None)

    def imagePath(self, case: Any) -> Path:
        return Path(self._project.path(case.image))

    def labelPath(self, case: Any) -> Path | None:
        """The label file of a case; of one that only scores, the label that it scores by."""
        label = case.reference if case.role == "evaluation" else case.label
        return None if label is None else Path(self._project.path(label))

    def hasLostLabel(self, case: Any) -> bool:
        """Whether the file of a case's label is gone, as where its run's folder was deleted."""
        path = self.labelPath(case)
        return path is not None and not path.exists()

    def uncertaintyPath(self, case: Any) -> Path | None:
        """The uncertainty that was written beside the pseudo-label, where there is one."""
        label = self.labelPath(case)
        if label is None or case.origin != "pseudo":
            return None
        path = label.parent / f"{case.id}_uncertainty.nrrd"
        return path if path.is_file() else None

    def newCaseId(self, name: str) -> str:
        """A case id made from a name, unlike those there are."""
        from SAMSemiSegLib.project.case import case_id

        return case_id(name, {case.id for case in self.cases})

    def newFile(self, folder: str, name: str, suffix: str) -> Path:
        """A path in a folder of the project at which no file lies."""
        base = Path(self._project.folder) / folder
        path, number = base / f"{name}{suffix}", 2
        while path.exists():
            path, number = base / f"{name}-{number}{suffix}", number + 1
        return path

    def addFile(self, image: Path, label: Path | None = None, name: str | None = None) -> Any:
        """Add one image file; the whole file is checked."""
        from SAMSemiSegLib.project.importing import add_case

        self.refresh()
        case = add_case(self._project, image, label, name)
        self._stamp = self._currentStamp()
        return case

    def addFolder(
        self, images: Path, labels: Path | None, progress: Callable[[int, int, str], None]
    ) -> Any:
        """Add a folder of images, with a folder of labels; the library's summary of it.

        ``progress`` is told the cases done, how many there are, and the name of the last; what it
        raises ends the work, and nothing is added.
        """
        from SAMSemiSegLib.project.importing import import_cases

        self.refresh()
        project = self._project
        summary = import_cases(project, images, labels, progress=progress)
        self._set(project)  # a training may have ended meanwhile, so that it was read again
        return summary

    def remove(self, caseIds: Sequence[str]) -> None:
        """Take cases out of the project; their files stay."""
        from SAMSemiSegLib.project.review import forget

        self.refresh()
        project, gone = self._project, set(caseIds)
        with self._saved():
            project.cases[:] = [case for case in project.cases if case.id not in gone]
            # Undoing one of their decisions would bring them back over another case of their name.
            forget(project, gone)

    def keepForScoring(self, caseIds: Sequence[str]) -> None:
        """Labeled cases no longer train: they only score what the others have taught. Cases that
        only score go back to training, unlabeled where they have no label to score by."""
        from SAMSemiSegLib.errors import InputError
        from SAMSemiSegLib.project.review import forget

        self.refresh()
        with self._saved():
            for caseId in caseIds:
                case = self._project.case(caseId)
                if case.role == "evaluation":
                    update = {"role": "training", "label": case.reference, "reference": None}
                    if case.reference is not None:
                        update |= {"origin": "expert", "status": "labeled"}
                elif case.origin in ("expert", "corrected"):
                    update = {"role": "evaluation", "reference": case.label, "label": None}
                    update |= {"origin": "none", "status": "unlabeled"}
                else:
                    raise InputError(
                        _(
                            "'{case}' has no label of yours; only such cases can score a model."
                        ).format(case=caseId)
                    )
                self._project.replace(type(case).model_validate({**case.model_dump(), **update}))
            forget(self._project, caseIds)

    def setLabels(self, labels: Sequence[dict[str, Any]]) -> None:
        """Set the label set: name, value, color and terminology of each."""
        from SAMSemiSegLib.errors import InputError
        from SAMSemiSegLib.project.label_set import LabelSet

        self.refresh()
        try:
            labelSet = LabelSet.model_validate({"labels": list(labels)})
        except ValueError as error:
            raise InputError(
                _("Two labels have the same name or value, or a name is empty; change one.")
            ) from error
        with self._saved():
            self._project.label_set = labelSet

    def caseWithValue(self, value: int) -> str:
        """The id of a case whose label file holds a value, "" where there is none."""
        from SAMSemiSegLib.errors import InputError
        from SAMSemiSegLib.volumes.reading import label_values

        for case in self.cases:
            path = self.labelPath(case)
            with suppress(InputError):  # a file that cannot be read holds nothing any more
                if path is not None and value in label_values(path):
                    return str(case.id)
        return ""

    def setExpertLabel(self, caseId: str, label: Path) -> None:
        """Make a label file that a person drew the label of a case; of a case that only scores,
        the label that it scores by."""
        from SAMSemiSegLib.project.review import correct, forget

        self.refresh()
        case, stored = self._project.case(caseId), self._project.stored(label)
        if case.origin == "pseudo":
            correct(self._project, caseId, label)
        elif case.role == "evaluation":
            with self._saved():
                self._project.replace(case.model_copy(update={"reference": stored}))
        else:
            update = {"label": stored, "origin": "expert", "status": "labeled", "confidence": None}
            with self._saved():
                self._project.replace(case.model_copy(update=update))
                # Undoing an earlier rejection would put the pseudo-label in the drawing's place.
                forget(self._project, [caseId])
        self._stamp = self._currentStamp()

    def accept(self, caseId: str) -> None:
        self._decide("accept", caseId)

    def reject(self, caseId: str) -> None:
        self._decide("reject", caseId)

    def undo(self) -> Any:
        """Take the latest decision back; the case as it is again."""
        from SAMSemiSegLib.project.review import undo

        self.refresh()
        case = undo(self._project)
        self._stamp = self._currentStamp()
        return case

    @property
    def decisions(self) -> int:
        """How many decisions can be undone."""
        return 0 if self._project is None else len(self._project.history)

    def counts(self) -> tuple[int, int, int]:
        """Cases that train with a label, without one, and that are only scored."""
        if self._project is None:
            return 0, 0, 0
        project = self._project
        return len(project.labeled), len(project.unlabeled), len(project.evaluation)

    def runs(self) -> list[Path]:
        """Folders of the runs, the latest first."""
        if self._project is None:
            return []
        configs = Path(self._project.folder).glob("runs/*/config.json")
        return [p.parent for p in sorted(configs, key=lambda p: p.stat().st_mtime, reverse=True)]

    def newRunName(self) -> str:
        """The next name that no run has."""
        from SAMSemiSegLib.run.folder import new_run_name

        return new_run_name(Path(self._project.folder))

    def runFolder(self, name: str) -> Path:
        return Path(self._project.folder) / "runs" / name

    def _decide(self, action: str, caseId: str) -> None:
        from SAMSemiSegLib.project import review

        self.refresh()
        getattr(review, action)(self._project, caseId)
        self._stamp = self._currentStamp()

    def _set(self, project: Any) -> None:
        self._project = project
        self._stamp = self._currentStamp()

    @contextmanager
    def _saved(self) -> Iterator[None]:
        """Save what the block changes; nothing is changed where that fails."""
        with self._project.saved():
            yield
        self._stamp = self._currentStamp()

    def _currentStamp(self) -> tuple[int, int] | None:
        try:
            status = (Path(self._project.folder) / FILE).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
