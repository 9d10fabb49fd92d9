"""The drawing on the case on screen: it becomes the project's label by a click, and is never thrown
away without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.services import Services
from SAMSemiSegModule.scene.candidates import ownDrawings
from SAMSemiSegModule.scene.case_view import (
    FILE,
    caseKey,
    isLoaded,
    isUnsaved,
    isUntouched,
    keysOf,
    markAsDrawing,
    markAsSaved,
)
from SAMSemiSegModule.scene.content import filledSegments
from SAMSemiSegModule.scene.segmentations import exportLabels, isDrawnOnGridOf
from SAMSemiSegModule.scene.views import showOnly
from SAMSemiSegModule.scene.volumes import removeNode


def saveDrawing(services: Services) -> bool:
    """Make what is drawn the label of the case on screen, and say so.

    Returns:
        Whether it was; the user may want to name a segment first that the label set does not know.

    Raises:
        ValueError: nothing is drawn, it is gone from the scene, or it is unclear where it lies on
            the project's image.
        InputError: the project's image cannot be read.
        OSError: the label cannot be written.
    """
    store, parameters = services.store, services.parameters
    caseId = parameters.caseId
    checkInScene(parameters, parameters.caseSegmentation)
    case = store.project.case(caseId)
    kind = "corrected" if case.origin == "pseudo" else "drawn"
    path = store.newFile("labels", f"{caseId}-{kind}", ".nrrd")
    segmentation = parameters.caseSegmentation
    account = exportLabels(segmentation, parameters.caseVolume, store.labels, path)
    isSaved = False
    try:
        _placeOnImage(path, store.imagePath(case), parameters)
        if _mayLeaveOut(services, segmentation, account.ignored):
            store.setExpertLabel(caseId, path)
            isSaved = True
    finally:
        if not isSaved:
            path.unlink(missing_ok=True)
    if isSaved:
        markAsSaved(segmentation, path)
        told = _("The label of '{case}' is saved in the project.").format(case=caseId)
        if account.overlapping:
            told += _(" {count} voxels lay in several segments; the later label was kept.").format(
                count=account.overlapping
            )
        services.tell(told)
    return isSaved


def takeOwnDrawing(services: Services) -> None:
    """Ask whether what the user drew on the scan of the case on screen by other means, for example
    in Slicer's own Segment Editor, is the drawing of the case, where it has none yet."""
    store, parameters = services.store, services.parameters
    case, begun = store.case(parameters.caseId), parameters.caseSegmentation
    hasLabel = store.labelPath(case) is not None and not store.hasLostLabel(case)
    if hasLabel or not (begun is None or isUntouched(begun)):
        return
    own = ownDrawings(parameters.caseVolume, {caseKey(store, other) for other in store.cases})
    if not own:
        return
    newest = own[-1]
    question = _(
        "'{segmentation}' is drawn on the scan of '{case}'. Take it as the case's drawing? It "
        "becomes the label once you save it. If you cancel, it stays as it is, and an empty "
        "drawing is begun."
    ).format(segmentation=newest.GetName(), case=case.id)
    if len(own) > 1:
        question += " " + _(
            "It is the newest of {names}; to take another, hide it in the module 'Data' first."
        ).format(names=", ".join(node.GetName() for node in own))
    if services.dialogs.confirm(question):
        removeNode(begun)
        markAsDrawing(newest, caseKey(store, case), store.labelPath(case))
        parameters.caseSegmentation = newest
        showOnly(newest, [])


def mayLeave(services: Services, caseId: str = "") -> bool:
    """Ask what becomes of an unsaved drawing that the next case, "" for none, would push out.

    Returns:
        Whether to go on: it was saved, or may go.
    """
    parameters = services.parameters
    segmentation = parameters.caseSegmentation if parameters is not None else None
    if segmentation is None or not isLoaded(segmentation):
        return True  # a node of the user's own stays in the scene
    if services.store.project is None:
        return True  # nowhere to save it; opening a project keeps it
    case = services.store.case(caseId) if caseId == parameters.caseId else None
    staysOnScreen = case is not None and segmentation.GetAttribute(FILE) in (
        None,
        str(services.store.labelPath(case)),
    )
    question = _(
        "The drawing of '{case}' is not saved. 'Save' makes it the project's label, 'Discard' "
        "throws it away."
    )
    return staysOnScreen or _askToSave(services, question)


