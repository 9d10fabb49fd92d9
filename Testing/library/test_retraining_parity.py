"""The methods' losses against numbers worked out by hand from the published formulas.

The formula and its source stand in the docstring of each method's module; the arithmetic is in
comments.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMSemiSegLib.retraining.consistency import entropy, mean_square_where
from SAMSemiSegLib.retraining.cubes import assemble, cut, draw_exchange, exchange, exchange_back
from SAMSemiSegLib.retraining.signed_distance import signed_distance
from SAMSemiSegLib.retraining.ssl.acmt import ambiguity_threshold, label_errors, nearest_prototype
from SAMSemiSegLib.retraining.ssl.bcp import box_mask, largest_components, paste
from SAMSemiSegLib.retraining.ssl.cct import drop_most_active, feature_noise
from SAMSemiSegLib.retraining.ssl.cps import cross_pseudo_loss
from SAMSemiSegLib.retraining.ssl.dtc import dual_task_loss
from SAMSemiSegLib.retraining.ssl.fixmatch import confident_cross_entropy
from SAMSemiSegLib.retraining.ssl.magicnet import blended
from SAMSemiSegLib.retraining.ssl.ua_mt import certainty_threshold
from SAMSemiSegLib.retraining.ssl.urpc import pyramid_consistency
from SAMSemiSegLib.training.losses import segmentation_loss


def voxels(*probabilities: list[float]) -> torch.Tensor:
    """(1, K, n, 1, 1) from the class probabilities of n voxels."""
    return torch.tensor(probabilities).T.reshape(1, len(probabilities[0]), -1, 1, 1)


def logits(*probabilities: list[float]) -> torch.Tensor:
    return voxels(*probabilities).log()


def test_ua_mt() -> None:
    """UA-MT: mask u < (0.75 + 0.25·ramp)·ln 2; Σ(mask·(s-t)²) / (2·Σ mask)."""
    u = entropy(voxels([0.5, 0.5], [0.9, 0.1], [1.0, 0.0])).flatten()
    # -2·0.5·ln 0.5 = 0.69315; -(0.9·ln 0.9 + 0.1·ln 0.1) = 0.09482 + 0.23026 = 0.32508; 0
    assert u.tolist() == pytest.approx([0.69315, 0.32508, 0.0], abs=1e-4)
    # t = 1/2: ramp = exp(-5/4) = 0.28650; (0.75 + 0.25·0.28650)·0.69315 = 0.56951
    threshold = certainty_threshold(0.75, 0.5)
    assert threshold == pytest.approx(0.56951, abs=1e-4)
    student = voxels([0.8, 0.2], [0.6, 0.4], [0.7, 0.3])
    teacher = voxels([0.5, 0.5], [0.9, 0.1], [1.0, 0.0])
    mask = entropy(teacher) < threshold
    # Voxels 2 and 3 are certain: (2·0.3² + 2·0.3²) / (2·2) = 0.36 / 4 = 0.09
    assert mean_square_where(student, teacher, mask).item() == pytest.approx(0.09, abs=1e-5)


def test_acmt() -> None:
    """ACMT: mask H(s)/ln 2 >= threshold; mean of (s-t)² over it."""
    student = voxels([0.5, 0.5], [0.7, 0.3], [0.9, 0.1])
    teacher = voxels([0.6, 0.4], [0.9, 0.1], [0.1, 0.9])
    # H/ln 2: 1; (0.7·0.35667 + 0.3·1.20397)/0.69315 = 0.88129; 0.46900
    # t = 1/2: 0.75 + 0.2·0.28650 = 0.80730, so voxels 1 and 2: (2·0.1² + 2·0.2²)/(2·2) = 0.025
    threshold = ambiguity_threshold(0.75, 0.95, 0.5)
    assert threshold == pytest.approx(0.80730, abs=1e-5)
    mask = entropy(student) / math.log(2) >= threshold
    assert mask.flatten().tolist() == [True, True, False]
    assert mean_square_where(student, teacher, mask).item() == pytest.approx(0.025, abs=1e-5)
    none = torch.zeros_like(mask)
    assert mean_square_where(student, teacher, none).item() == 0


def test_acmt_prototypes() -> None:
    """Voxel 3 is called class 0, but its feature points where class 1's do."""
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 2.0]]).T.reshape(1, 2, 3, 1, 1)
    probabilities = voxels([0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0])
    # class 0: 0.9·(1, 0) + 0.6·(0.1, 2) = (0.96, 1.2); class 1: 0.9·(0, 1); class 2 has none
    # cosines of voxel 3: (0.096 + 2.4)/(1.5367·2.0025) = 0.811 and 2/2.0025 = 0.999
    all_three = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    assert nearest_prototype(embedding, probabilities, all_three).flatten().tolist() == [0, 1, 1]
    # Without voxel 1, class 0 is (0.06, 1.2), where voxel 3 points too.
    known = torch.tensor([False, True, True]).view(1, 3, 1, 1)
    found = nearest_prototype(embedding, probabilities, known)
    assert found.flatten().tolist()[1:] == [1, 0]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_acmt_prototypes_of_a_whole_crop_in_mixed_precision(precision: torch.dtype) -> None:
    """The features of a class's 30³ voxels, at 10 each, sum up to more than float16 can hold."""
    draw = torch.Generator().manual_seed(0)
    of_class = torch.zeros(1, 60, 30, 30, dtype=torch.long)
    of_class[:, 30:] = 1
    probabilities = torch.nn.functional.one_hot(of_class, 2).movedim(-1, 1).float()
    embedding = 10 * probabilities + torch.randn(1, 2, 60, 30, 30, generator=draw)
    with torch.autocast("cpu", precision):
        found = nearest_prototype(embedding, probabilities, of_class >= 0)
    assert torch.equal(found, of_class)


