"""``samsemiseg predict`` and ``methods``, as a user meets them."""

import errno
import json

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from test_export import make_card, make_net, make_volume
from typer.testing import CliRunner

from SAMSemiSegLib.command.methods import methods
from SAMSemiSegLib.command.predict import _show as show
from SAMSemiSegLib.command.predict import predict
from SAMSemiSegLib.command.settings import settings
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.export.torchscript import export_torchscript
from SAMSemiSegLib.training import memory
from SAMSemiSegLib.volumes import reading
from SAMSemiSegLib.volumes.reading import read_image


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export_torchscript(make_net(), make_card(), tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def held(monkeypatch):
    """Calls of the limit on memory, which would stay on the process of the tests."""
    calls = []
    monkeypatch.setattr(memory, "hold_to_free_memory", lambda: calls.append(1))
    return calls


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "Herz ä 1.nii.gz"
    sitk.WriteImage(make_volume(3).to_sitk(), str(path))
    return path


def _invoke(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_writes_beside_the_scan_on_its_grid(model, scan, held):
    before = scan.read_bytes()
    result = _invoke(predict, model, scan, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert held == [1]  # too little memory ends in a sentence, as in training
    (row,) = json.loads(result.stdout)["results"]
    written = sitk.ReadImage(row["output"])
    source = sitk.ReadImage(str(scan))
    assert row["output"].endswith("Herz ä 1.seg.nrrd")
    assert "SAMSemiSeg.PredictedVoxels:" in written.GetMetaData("Segment0_Tags")
    assert written.GetSize() == source.GetSize()
    np.testing.assert_allclose(written.GetDirection(), source.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-5)
    array = sitk.GetArrayFromImage(written)
    assert set(np.unique(array)) <= {0, 3, 700}
    voxel = np.prod(source.GetSpacing()) / 1000
    assert row["milliliters"]["a"] == pytest.approx((array == 3).sum() * voxel, abs=1e-3)
    assert scan.read_bytes() == before


def test_a_bad_scan_is_named_and_the_others_are_done(model, scan, tmp_path):
    bad = tmp_path / "bad.nrrd"
    bad.write_text("no image")
    folder = tmp_path / "results"
    arguments = (model, bad, scan, "-o", folder, "--format", "nii.gz", "--device", "cpu")
    result = _invoke(predict, *arguments)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()  # not broken into lines, no bar
    assert "bad.nrrd" in sentence and "Traceback" not in result.output
    assert [p.name for p in folder.iterdir()] == ["Herz ä 1_segmentation.nii.gz"]


def test_a_scan_too_large_for_the_memory_is_named_and_the_others_are_done(
    model, scan, tmp_path, monkeypatch
):
    large = tmp_path / "large.nii.gz"
    large.write_bytes(scan.read_bytes())

    def read(path):
        if path == large:
            raise MemoryError
        return read_image(path)

    monkeypatch.setattr(reading, "read_image", read)
    folder = tmp_path / "results"
    result = _invoke(predict, model, large, scan, "-o", folder, "--device", "cpu", "--json")
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert "not enough memory: 'large.nii.gz' is too large" in sentence
    failed, done = json.loads(result.stdout)["results"]
    assert failed["error"] == sentence and failed["output"] is None
    assert [str(path) for path in folder.iterdir()] == [done["output"]]


def test_no_result_takes_the_place_of_a_scan_or_another_result(model, tmp_path):
    scans = [tmp_path / "x.seg.nrrd", tmp_path / "x.nrrd", tmp_path / "x.mha"]
    for arguments in ([scans[0]], scans[1:]):
        result = _invoke(predict, model, *arguments)
        assert isinstance(result.exception, InputError)


def test_an_experts_segmentation_is_replaced_only_on_request(model, scan):
    expert = scan.with_name("Herz ä 1.seg.nrrd")
    expert.write_text("drawn by hand")
    refused = _invoke(predict, model, scan, "--device", "cpu")
    assert isinstance(refused.exception, InputError) and "--overwrite" in str(refused.exception)
    assert expert.read_text() == "drawn by hand"
    assert _invoke(predict, model, scan, "--overwrite", "--device", "cpu").exit_code == 0
    assert expert.read_bytes().startswith(b"NRRD")


@pytest.mark.parametrize("place", ["a file", "in a file", "read only"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_predicted(
    model, scan, tmp_path, monkeypatch, place
):
    def forbid(*_, dir, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr("SAMSemiSegLib.command.predict.segment", lambda *_: pytest.fail("late"))
    folder = tmp_path / "results"
    if place == "read only":  # root may write anywhere
        monkeypatch.setattr("tempfile.TemporaryFile", forbid)
    else:
        folder.write_text("no folder")
        folder = folder if place == "a file" else folder / "new"
    result = _invoke(predict, model, scan, "-o", folder, "--device", "cpu")
    assert isinstance(result.exception, InputError)
    told = str(result.exception)
    assert f"cannot be written to '{folder}'" in told and told.endswith("with --output.")


def test_no_folder_is_made_where_a_scan_is_missing(model, tmp_path):
    result = _invoke(predict, model, tmp_path / "no" / "scan.nii.gz", "--device", "cpu")
    assert result.exit_code == 2 and "There is no file" in result.stderr
    assert not (tmp_path / "no").exists()


def test_methods_lists_all_three_registries():
    found = json.loads(_invoke(methods, "--json").stdout)
    assert "supervised" in [entry["name"] for entry in found["ssl"]]
    assert "lora" in [entry["name"] for entry in found["finetuning"]]
    assert "lite_medsam" in [entry["name"] for entry in found["foundation"]]
    for entries in found.values():
        assert all(entry["title"] and entry["source"] for entry in entries)
    lora = next(entry for entry in found["finetuning"] if entry["name"] == "lora")
    assert lora["options"]["rank"] == 4
    shown = _invoke(methods)
    assert shown.exit_code == 0 and "Mean Teacher" in shown.stdout


def test_a_table_of_many_labels_has_a_line_for_each(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"a label of its own {number}" for number in range(13)]
    output = "/a/folder/of/its/own/with/a/long/name/" + "x" * 60 + "/scan.seg.nrrd"
    milliliters = {name: 1234.5 for name in names}
    show([{"image": "scan.nrrd", "output": output, "milliliters": milliliters}], names, False)
    told = capsys.readouterr().out
    assert told.count("1234.50") == 13 and output in told


def test_a_folder_of_images_is_called_so(model, scan):
    with pytest.raises(InputError, match="is a folder of images; name the files"):
        predict(model, [scan.parent])


def test_settings_are_listed_with_what_they_mean():
    result = _invoke(settings, "retraining.pseudo", "--preset", "quick")
    assert result.exit_code == 0 and "retraining.pseudo_label_mode" in result.output
    assert "finetuning" not in result.output
    listed = json.loads(_invoke(settings, "--json").output)
    assert listed["retraining.selection.threshold"] == 0.985
    assert listed["finetuning.strategy"] == "box"
