"""Pseudo-labels: confidence, cleaning, storage and picture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.strategy import Prediction
from SAMSemiSegLib.pseudolabels.clean import clean
from SAMSemiSegLib.pseudolabels.confidence import volume_score, voxel_confidence
from SAMSemiSegLib.pseudolabels.make import make_pseudo_label
from SAMSemiSegLib.pseudolabels.picture import draw_pseudo_label
from SAMSemiSegLib.pseudolabels.plausible import fault, label_sizes
from SAMSemiSegLib.pseudolabels.pseudo_label import MappedPseudoLabel, PseudoLabel
from SAMSemiSegLib.pseudolabels.stage import draw_cases
from SAMSemiSegLib.run.settings import PseudoLabelSettings
from SAMSemiSegLib.volumes.components import keep_largest, whole_channels


def _one_hot(hard, channels, sure=0.9):
    """Probabilities with ``sure`` on the hard label and the rest spread evenly."""
    rest = (1 - sure) / (channels - 1)
    return np.where(np.arange(channels)[:, None, None, None] == hard, sure, rest)


def _scene():
    """A hollow cube of label 1 with a stray voxel of it, and a label 2 inside another hole."""
    hard = np.zeros((12, 12, 12), np.uint8)
    hard[2:9, 2:9, 2:9] = 1
    hard[4, 4, 4] = 0
    hard[6, 6, 6] = 2
    hard[11, 11, 11] = 1
    return hard


def test_confidence_is_zero_at_chance_and_one_when_certain():
    p = np.zeros((4, 3, 1, 1))
    p[:, 0] = 0.25
    p[2, 1] = 1
    p[:, 2, 0, 0] = (0.625, 0.375, 0, 0)
    np.testing.assert_allclose(voxel_confidence(p).ravel(), [0, 1, 0.5])
    halved = voxel_confidence(p, np.full((3, 1, 1), 0.5))
    np.testing.assert_allclose(halved.ravel(), [0, 0.5, 0.25])


def test_score_is_the_mean_over_the_foreground_band():
    hard = np.zeros((20, 20, 20), np.uint8)
    assert volume_score(hard, np.ones(hard.shape)) == 0
    hard[10, 10, 10] = 1
    confidence = np.zeros(hard.shape)
    confidence[10, 10, 10] = 1
    assert volume_score(hard, confidence) == pytest.approx(1 / 25)  # 25 voxels within two steps


def test_cleaning_moves_probability_and_lowers_confidence():
    p = _one_hot(_scene(), 3)
    w = voxel_confidence(p)
    cleaned, confidence = clean(p, w, ["a", "b"], True, True)
    hard = cleaned.argmax(0)
    assert hard[11, 11, 11] == 0 and hard[4, 4, 4] == 1 and hard[6, 6, 6] == 2
    assert cleaned[0, 11, 11, 11] == pytest.approx(0.95)
    assert confidence[11, 11, 11] == pytest.approx(0.85 * 0.1)
    np.testing.assert_allclose(cleaned.sum(0), 1)
    changed = np.argwhere(confidence != w)
    assert changed.tolist() == [[4, 4, 4], [11, 11, 11]]
    assert p[1, 11, 11, 11] == 0.9, "the input is left as it is"


def test_cleaning_only_the_named_labels():
    p = _one_hot(_scene(), 3)
    cleaned, _ = clean(p, voxel_confidence(p), ["a", "b"], ["b"], ["b"])
    np.testing.assert_array_equal(cleaned, p)
    with pytest.raises(InputError, match=r"'c'.*a, b"):
        clean(p, voxel_confidence(p), ["a", "b"], ["c"], False)


def test_whole_are_labels_in_one_piece_in_every_volume():
    organ = np.zeros((20, 20, 5), np.uint8)
    organ[2:12, 2:12] = 1
    organ[15, 15, 0] = 1  # a slip of the pen
    organ[2:5, 15:18], organ[15:18, 2:5] = 2, 2  # two kidneys
    other = np.where(organ == 1, 3, 0).astype(np.uint8)
    assert whole_channels([organ, other], 4) == [1, 3]
    other[15:, 12:] = 3
    assert whole_channels([organ, other], 4) == [1]


def test_labels_keep_the_same_largest_component_as_probabilities():
    p = _one_hot(_scene(), 3)
    cleaned, _ = clean(p, voxel_confidence(p), ["a", "b"], ["a"], False)
    hard = p.argmax(0)
    np.testing.assert_array_equal(keep_largest(hard, [1]), cleaned.argmax(0))
    assert hard[11, 11, 11] == 1, "the input is left as it is"
    np.testing.assert_array_equal(keep_largest(hard, []), hard)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_cleaning_is_idempotent_and_keeps_probabilities(seed, channels):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(channels), size=(5, 6, 4)).transpose(3, 0, 1, 2)
    names = [str(c) for c in range(1, channels)]
    once, w1 = clean(p, voxel_confidence(p), names, True, False)
    twice, w2 = clean(once, w1, names, True, False)
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_array_equal(w1, w2)
    np.testing.assert_allclose(once.sum(0), 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 14))
def test_stored_and_read_back(tmp_path_factory, seed, channels):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(channels, 0.4), size=(5, 4, 3)).transpose(3, 0, 1, 2)
    w = voxel_confidence(p)
    path = tmp_path_factory.mktemp("pseudo") / "case ä.npz"
    PseudoLabel.of(p, w, 0.123).save(path)
    again = PseudoLabel.load(path)
    assert again.score == 0.123 and again.probabilities.dtype == np.float32
    np.testing.assert_allclose(again.probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(again.probabilities, p, atol=(channels + 1) / 255)
    np.testing.assert_allclose(again.confidence, w, atol=0.5 / 255 + 1e-6)
    top = np.take_along_axis(p, again.hard[None].astype(int), 0)[0]
    assert (p.max(0) - top <= 1 / 255 + 1e-9).all(), "only ties of one step may turn"
    parts = {"case ä.hard.npy", "case ä.confidence.npy"}
    assert {f.name for f in path.parent.iterdir()} == {path.name} | parts


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a.npz"
    p = _one_hot(_scene(), 3)
    PseudoLabel.of(p, voxel_confidence(p), 1).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.npz"):
        PseudoLabel.load(path)
    with pytest.raises(InputError, match=r"missing or damaged"):
        PseudoLabel.load(tmp_path / "b.npz")


def test_a_file_with_a_hole_is_damaged_wherever_the_hole_is(tmp_path):
    path = tmp_path / "a.npz"
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(20, 20, 10)).transpose(3, 0, 1, 2)
    PseudoLabel.of(p, voxel_confidence(p), 1).save(path)
    whole, refused = path.read_bytes(), 0
    for start in range(0, len(whole), 64):
        path.write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
        for read in (PseudoLabel.load, PseudoLabel.score_of):
            try:
                read(path)
            except InputError:
                refused += 1
    assert refused > len(whole) // 64


def test_made_and_drawn(tmp_path):
    hard = _scene()
    p = torch.from_numpy(_one_hot(hard, 3)).float()
    prediction = Prediction(p, agreement=torch.full(hard.shape, 0.5))
    settings = PseudoLabelSettings(largest_component=True)
    pseudo = make_pseudo_label(prediction, settings, ["a", "b"])
    assert pseudo.hard[11, 11, 11] == 0 and pseudo.hard[4, 4, 4] == 1
    assert 0.35 < pseudo.score < 0.85 / 2 + 0.01
    image = np.random.default_rng(0).normal(size=hard.shape) + hard
    path = tmp_path / "a.png"
    draw_pseudo_label(image, pseudo, path, [(255, 0, 0), (0, 255, 0)])
    from matplotlib.image import imread

    picture = imread(path)[..., :3]
    red = (picture[..., 0] > 0.8) & (picture[..., 1:] < 0.2).all(-1)
    assert picture.shape[0] > 200 and red.sum() > 100, "label 1 is outlined in its color"
    draw_pseudo_label(image, pseudo, path, [(255, 0, 0), (0, 255, 0)], (40.0, 40.0, 1.0))
    assert imread(path).shape[1] < 9 * imread(path).shape[0] + 20, "flat volumes fit on a screen"
    image[:, 11] = image[..., 11] = image.max()
    draw_pseudo_label(image, pseudo, path, [(255, 0, 0), (0, 255, 0)])
    tissue_behind_the_name = imread(path)[14:20, 14:38, :3]
    assert tissue_behind_the_name.min() < 0.2, "names can be read on bright tissue"


def test_the_same_cases_are_drawn_in_their_order_at_each_call():
    cases = list(range(50))
    drawn = draw_cases(cases, 7, seed=3)
    assert len(set(drawn)) == 7 and drawn == sorted(drawn) == draw_cases(cases, 7, seed=3)
    assert drawn != draw_cases(cases, 7, seed=4)
    assert draw_cases(cases, None, 3) == draw_cases(cases, 50, 3) == cases


def test_a_label_far_from_any_known_size_cannot_be_right() -> None:
    known = [np.array([200, 0]), np.array([1000, 40])]
    names = ["organ", "lesion"]
    for sizes, words in (
        ([500, 20], ""),
        ([10, 0], ""),  # a lesion that not every labeled volume has may be missing
        ([0, 0], "empty"),
        ([9, 20], "'organ' has 9 voxels, at least 200"),
        ([500, 801], "'lesion' has 801 voxels, at most 40"),
    ):
        assert words in fault(np.array(sizes), known, names)
        assert bool(words) == bool(fault(np.array(sizes), known, names))
    labels = np.array([[[0, 1, 1, 2, 255]]], np.uint8)
    assert label_sizes(labels, 4).tolist() == [2, 1, 0]


def test_parts_are_read_without_unpacking_the_whole_each_time(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(6, 5, 4)).transpose(3, 0, 1, 2)
    whole = PseudoLabel.of(p, voxel_confidence(p), 0.5)
    whole.save(path)
    assert PseudoLabel.score_of(path) == 0.5
    mapped = MappedPseudoLabel(path)
    np.testing.assert_array_equal(mapped.probabilities, whole.quantized)
    assert mapped.hard.shape == mapped.confidence.shape == (6, 5, 4)
    with monkeypatch.context() as patched:  # all lie there now
        patched.setattr(PseudoLabel, "load", None)
        np.testing.assert_array_equal(mapped.hard, whole.hard)
        np.testing.assert_array_equal(mapped.confidence, whole.quantized_confidence)
        assert isinstance(mapped.probabilities, np.memmap)
    other = PseudoLabel.of(p[::-1], voxel_confidence(p), 0.5)
    other.save(path)
    np.testing.assert_array_equal(MappedPseudoLabel(path).hard, other.hard)
    np.testing.assert_array_equal(MappedPseudoLabel(path).probabilities, other.quantized)
    (tmp_path / "a.hard.npy").unlink()  # as a run of an older version has left it
    np.testing.assert_array_equal(MappedPseudoLabel(path).hard, other.hard)
    (tmp_path / "a.hard.npy").write_bytes(bytes(512))  # as a power cut may leave it
    np.testing.assert_array_equal(MappedPseudoLabel(path).hard, other.hard)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.npz"):
        PseudoLabel.score_of(path)