def test_acmt_confident_learning() -> None:
    """Northcutt et al.: t_c = mean p_c over the voxels labeled c."""
    probabilities = voxels([0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6])
    probabilities[0, :, 1] = torch.tensor([0.25, 0.75]).view(2, 1, 1)
    labels = torch.tensor([0, 0, 1, 1]).view(1, 4, 1, 1)
    # t_0 = (0.9 + 0.25)/2 = 0.575, t_1 = (0.8 + 0.6)/2 = 0.7: voxel 2 is surely 1, labeled 0
    found = label_errors(probabilities, labels, labels >= 0)
    assert found.flatten().tolist() == [False, True, False, False]
    # Without voxel 4, t_1 = 0.8, which voxel 2 does not reach.
    known = torch.tensor([True, True, True, False]).view(1, 4, 1, 1)
    assert not label_errors(probabilities, labels, known).any()


def test_cps() -> None:
    """CPS: CE to the other network's argmax, both ways."""
    first = logits([0.8, 0.2], [0.4, 0.6])
    second = logits([0.7, 0.3], [0.9, 0.1])
    # CE(first, [0, 0]) = -(ln 0.8 + ln 0.4)/2 = (0.22314 + 0.91629)/2 = 0.56972
    # CE(second, [0, 1]) = -(ln 0.7 + ln 0.1)/2 = (0.35667 + 2.30259)/2 = 1.32963
    both = torch.tensor([True, True]).view(1, 2, 1, 1)
    assert cross_pseudo_loss(first, second, both).item() == pytest.approx(1.89935, abs=1e-4)
    # Of the first voxel alone: 0.22314 + 0.35667
    alone = cross_pseudo_loss(first, second, both & torch.tensor([True, False]).view(1, 2, 1, 1))
    assert alone.item() == pytest.approx(0.57982, abs=1e-4)


def test_urpc() -> None:
    """URPC, with two stages of one voxel: p1 = (0.8, 0.2), p2 = (0.4, 0.6)."""
    # p̄ = (0.6, 0.4); squares 0.04 in each class of each stage; with one voxel the trust cancels.
    # v1 = 0.8·ln(0.8/0.6) + 0.2·ln(0.2/0.4) = 0.23015 - 0.13863 = 0.09152
    # v2 = 0.4·ln(0.4/0.6) + 0.6·ln(0.6/0.4) = -0.16219 + 0.24328 = 0.08109
    # mean(0.04 + 0.09152, 0.04 + 0.08109) = 0.12630
    valid = torch.tensor([True, True]).view(1, 2, 1, 1)
    loss = pyramid_consistency([voxels([0.8, 0.2]), voxels([0.4, 0.6])], valid[:, :1])
    assert loss.item() == pytest.approx(0.12630, abs=1e-4)
    # A second voxel where the stages agree (v = 0, square 0): rectified = 0.04·e^-v / (e^-v + 1)
    # stage 1: 0.04·0.91254/1.91254 = 0.019085 + 0.09152/2 = 0.064845
    # stage 2: 0.04·0.92211/1.92211 = 0.019190 + 0.08109/2 = 0.059735; mean 0.062290
    both = [voxels([0.8, 0.2], [0.5, 0.5]), voxels([0.4, 0.6], [0.5, 0.5])]
    assert pyramid_consistency(both, valid).item() == pytest.approx(0.06229, abs=1e-4)
    first = valid & torch.tensor([True, False]).view(1, 2, 1, 1)
    assert pyramid_consistency(both, first).item() == pytest.approx(0.12630, abs=1e-4)


