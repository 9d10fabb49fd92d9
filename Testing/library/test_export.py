"""The three exports: they agree, carry their card, and refuse what they are not."""

import json
import shutil

import monai.bundle
import numpy as np
import onnx
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser
from scipy import ndimage

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.export.bundle import bundle_metadata, export_bundle
from SAMSemiSegLib.export.model_card import DataCounts, ModelCard, write_card
from SAMSemiSegLib.export.onnx import export_onnx
from SAMSemiSegLib.export.predictor import OnnxNet, Predictor
from SAMSemiSegLib.export.torchscript import export_torchscript
from SAMSemiSegLib.preprocessing.plan import make_plan
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.volumes.volume import Geometry, Volume


def make_volume(seed=0, shape=(30, 26, 20)):
    """A bright ball in noise, anisotropic, with flipped and swapped axes (LPI-like)."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    ball = np.linalg.norm(grid - np.array(shape)[:, None, None, None] / 2, axis=0) < 7
    array = (100 * ball + 20 * generator.normal(size=shape) + 50).astype(np.float32)
    direction = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return Volume(array, Geometry(shape, (0.9, 1.1, 1.7), (5.0, -3.0, 2.0), direction))


def make_net(norm="batch"):
    """A small V-Net with normalization statistics and logits that depend on the image."""
    torch.manual_seed(3)
    settings = RunSettings().retraining.net
    settings.width, settings.norm = 4, norm
    net = VNet(3, settings)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 1, 32, 32, 32))
        net.head.weight.mul_(20)
    return net.eval()


def make_card(norm="batch", intensity="zscore", largest_component=False, scales=(1.0,)):
    settings = RunSettings()
    settings.retraining.scales = scales
    settings.retraining.largest_component = largest_component
    settings.retraining.net.width, settings.retraining.net.norm = 4, norm
    settings.preprocessing.intensity = intensity
    settings.preprocessing.window = (40, 170)
    settings.foundation.weights = "/home/someone/Doe Jane.pth"
    reference = np.zeros((4, 4, 4), np.uint8)
    reference[:2], reference[2] = 1, 2
    scores = Scores()
    scores.add(
        "re-trained", "Doe^Jane", compare_labels(reference, reference, ["a", "b"], (1, 1, 1))
    )
    missed = compare_labels(0 * reference, reference, ["a", "b"], (1, 1, 1))
    scores.add("supervised only", "Doe^Jane", missed)
    return ModelCard.of_run(
        "Atrium",
        LabelSet.of(["a", "b"], [3, 700]),
        make_plan([make_volume(0), make_volume(1)], settings.preprocessing),
        (32, 32, 16),
        settings.retraining.net,
        settings,
        DataCounts(labeled=2, unlabeled=5, evaluated=1),
        scores,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model ä")
    net, card = make_net(), make_card()
    return [
        export(net, card, folder) for export in (export_torchscript, export_onnx, export_bundle)
    ]


def test_the_three_agree_and_lie_on_the_source_grid(exported):
    volume = make_volume(7)
    net, x = make_net(), torch.randn(2, 1, 48, 32, 16)
    predictors = [Predictor.load(path, "cpu") for path in exported]
    reference = predictors[0].predict(volume)
    probabilities = predictors[0].predict_probabilities(volume)
    assert probabilities.dtype == np.float32 and probabilities.shape[0] == 3
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-4)
    assert np.bincount(reference.array.ravel(), minlength=3).astype(bool).sum() >= 2
    for predictor in predictors:
        labels = predictor.predict(volume)
        assert labels.geometry == volume.geometry and labels.array.shape == volume.array.shape
        assert labels.array.dtype == np.uint8
        assert (labels.array != reference.array).mean() < 1e-4
        with torch.inference_mode():
            torch.testing.assert_close(predictor.net(x), net(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_other_normalizations_export_too(tmp_path, norm):
    net, card = make_net(norm), make_card(norm)
    x = torch.randn(1, 1, 16, 32, 48)
    for export in (export_torchscript, export_onnx):
        loaded = Predictor.load(export(net, card, tmp_path), "cpu")
        with torch.inference_mode():
            torch.testing.assert_close(loaded.net(x), net(x), rtol=1e-3, atol=2e-3)


def test_card_is_in_each_and_names_no_patient(exported, tmp_path):
    card = make_card()
    for path in exported:
        assert Predictor.load(path, "cpu").card == card
    write_card(card, tmp_path)
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert len(texts) == 2
    for text in [*texts, json.dumps(onnx.load(exported[1]).metadata_props[0].value)]:
        assert "Doe" not in text and "someone" not in text
    words = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "2 labeled" in words and "| 2 | b | 700 |" in words
    assert "| supervised only | mean | 0.000 | 0.000 | – | – | 1 of 1 |" in words


def test_what_is_no_model_is_refused_in_a_sentence(exported, tmp_path):
    (tmp_path / "text.ts").write_text("no model")
    (tmp_path / "text.onnx").write_text("no model")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "weights.pt")
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "foreign.ts")
    cut = exported[0].read_bytes()
    (tmp_path / "cut.ts").write_bytes(cut[: len(cut) // 2])
    shutil.copytree(exported[2], tmp_path / "bundle")
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"cut")
    (tmp_path / "empty").mkdir()
    names = ["text.ts", "text.onnx", "weights.pt", "foreign.ts", "cut.ts", "bundle", "empty", "no"]
    for name in names:
        with pytest.raises(InputError, match=name) as caught:
            Predictor.load(tmp_path / name, "cpu")
        assert str(caught.value).count(". ") == 0


def test_pickled_code_in_a_bundle_is_never_run(exported, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    shutil.copytree(exported[2], tmp_path / "bundle")
    torch.save(Harm(), tmp_path / "bundle" / "models" / "model.pt")
    with pytest.raises(InputError):
        Predictor.load(tmp_path / "bundle", "cpu")
    assert not (tmp_path / "harm").exists()


def test_onnx_without_memory_is_a_memory_error(exported):
    """onnxruntime's own errors are of no class that says so."""
    net = OnnxNet(exported[1], torch.device("cpu"))

    class Full:
        def run(self, names, values):
            raise Exception("BFCArena: Failed to allocate memory for requested buffer of size 9")

    net._session = Full()
    with pytest.raises(MemoryError, match="allocate"):
        net(torch.zeros(1, 1, 16, 16, 16))