def mayTrain(services: Services) -> bool:
    """Ask whether an unsaved drawing becomes a label before a training, which would not see it.

    Returns:
        Whether to go on: it was saved, or is not meant to take part.
    """
    question = _(
        "The drawing of '{case}' is not saved. 'Save' makes it the project's label first, "
        "'Discard' trains without it; it stays on screen."
    )
    return _askToSave(services, question) and _mayTrainWithoutOthers(services)


def _mayTrainWithoutOthers(services: Services) -> bool:
    """The user's own segmentations of cases that are not on screen, which may be drawn on too."""
    store, shown = services.store, services.parameters.caseSegmentation
    keys = {
        key
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if node is not shown and isUnsaved(node)
        for key in keysOf(node)
    }
    unsaved = [case.id for case in store.cases if caseKey(store, case) in keys]
    return not unsaved or services.dialogs.confirm(
        _(
            "The drawings of these cases are not saved: {cases}. Train without them? To save one, "
            "cancel, double-click its case in 'Project' and save it in 'Labels'."
        ).format(cases=", ".join(unsaved))
    )


def checkInScene(parameters: Any, *nodes: Any) -> None:
    """Refuse to work on nodes of the case on screen that were deleted.

    Raises:
        ValueError: the volume, or one of the nodes, is not there.
    """
    if parameters.caseVolume is None or None in nodes:
        raise ValueError(
            _("Case '{case}' is not in the scene any more; double-click it in 'Project'.").format(
                case=parameters.caseId
            )
        )


def _askToSave(services: Services, question: str) -> bool:
    parameters = services.parameters
    if parameters is None or not isUnsaved(parameters.caseSegmentation):
        return True
    answer = services.dialogs.saveDrawing(question.format(case=parameters.caseId))
    return saveDrawing(services) if answer else answer is False


def _placeOnImage(label: Path, image: Path, parameters: Any) -> None:
    """Put a label that was just written where the project's image lies.

    The scan may have been moved in the scene since it was added. What was drawn on its own voxels
    belongs to the same voxels of the image; of all else nobody knows whether it was drawn before
    or after.
    """
    import numpy as np
    import SimpleITK as sitk

    from SAMSemiSegLib.volumes.grids import same_grid
    from SAMSemiSegLib.volumes.reading import read_image_geometry
    from SAMSemiSegLib.volumes.volume import Volume
    from SAMSemiSegLib.volumes.writing import write_image

    written, wanted = read_image_geometry(label), read_image_geometry(image)
    if same_grid(written, wanted):
        return
    isMoved = written.size == wanted.size and np.allclose(
        written.spacing, wanted.spacing, rtol=1e-3
    )
    if not isMoved or not isDrawnOnGridOf(parameters.caseSegmentation, parameters.caseVolume):
        raise ValueError(
            _(
                "The scan of '{case}' was moved since it was added, and it is unclear where the "
                "drawing belongs: delete the scan from the scene, double-click the case to have it "
                "back where it was, and save once the drawing fits it."
            ).format(case=parameters.caseId)
        )
    voxels = Volume.from_sitk(sitk.ReadImage(str(label))).array
    write_image(label, Volume(voxels, wanted))


def _mayLeaveOut(services: Services, segmentation: Any, ignored: list[str]) -> bool:
    filled = filledSegments(segmentation)
    names = [name for name in ignored if name in filled]
    return not names or services.dialogs.confirm(
        _(
            "The label set does not name these segments: {names}. Save without them? To keep them, "
            "cancel, and rename them or add such labels in 'Labels'."
        ).format(names=", ".join(names))
    )
