"""Which volumes a project can take as they are."""

from __future__ import annotations

import vtk
from slicer.i18n import tr as _

# Cosine between two axes above which a grid counts as sheared: about 0.06 degrees.
SHEAR_TOLERANCE = 1e-3


def isValidVolume(volumeNode) -> tuple[bool, str]:
    """Whether the volume can become a case of a project; else the reason, and what to do."""
    if volumeNode is None:
        return False, _("Choose a volume.")
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return False, _("'{name}' is a label map; choose the image it was drawn on.").format(
            name=name
        )
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return False, _("'{name}' has no voxels; load its image first.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        return False, _(
            "'{name}' has {count} values a voxel; choose a volume with one (for color images, "
            "convert it by the module 'Vector to Scalar Volume')."
        ).format(name=name, count=image.GetNumberOfScalarComponents())
    if min(image.GetDimensions()) < 2:
        return False, _("'{name}' is a single slice; a project takes volumes.").format(name=name)
    matrix = hardenedMatrix(volumeNode)
    if matrix is None:
        return False, _(
            "'{name}' is under a non-linear transform; harden it in the Transforms module first."
        ).format(name=name)
    if isSheared(matrix):
        return False, _(
            "'{name}' has a sheared grid (gantry tilt, or a transform that shears); resample it "
            "by the module 'Resample Scalar/Vector/DWI Volume' first."
        ).format(name=name)
    return True, ""


def hardenedMatrix(volumeNode):
    """IJK to world as a 4x4 matrix with all parent transforms, None where one is not linear."""
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    parent = volumeNode.GetParentTransformNode()
    if parent is None:
        return ijkToRas
    if not parent.IsTransformToWorldLinear():
        return None
    toWorld = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(toWorld)
    vtk.vtkMatrix4x4.Multiply4x4(toWorld, ijkToRas, toWorld)
    return toWorld


def isSheared(matrix) -> bool:
    """Whether two of the matrix's axes are not at right angles."""
    axes = [[matrix.GetElement(row, column) for row in range(3)] for column in range(3)]
    for axis in axes:
        vtk.vtkMath.Normalize(axis)
    pairs = ((0, 1), (0, 2), (1, 2))
    return any(abs(vtk.vtkMath.Dot(axes[a], axes[b])) > SHEAR_TOLERANCE for a, b in pairs)