@pytest.mark.parametrize("intensity", ["zscore", "ct", "percentile", "window"])
def test_bundle_preprocesses_in_monai_as_we_do(intensity, tmp_path):
    """MONAI's standard transforms come near to our preprocessing, for each intensity rule."""
    pytest.importorskip("nibabel", reason="MONAI's Orientation needs nibabel")
    card = make_card(intensity=intensity)
    path = export_bundle(make_net(), card, tmp_path)
    volume = make_volume(7)
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "scan.nii.gz"))
    parser = ConfigParser()
    parser.read_config(str(path / "configs" / "inference.json"))
    transform = parser.get_parsed_content("preprocessing")
    theirs = transform({"image": str(tmp_path / "scan.nii.gz")})["image"][0].numpy()
    ours = Preprocessor(card.plan).image(volume)
    assert theirs.shape == ours.shape
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


def run_in_monai(bundle, volume, folder, suffix=".nii.gz"):
    """The label file that ``monai.bundle`` makes of a volume, and its array (X, Y, Z)."""
    (folder / "scans").mkdir()
    sitk.WriteImage(volume.to_sitk(), str(folder / "scans" / f"scan{suffix}"))
    monai.bundle.run(
        run_id="run",
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(folder / "scans"),
        output_dir=str(folder / "results"),
    )
    (written,) = (folder / "results").iterdir()
    return written, sitk.GetArrayFromImage(sitk.ReadImage(str(written))).transpose(2, 1, 0)


