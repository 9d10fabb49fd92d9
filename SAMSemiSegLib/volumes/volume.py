"""A volume: voxels and where they lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]


def shape_of(array: Any) -> Shape:
    """Voxels along x, y, z of an array or a tensor (X, Y, Z)."""
    x, y, z = array.shape
    return x, y, z


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume, in SimpleITK's terms (LPS, millimeters).

    Attributes:
        size: voxels along x, y, z.
        spacing: millimeters between voxel centers.
        origin: position of the first voxel's center.
        direction: 3x3 direction cosines, row by row.
    """

    size: Shape
    spacing: Triple
    origin: Triple
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """The geometry of a SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def upright(cls, size: Shape, spacing: Triple = (1.0, 1.0, 1.0)) -> Geometry:
        """A grid along the patient's axes, its first voxel at the origin."""
        return cls(size, spacing, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))

    def apply_to(self, image: sitk.Image) -> None:
        """Give ``image`` this spacing, origin and direction (bit for bit)."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)


@dataclass(frozen=True)
class Volume:
    """An array of shape (X, Y, Z) with its geometry.

    Arrays are (X, Y, Z) everywhere in the library, as in MONAI, torchio and the literature's patch
    sizes (112x112x80); SimpleITK's (Z, Y, X) order is met only here.
    """

    array: np.ndarray[Any, Any]
    geometry: Geometry

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Copy of a 3D scalar image."""
        import SimpleITK as sitk

        array = np.ascontiguousarray(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0))
        return cls(array, Geometry.of(image))

    def to_sitk(self) -> sitk.Image:
        """The same volume as a SimpleITK image."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(np.ascontiguousarray(self.array.transpose(2, 1, 0)))
        self.geometry.apply_to(image)
        return image
