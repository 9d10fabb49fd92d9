"""Preprocessing: the plan follows the cases, and results return exactly to the source's grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.orientation import Orientation
from SAMSemiSegLib.preprocessing.plan import IntensityRule, Plan, make_plan
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor, normalize
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.volumes.volume import Geometry, Volume

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
RAS = (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)


def volume(array: np.ndarray, spacing=(1.0, 1.0, 1.0), direction=RAS) -> Volume:
    return Volume(array, Geometry(array.shape, spacing, (1.0, 2.0, 3.0), tuple(direction)))


def plan_of(spacing, image: Volume | None = None) -> Plan:
    image = image or volume(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    return make_plan([image], PreprocessingSettings(spacing=spacing))


@st.composite
def geometries(draw) -> Geometry:
    """Any axis order, mirrored or not, turned by any angle; sizes and spacings too."""
    size = draw(st.tuples(*[st.integers(1, 9)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    direction = np.eye(3)[list(draw(st.permutations(range(3))))]
    direction = direction * np.array(draw(st.tuples(*[st.sampled_from((-1, 1))] * 3)))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    if draw(st.booleans()):
        direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ direction
    return Geometry(size, spacing, (0.0, 0.0, 0.0), tuple(direction.ravel()))


@settings(max_examples=150, deadline=None)
@given(geometry=geometries(), seed=st.integers(0, 1000))
def test_labels_come_back_exactly_where_the_spacing_is_kept(geometry, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, geometry.size).astype(np.uint8)
    source = Volume(labels, geometry)
    preprocessor = Preprocessor(plan_of(Orientation.of(geometry).spacing(geometry)))
    inside = preprocessor.labels(source)
    assert inside.shape == preprocessor.shape(geometry)
    one_hot = np.stack([inside == k for k in range(4)]).astype(np.float32)
    assert np.array_equal(preprocessor.back(one_hot, geometry), labels)
    assert np.array_equal(preprocessor.back_map(inside, geometry), labels)


@settings(max_examples=100, deadline=None)
@given(geometry=geometries(), spacing=st.tuples(*[st.floats(0.3, 8)] * 3))
def test_results_have_the_size_of_the_source_whatever_the_spacing(geometry, spacing):
    preprocessor = Preprocessor(plan_of(spacing))
    source = Volume(np.ones(geometry.size, np.uint8), geometry)
    shape = preprocessor.shape(geometry)
    assert preprocessor.image(source).shape == shape == preprocessor.labels(source).shape
    assert (preprocessor.labels(source) == 1).all()
    probabilities = np.zeros((3, *shape), np.float32)
    probabilities[2] = 0.6
    back = preprocessor.back(probabilities, geometry)
    assert back.shape == geometry.size and back.dtype == np.uint8 and (back == 2).all()


def test_orientation_agrees_with_simpleitk():
    rng = np.random.default_rng(0)
    for code in ("RAS", "LPS", "PIR", "SAL", "ILA"):
        image = sitk.GetImageFromArray(rng.normal(size=(4, 5, 6)).astype(np.float32))
        image.SetSpacing((1, 2, 3))
        image = sitk.DICOMOrient(image, code)
        source = Volume.from_sitk(image)
        # SimpleITK 2 and 3 name orientations by opposite conventions: compare the geometry instead
        turned = Orientation.of(source.geometry).forward(source.array)
        spacing = Orientation.of(source.geometry).spacing(source.geometry)
        target = sitk.Image(*turned.shape, sitk.sitkFloat32)
        target.SetSpacing(spacing)
        target.SetDirection(RAS)
        corners = [
            image.TransformIndexToPhysicalPoint((i, j, k))
            for i in (0, image.GetWidth() - 1)
            for j in (0, image.GetHeight() - 1)
            for k in (0, image.GetDepth() - 1)
        ]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        target.SetOrigin((high[0], high[1], low[2]))  # the most left, posterior, inferior corner
        expected = sitk.Resample(image, target, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(turned, Volume.from_sitk(expected).array)


def test_downsampling_keeps_place_and_mean_and_does_not_alias():
    x, y, z = np.meshgrid(*[np.arange(32)] * 3, indexing="ij")
    ball = ((x - 12) ** 2 + (y - 17) ** 2 + (z - 20) ** 2 < 64).astype(np.uint8)
    source = volume(ball)
    preprocessor = Preprocessor(plan_of((2.0, 2.0, 2.0)))
    small = preprocessor.labels(source)
    assert small.shape == (16, 16, 16)
    assert abs(small.sum() * 8 / ball.sum() - 1) < 0.05
    center = [axis[ball > 0].mean() for axis in (x, y, z)]
    found = [2 * i.mean() + 0.5 for i in np.nonzero(small)]
    assert np.allclose(center, found, atol=0.25)
    back = preprocessor.back(np.stack((small == 0, small == 1)), source.geometry)
    assert 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.93
    stripes = volume(((x + y + z) % 2).astype(np.float32))
    rule = IntensityRule(kind="window", lower=0, upper=1)
    plan = plan_of((2.0, 2.0, 2.0)).model_copy(update={"intensity": rule})
    assert np.abs(Preprocessor(plan).image(stripes)[1:-1, 1:-1, 1:-1]).max() < 0.01


def test_ignored_voxels_stay_ignored():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[4:] = 255
    inside = Preprocessor(plan_of((2.0, 2.0, 2.0))).labels(volume(labels, direction=IDENTITY))
    assert set(np.unique(inside)) == {0, 255} and (inside[:2] == 255).all()


def test_zscore_clips_and_standardizes_each_volume():
    rng = np.random.default_rng(1)
    gray = rng.gamma(2, 100, (20, 20, 20)).astype(np.float32)
    gray[0, 0, 0] = 1e6
    gray[1, 1, 1] = np.nan
    image = Preprocessor(plan_of((1.0, 1.0, 1.0))).image(volume(gray))
    assert image.dtype == np.float32 and np.isfinite(image).all()
    assert abs(image.mean()) < 1e-4 and abs(image.std() - 1) < 1e-3 and image.max() < 6
    assert not normalize(np.full((3, 3, 3), 7, np.float32), IntensityRule(kind="zscore")).any()


def test_percentile_and_window_end_in_minus_one_to_one():
    gray = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    for rule in (
        IntensityRule(kind="percentile"),
        IntensityRule(kind="window", lower=100, upper=500),
    ):
        image = normalize(gray, rule)
        assert image.min() == -1 and image.max() == 1
    assert normalize(gray, IntensityRule(kind="window", lower=100, upper=500)).flat[300] == 0


def test_ct_is_recognized_and_shares_one_window():
    rng = np.random.default_rng(2)
    scans = []
    for density in (20, 60):
        array = np.full((40, 40, 20), -1000, np.int16)
        array[8:32, 8:32] = rng.normal(density, 100, (24, 24, 20))
        scans.append(volume(array, (0.8, 0.8, 5.0)))
    plan = make_plan(iter(scans), PreprocessingSettings(scale=0.5))
    assert plan.fingerprint.modality == "CT" and plan.intensity.kind == "ct"
    assert plan.spacing == (1.6, 1.6, 10.0) and plan.fingerprint.size == (40, 40, 20)
    assert abs(plan.fingerprint.mean - 40) < 5 and -350 < plan.intensity.lower < -150
    means = [Preprocessor(plan).image(scan)[6:14, 6:14].mean() for scan in scans]
    assert means[1] - means[0] > 0.2, "the two scans keep their difference"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_plan_takes_medians_in_ras_order_and_guesses_mr():
    rng = np.random.default_rng(3)
    turned = (0.0, 0, -1, 1, 0, 0, 0, 1, 0)  # source axes run to P, S and R
    volumes = [
        volume(rng.normal(100, 20, (6, 7, 8)).astype(np.float32), (2, 3, 1), turned),
        volume(rng.normal(100, 20, (8, 6, 7)).astype(np.float32), (1, 2, 3)),
    ]
    plan = make_plan(volumes, PreprocessingSettings())
    assert plan.spacing == (1, 2, 3) and plan.fingerprint.size == (8, 6, 7)
    assert plan.fingerprint.modality == "MR" and plan.intensity.kind == "zscore"


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((192, 144, 88), (0.625, 0.625, 0.625), (1.25, 1.25, 1.25)),  # a left atrium: half
        ((35, 50, 35), (1, 1, 1), (1, 1, 1)),  # a hippocampus: small enough
        ((256, 256, 22), (0.5, 0.5, 6.5), (1, 1, 6.5)),  # thick slices stay
        ((80, 80, 80), (1, 1, 1), (1.27, 1.27, 1.27)),  # just small enough
        ((100, 100, 60), (1, 1, 1.5), (1.54, 1.54, 1.54)),  # 900,000 mm³ in 250,000 voxels
    ],
)
def test_automatic_scale_coarsens_the_finest_axes_of_large_volumes(size, spacing, expected):
    scan = volume(np.ones(size, np.uint8), spacing)
    plan = make_plan([scan], PreprocessingSettings(scale="auto"))
    assert plan.spacing == pytest.approx(expected, abs=0.006)


def test_mistakes_are_told():
    with pytest.raises(InputError, match="no volumes"):
        make_plan([], PreprocessingSettings())
    image = volume(np.zeros((2, 2, 2), np.int16))
    with pytest.raises(InputError, match=r"preprocessing\.window"):
        make_plan([image], PreprocessingSettings(intensity="window"))
    with pytest.raises(ValueError, match="is not"):
        Preprocessor(plan_of((1.0, 1.0, 1.0))).back(np.zeros((2, 3, 3, 3)), image.geometry)