@pytest.mark.parametrize("suffix, package", [(".nii.gz", "nibabel"), (".nrrd", "nrrd")])
def test_bundle_runs_in_monai_and_agrees(exported, tmp_path, suffix, package):
    """``monai.bundle`` runs the configuration as it is; its label file equals ours."""
    pytest.importorskip("nibabel", reason="MONAI's Orientation needs nibabel")
    pytest.importorskip(package, reason="MONAI reads such files with it")
    volume = make_volume(7)
    written, found = run_in_monai(exported[2], volume, tmp_path, suffix)
    predictor = Predictor.load(exported[2], "cpu")
    labels = predictor.predict(volume).array
    values = np.array([0, *predictor.card.label_set.values])[labels]
    assert written.name == "scan_segmentation.nii.gz" and found.shape == values.shape
    assert (found == values).mean() > 0.99


def test_a_bundle_names_all_that_monai_needs_and_its_command(exported):
    """MONAI reads NIfTI with nibabel and NRRD with pynrrd, and its command needs fire."""
    text = (exported[2] / "configs" / "metadata.json").read_text(encoding="utf-8")
    listed = json.loads(text)["required_packages_version"]
    assert listed.keys() == {"nibabel", "pynrrd", "fire"}
    assert tuple(map(int, listed["nibabel"].split("."))) >= (5, 3), "older ones need NumPy 1"
    words = (exported[2] / "docs" / "README.md").read_text(encoding="utf-8")
    assert "python -m monai.bundle run --config_file configs/inference.json" in words
    cleaning = bundle_metadata(make_card(largest_component=["a"]))
    assert cleaning["required_packages_version"].keys() - listed.keys() == {"scikit-image"}


def test_each_export_looks_at_the_scales_of_its_card(tmp_path):
    pytest.importorskip("nibabel", reason="MONAI's Orientation needs nibabel")
    volume = make_volume(7)
    card = make_card(scales=(0.8, 1.0, 1.2))
    path = export_torchscript(make_net(), card, tmp_path)
    labels = Predictor.load(path, "cpu").predict(volume).array
    once = Predictor(make_net(), make_card()).predict(volume).array
    assert (labels != once).mean() > 0.01, "looking thrice changes nothing"
    bundle = export_bundle(make_net(), card, tmp_path)
    assert (Predictor.load(bundle, "cpu").predict(volume).array == labels).mean() > 0.999
    _, found = run_in_monai(bundle, volume, tmp_path)
    assert (found == np.array([0, *card.label_set.values])[labels]).mean() > 0.99
    words = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "averaged over 0.8, 1, 1.2 times the resolution" in words


def pieces(labels, channels):
    """Number of components of each channel."""
    return [ndimage.label(labels == channel)[1] for channel in channels]


def test_each_export_keeps_the_largest_component_of_the_labels_named(exported, tmp_path):
    volume = make_volume(7)
    whole = Predictor.load(exported[0], "cpu").predict(volume).array
    first, second = pieces(whole, (1, 2))
    assert first > 1 and second > 1, "nothing to clean"
    card = make_card(largest_component=["a"])
    exports = [f(make_net(), card, tmp_path) for f in (export_torchscript, export_onnx)]
    exports.append(export_bundle(make_net(), card, tmp_path))
    for path in exports:
        labels = Predictor.load(path, "cpu").predict(volume).array
        assert pieces(labels, (1,)) == [1]
        assert ((labels == 2) != (whole == 2)).mean() < 1e-4
        assert not labels[(whole == 0)].any()
    words = (exports[2] / "docs" / "README.md").read_text(encoding="utf-8")
    assert "only the largest component is kept: a." in words


def test_bundle_keeps_the_largest_component_in_monai(tmp_path):
    for package in ("nibabel", "skimage"):
        pytest.importorskip(package, reason="MONAI's transforms need it")
    bundle = export_bundle(make_net(), make_card(largest_component=["b"]), tmp_path)
    _, found = run_in_monai(bundle, make_volume(7), tmp_path)
    first, second = pieces(found, (3, 700))
    assert first > 1 and second == 1
