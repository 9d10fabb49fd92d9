"""Made-up scans: an organ of two parts in textured surroundings, for tests and for a demo without
data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from SAMSemiSegLib.volumes.volume import Shape, Volume

NAMES = ("anterior", "posterior")
SHAPE = (48, 56, 40)


def make_phantom(shape: Shape = SHAPE, seed: int = 0) -> tuple[Volume, Volume]:
    """One scan and its label.

    An ellipsoid of varied place, pose and size is cut into a front and a back part of different
    brightness; around it lie other ellipsoids of similar brightness, smooth texture, a bias field
    over all and noise.

    Returns:
        The image (float32, about 0 to 1000) and the label (uint8: 0, 1 front, 2 back), 1 mm.
    """
    from scipy.ndimage import gaussian_filter

    from SAMSemiSegLib.volumes.volume import Geometry, Volume, shape_of

    random = np.random.default_rng(seed)
    size = np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).astype(float)

    image = 300 + 60 * _texture(random, shape, 3.0)
    for _ in range(6):  # nuisance: as bright as the organ, but elsewhere, of another shape
        center = size * random.uniform(0.05, 0.95, 3)
        radii = size * random.uniform(0.05, 0.14, 3)
        image[_radius(grid, center, radii, _turn(random, 1.5)) < 1] = random.uniform(350, 650)

    center = size * (0.5 + random.uniform(-0.1, 0.1, 3))
    turn = _turn(random, 0.4)
    radii = size * np.array([0.17, 0.27, 0.2]) * random.uniform(0.85, 1.15, 3)
    wobble = 0.12 * _texture(random, shape, 6.0)
    organ = _radius(grid, center, radii, turn) + wobble < 1
    along = (grid - center) @ turn[:, 1] + 2.0 * _texture(random, shape, 6.0)
    front = along > radii[1] * random.uniform(-0.15, 0.25)
    labels = np.where(organ, np.where(front, 1, 2), 0).astype(np.uint8)
    brightness = random.uniform(560, 640), random.uniform(700, 800)
    image = np.where(labels == 1, brightness[0], np.where(labels == 2, brightness[1], image))

    image = gaussian_filter(image, 0.7)  # partial volume
    image *= 1 + 0.2 * _texture(random, shape, 0.4 * max(shape))
    image += random.normal(0, random.uniform(15, 35), shape)
    geometry = Geometry.upright(shape_of(image))
    return Volume(image.astype(np.float32), geometry), Volume(labels, geometry)


def write_phantoms(
    folder: Path, count: int, seed: int = 0, shape: Shape = SHAPE
) -> tuple[Path, Path]:
    """Write ``count`` phantoms as .nii.gz.

    Returns:
        The folders ``images`` and ``labels``, in which files of one case share a name.
    """
    from SAMSemiSegLib.volumes.writing import write_image, write_labels

    images, labels = folder / "images", folder / "labels"
    for index in range(count):
        image, label = make_phantom(shape, seed * 10_000 + index)
        name = f"phantom_{index + 1:03d}.nii.gz"
        write_image(images / name, image)
        write_labels(labels / name, label, NAMES, (1, 2), ((230, 97, 76), (78, 162, 206)))
    return images, labels


def _texture(random: np.random.Generator, shape: Shape, sigma: float) -> np.ndarray:
    """Smooth noise of unit standard deviation."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-12)


def _radius(
    grid: np.ndarray, center: np.ndarray, radii: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """Distance from the center in units of the ellipsoid's radius: 1 on its surface."""
    return np.sqrt((((grid - center) @ turn / radii) ** 2).sum(-1))


def _turn(random: np.random.Generator, largest: float) -> np.ndarray:
    """Rotation about a random axis by up to ``largest`` radians (3x3)."""
    from scipy.spatial.transform import Rotation

    axis = random.normal(size=3)
    angle = random.uniform(-largest, largest)
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
