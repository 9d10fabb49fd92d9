"""Metrics against values worked out by hand, and against a brute-force definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMSemiSegLib.evaluation.metrics import compare, compare_labels


def _cube(shape, lower, upper):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))] = True
    return mask


def test_identical_masks():
    cube = _cube((9, 9, 9), (2, 2, 2), (6, 6, 6))
    m = compare(cube, cube, (1.0, 2.0, 3.0))
    assert (m.dice, m.jaccard, m.asd_mm, m.hd95_mm) == (1, 1, 0, 0)
    assert not m.failed


def test_one_voxel_each_by_hand():
    """Voxels 3 apart along x and 4 along y: 5 voxels; with spacing (2, 1, 1): sqrt(36 + 16) mm."""
    a = _cube((12, 12, 3), (1, 1, 1), (2, 2, 2))
    b = _cube((12, 12, 3), (4, 5, 1), (5, 6, 2))
    m = compare(a, b, (2.0, 1.0, 1.0))
    assert m.dice == 0 and m.failed and not m.empty
    assert m.asd_voxels == pytest.approx(5) and m.hd95_voxels == pytest.approx(5)
    assert m.asd_mm == pytest.approx(math.sqrt(52)) and m.hd95_mm == pytest.approx(math.sqrt(52))


def test_directed_asd_and_pooled_hd95_by_hand():
    """Prediction {0}, reference {0, 1, 2, 3} on a line: the directed ASD is 0, and the pooled
    distances are 0 | 0 1 2 3, whose 95th percentile is 2 + 0.8 = 2.8 by interpolation."""
    prediction = _cube((6, 1, 1), (0, 0, 0), (1, 1, 1))
    reference = _cube((6, 1, 1), (0, 0, 0), (4, 1, 1))
    m = compare(prediction, reference, (1.0, 1.0, 1.0))
    assert m.dice == pytest.approx(2 / 5) and m.jaccard == pytest.approx(1 / 4)
    assert m.asd_voxels == 0
    assert m.hd95_voxels == pytest.approx(2.8)
    turned = compare(reference, prediction, (1.0, 1.0, 1.0))
    assert turned.asd_voxels == pytest.approx(1.5)
    assert turned.hd95_voxels == pytest.approx(2.8)


def test_empty_masks():
    empty, cube = np.zeros((5, 5, 5), bool), _cube((5, 5, 5), (1, 1, 1), (3, 3, 3))
    missed = compare(empty, cube, (1.0, 1.0, 1.0))
    assert missed.dice == 0 and missed.empty and missed.failed and math.isnan(missed.hd95_mm)
    absent = compare(empty, empty, (1.0, 1.0, 1.0))
    assert absent.dice == 1 and not absent.failed and math.isnan(absent.asd_mm)
    invented = compare(cube, empty, (1.0, 1.0, 1.0))
    assert invented.dice == 0 and invented.failed and not invented.empty


def test_ignored_voxels_count_nowhere():
    reference = np.zeros((4, 4, 1), np.uint8)
    reference[0], reference[1] = 1, 255
    prediction = np.zeros_like(reference)
    prediction[:2] = 1
    assert compare_labels(prediction, reference, ["a"], (1.0, 1.0, 1.0))["a"].dice == 1


def _brute_force(a, b, spacing):
    """Surfaces voxel by voxel and all pairs of distances."""

    def surface(mask):
        padded = np.pad(mask, 1)
        return np.array(
            [
                p
                for p in np.argwhere(mask)
                if not all(
                    padded[tuple(p + 1 + sign * np.eye(3, dtype=int)[axis])]
                    for axis in range(3)
                    for sign in (-1, 1)
                )
            ]
        )

    sa, sb = surface(a) * spacing, surface(b) * spacing
    pairs = np.linalg.norm(sa[:, None] - sb[None], axis=-1)
    pooled = np.concatenate([pairs.min(1), pairs.min(0)])
    return pairs.min(1).mean(), np.percentile(pooled, 95)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.floats(0.3, 4)] * 3))
def test_distances_equal_brute_force(seed, spacing):
    generator = np.random.default_rng(seed)
    a, b = (generator.random((5, 6, 4)) < share for share in (0.3, 0.5))
    a[0, 0, 0] = b[-1, -1, -1] = True
    m = compare(a, b, spacing)
    assert (m.asd_mm, m.hd95_mm) == pytest.approx(_brute_force(a, b, np.array(spacing)))
    assert (m.asd_voxels, m.hd95_voxels) == pytest.approx(_brute_force(a, b, np.ones(3)))