def test_dtc_losses() -> None:
    """DTC: MSE(sigmoid(-1500·distance), p) and MSE of the distance."""
    distance = torch.tensor([0.0, 0.001, -1.0]).view(1, 1, 3, 1, 1)
    scores = logits([0.5, 0.5], [0.9, 0.1], [0.3, 0.7])
    # sigmoid(0) = 0.5, sigmoid(-1.5) = 0.18243, sigmoid(1500) = 1
    # (0 + 0.08243² + 0.3²)/3 = (0.006795 + 0.09)/3 = 0.032265
    valid = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    loss = dual_task_loss(scores, distance, 1500, valid)
    assert loss.item() == pytest.approx(0.032265, abs=1e-5)
    target = torch.tensor([0.5, 0.001, 1.0]).view(1, 1, 3, 1, 1)
    known = torch.tensor([True, True, False]).view(1, 3, 1, 1)
    # (0.5² + 0)/2 = 0.125, the third voxel is ignored
    assert mean_square_where(distance, target, known).item() == pytest.approx(0.125)


def test_dtc_distance_map() -> None:
    """On a line 0 0 0 1 1 1 1 0: outer distances 3 2 1, 1; inner 1 2 2 1, the border set to 0."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0], dtype=torch.uint8).view(1, 8, 1, 1)
    labels = labels.expand(1, 8, 5, 5)  # erosion keeps what touches the crop's sides
    found = signed_distance(labels, 3)
    assert found.shape == (1, 2, 8, 5, 5)
    expected = [1, 2 / 3, 1 / 3, 0, -1, -1, 0, 1 / 3]
    assert found[0, 0, :, 2, 2].tolist() == pytest.approx(expected, abs=1e-6)
    assert (found[0, 1] == 1).all()  # a class that is not there is far away
    assert (signed_distance(torch.ones(1, 4, 4, 4), 2) == -1).all()


def test_dtc_distance_map_knows_no_border_where_voxels_are_ignored() -> None:
    """On a line 0 0 1 1 1 1 and two that are ignored, as at a crop's own edge."""
    whole = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1], dtype=torch.uint8).view(1, 8, 1, 1)
    part = torch.tensor([0, 0, 1, 1, 1, 1, 255, 255], dtype=torch.uint8).view(1, 8, 1, 1)
    far = torch.tensor([255, 0, 0, 1, 1, 0, 0, 255], dtype=torch.uint8).view(1, 8, 1, 1)
    found = signed_distance(part.expand(1, 8, 5, 5), 2)[0, 0, :, 2, 2]
    # inner 1 2 3 4, the border set to 0; the whole line has 1 2 3 4 5 6
    assert found[:6].tolist() == pytest.approx([1, 1 / 2, 0, -2 / 4, -3 / 4, -1])
    expected = [1, 1 / 2, 0, -2 / 6, -3 / 6, -4 / 6]
    assert signed_distance(whole.expand(1, 8, 5, 5), 2)[0, 0, :6, 2, 2].tolist() == pytest.approx(
        expected
    )
    # The farthest voxels are 2 away, the ignored ones beyond them count for nothing.
    found = signed_distance(far.expand(1, 8, 5, 5), 2)[0, 0, 1:7, 2, 2]
    assert found.tolist() == pytest.approx([1, 1 / 2, 0, 0, 1 / 2, 1])
    assert (signed_distance(torch.tensor([1, 255]).view(1, 2, 1, 1), 2)[..., :1, :, :] == -1).all()


def test_bcp() -> None:
    """BCP: the box is 2/3 of the sides; each region has its own ½(CE + Dice)."""
    torch.manual_seed(0)
    mask = box_mask(torch.Size((12, 9, 6)), 2 / 3)
    assert (~mask).sum() == 8 * 6 * 4
    outside, inside = torch.zeros(2, 1, 12, 9, 6), torch.ones(2, 1, 12, 9, 6)
    assert paste(outside, inside, mask).sum() == 2 * 8 * 6 * 4
    # Two voxels in the region, p = (0.8, 0.2) labeled 0 and (0.4, 0.6) labeled 1; a third outside
    # CE = (0.22314 + 0.51083)/2 = 0.36698
    # Dice = 2·0.6/(0.2² + 0.6² + 1) = 1.2/1.4 = 0.85714; ½(0.36698 + 0.14286) = 0.25492
    scores = logits([0.8, 0.2], [0.4, 0.6], [0.1, 0.9])
    labels = torch.tensor([0, 1, 0]).view(1, 3, 1, 1)
    region = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert segmentation_loss(scores, labels, region).item() == pytest.approx(0.25492, abs=1e-4)


def test_bcp_largest_component() -> None:
    labels = torch.tensor([1, 0, 1, 1, 2, 0, 2]).view(1, 7, 1, 1)
    assert largest_components(labels).flatten().tolist() == [0, 0, 1, 1, 2, 0, 0]


def test_cct_disturbances() -> None:
    x = torch.rand(2, 3, 4, 4, 4) + 0.5
    noise = feature_noise(x, 0.3) / x - 1
    assert noise.abs().max() <= 0.3001 and torch.allclose(noise[0], noise[1], atol=1e-5)
    kept = drop_most_active(x)
    attention = x.mean(1) / x.mean(1).amax((1, 2, 3), keepdim=True)
    gone = (kept == 0).all(1)
    assert gone[attention >= 0.9].all() and not gone[attention < 0.7].any()


def test_fixmatch() -> None:
    """Sohn et al., eq. (4): mean over all voxels, sure or not; but for a third, which is none."""
    weak = voxels([0.96, 0.04], [0.6, 0.4], [1.0, 0.0])
    valid = torch.tensor([True, True, False]).view(1, 3, 1, 1)
    strong = logits([0.5, 0.5], [0.1, 0.9], [0.1, 0.9])
    loss, share = confident_cross_entropy(strong, weak, 0.95, valid)
    assert loss.item() == pytest.approx(0.69315 / 2, abs=1e-4) and share.item() == 0.5


def test_magicnet_blending() -> None:
    """MagicNet: (1-Ω)·teacher + Ω·cubes; frequencies (0.8, 0.2) give Ω = 1 and 0.25."""
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).T.reshape(1, 2, 2, 1, 1)
    cubes = torch.tensor([[0.0, 1.0], [4.0, 0.0]]).T.reshape(1, 2, 2, 1, 1)
    result = blended(teacher, cubes, torch.tensor([0.8, 0.2])).flatten(2)[0].T
    assert result.tolist() == [[0.0, 1.0], [1.0, 1.5]]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)
)
def test_magicnet_cubes_come_home(nx: int, ny: int, nz: int, crops: int, cube: int) -> None:
    """All cubes, for any number along each axis (27 of 27, where the released code has 9)."""
    volume = torch.arange(crops * 2 * nx * ny * nz * cube**3).float()
    volume = volume.view(crops, 2, nx * cube, ny * cube, nz * cube)
    cubes, count = cut(volume, cube)
    assert count == (nx, ny, nz)
    assert torch.equal(assemble(cubes, count), volume)
    order = draw_exchange(crops, nx * ny * nz, volume.device)
    mixed = exchange(cubes, order)
    assert torch.equal(exchange_back(mixed, order), cubes)
    # Nothing is lost, and every cube keeps its location.
    assert torch.equal(mixed.sort(0).values, cubes.sort(0).values)


def test_magicnet_order_is_z_fastest() -> None:
    volume = torch.from_numpy(np.indices((4, 4, 4)).astype(np.float32))[None]
    cubes, _ = cut(volume, 2)
    assert cubes[0, 1, :, 0, 0, 0].tolist() == [0, 0, 2]
    assert cubes[0, 2, :, 0, 0, 0].tolist() == [0, 2, 0]
    assert cubes[0, 4, :, 0, 0, 0].tolist() == [2, 0, 0]
