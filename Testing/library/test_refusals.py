"""What cannot be done is refused in one sentence, before a run has left anything behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk

from SAMSemiSegLib.command.demo import demo
from SAMSemiSegLib.command.train import train
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.stage import prepare
from SAMSemiSegLib.project.importing import add_case
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.checks import check_before_start
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import PreprocessingSettings, RunSettings
from SAMSemiSegLib.run.start import start
from SAMSemiSegLib.run.state import run_states
from SAMSemiSegLib.training import devices
from SAMSemiSegLib.training.context import Context

PhantomSet = Callable[..., tuple[Path, Path]]
MakeProject = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path, phantom_project: MakeProject) -> Project:
    return phantom_project(tmp_path, 2, 1, seed=1)


def command(
    project: Project,
    run: str,
    preset: str = "tiny",
    *assignments: str,
    device: str = "",
    seed: int | None = None,
    resume: bool = False,
) -> None:
    train(project.folder, preset, list(assignments), run, device, seed, resume, False, False)


@pytest.mark.parametrize(
    "assignment, named",
    [
        ("retraining.method=nope", "nope"),
        ("finetuning.strategy=nope", "nope"),
        ("foundation.name=nope", "nope"),
        ("retraining.warm_start.method=nope", "nope"),
        ("retraining.warm_start.method=magicnet", r"MagicNet.*batch norm.*net\.norm to instance"),
        ("foundation.weights=nope.pth", "nope.pth"),
        # Without the package `sam2` that is what is said.
        ("foundation.name=medsam2", r"foundation\.weights|samsemiseg\[sam2\]"),
        ("retraining.options.nope=1", "retraining.options.nope"),
        ("finetuning.options.rank=-3", "finetuning.options.rank"),
        ("retraining.patch=[40,32,32]", "retraining.patch.*multiple of 16"),
        ("preprocessing.intensity=window", "preprocessing.window"),
        ('pseudolabels.fill_holes=["body"]', "pseudolabels.fill_holes names 'body'.*head, tail"),
        ('retraining.largest_component=["body"]', "retraining.largest_component names 'body'"),
    ],
)
def test_a_name_that_is_not_there_costs_no_run(
    project: Project, assignment: str, named: str
) -> None:
    settings = load_settings("tiny", [assignment])
    with pytest.raises(InputError, match=named) as error:
        start(project, RunFolder(project.folder / "runs" / "a"), settings)
    assert "\n" not in str(error.value)
    assert not (project.folder / "runs").exists()


def test_labels_that_no_stage_makes_cost_no_run(project: Project) -> None:
    choices = ["retraining.method=bcp", "retraining.options.target=pseudo_label"]
    check_before_start(project, load_settings("tiny", choices))
    settings = load_settings("tiny", [*choices, "retraining.pseudo_label_mode=off"])
    with pytest.raises(InputError, match="target=pseudo_label needs pseudo-labels"):
        check_before_start(project, settings)


@pytest.mark.parametrize("setting", ["pseudolabels.prototype_agreement", "pseudolabels.flips"])
def test_what_boxes_do_not_have_costs_no_run(setting: str, project: Project) -> None:
    """Features of a canvas, and predictions of mirrored ones."""
    settings = load_settings("quick", [f"{setting}=true"])
    with pytest.raises(InputError, match=f"{setting} does not work with Boxes"):
        check_before_start(project, settings)


def test_prototypes_cost_no_run_where_labels_are_made_in_training(project: Project) -> None:
    online = ["retraining.pseudo_label_mode=selected", "retraining.selection.alternation=online"]
    settings = load_settings("tiny", ["pseudolabels.prototype_agreement=true", *online])
    with pytest.raises(InputError, match="alternation=online"):
        check_before_start(project, settings)


def test_a_project_without_label_costs_no_run(tmp_path: Path, phantom_project: MakeProject) -> None:
    project = phantom_project(tmp_path, 1, with_labels=False)
    with pytest.raises(InputError, match="label at least one"):
        check_before_start(project, load_settings("tiny"))


@pytest.mark.parametrize(
    "assignment, sentence",
    [
        ("foo.bar=1", "no setting 'foo'; those there are: checkpoint_minutes"),
        ("finetuning.stratgy=lora", "no setting 'finetuning.stratgy'.* strategy"),
        ("supervised_budget.foo=1", "no setting 'supervised_budget.foo'.* minutes, steps"),
        ("retraining.metod=acmt", "did you mean 'method'"),
        ("pseudolabels.vnet_share=0.5", "These settings cannot be used: pseudolabels.vnet_share"),
        ("retraining.budget.steps=abc", "'retraining.budget.steps' cannot be used"),
        ("nokey", "key=value"),
        ("retraining.learning_rate=NaN", "'retraining.learning_rate' cannot be used"),
        ("finetuning.learning_rate=-1", "'finetuning.learning_rate' cannot be used"),
        ("retraining.weight_decay=-5", "'retraining.weight_decay' cannot be used"),
    ],
)
def test_a_setting_that_is_not_there_is_told_with_those_that_are(
    assignment: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        load_settings("tiny", [assignment])


@pytest.mark.usefixtures("run_here")
def test_the_log_of_an_unexpected_end_names_no_file_of_a_case(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = project.path(project.labeled[0].image)

    def fail(pipeline: object) -> None:
        raise RuntimeError(f"something about {scan}")

    monkeypatch.setattr("SAMSemiSegLib.run.start.Pipeline.run", fail)
    folder = RunFolder(project.folder / "runs" / "a")
    with pytest.raises(RuntimeError):
        start(project, folder, load_settings("tiny"))
    written = (folder / "log.txt").read_text(encoding="utf-8")
    assert f"RuntimeError: something about {project.labeled[0].id} (image)" in written
    assert "Traceback" in written and str(scan) not in written


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../a", "a.", "a ", ".a"])
def test_a_run_stays_in_its_folder(project: Project, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a run"):
        command(project, name)


@pytest.mark.parametrize("text", ['{"a":', '{"foo": 1}', "[1]", b"\xff\xfe"])
def test_damaged_settings_of_a_run_are_told_on_resume_and_hide_no_other_run(
    project: Project, text: str | bytes
) -> None:
    folder = RunFolder(project.folder / "runs" / "a")
    folder.create(load_settings("tiny"))
    RunFolder(project.folder / "runs" / "b").create(load_settings("quick"))
    folder.config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"config\.json' cannot be read") as error:
        folder.settings()
    assert "validation error" not in str(error.value) and "\n" not in str(error.value)
    assert [(run.name, run.preset) for run in run_states(project.folder)] == [
        ("a", ""),
        ("b", "quick"),
    ]


@pytest.fixture
def started(project: Project) -> RunFolder:
    """A run of the tiny preset with two settings of its own."""
    folder = RunFolder(project.folder / "runs" / "a")
    own = ["retraining.budget.steps=7", "retraining.warm_start.steps=3"]
    folder.create(load_settings("tiny", own, seed=5))
    return folder


@pytest.mark.parametrize(
    "preset, assignments, seed",
    [
        ("", ["retraining.budget.steps=8"], None),
        ("", ["supervised_budget.steps=8"], None),
        ("quick", [], None),
        ("", [], 6),
    ],
)
def test_a_resumed_run_takes_no_other_settings(
    project: Project, started: RunFolder, preset: str, assignments: list[str], seed: int | None
) -> None:
    before = started.config.read_bytes()
    with pytest.raises(InputError, match="'a' goes on with the settings it was started") as error:
        command(project, "a", preset, *assignments, seed=seed, resume=True)
    assert str(error.value).count(". ") == 0 and error.value.exit_code == 2
    assert started.config.read_bytes() == before
    with pytest.raises(InputError, match="no setting 'foo'"):
        command(project, "a", "", "foo=1", resume=True)


def test_a_resumed_run_takes_the_same_command_and_another_device(
    project: Project, started: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def note(project: Project, folder: RunFolder, settings: RunSettings, *_: object) -> None:
        given.append(settings)

    monkeypatch.setattr("SAMSemiSegLib.run.start.start", note)
    own = ("retraining.warm_start.steps=3", 'retraining.budget={"steps": 7}')
    command(project, "a", "tiny", *own, seed=5, device="cpu", resume=True)
    command(project, "a", "", resume=True)
    kept = started.settings()
    assert given == [kept.model_copy(update={"device": "cpu"}), kept]


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda:1", "cuda:abc", "cpu:0", "tpu"):
        with pytest.raises(InputError, match=f"no device '{device}'"):
            devices.make_accelerator(device)
    assert str(devices.choose_device("cuda:0")) == "cuda:0"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        with pytest.raises(InputError, match="not available"):
            devices.make_accelerator(device)


def test_corrupt_project_file_is_one_sentence(project: Project) -> None:
    file = project.folder / "project.json"
    for text in (b'{"a":', b"[]", b'{"version": 2}', b"", b"\xff\xfe\x00"):
        file.write_bytes(text)
        with pytest.raises(InputError, match=r"project\.json'") as error:
            command(project, "a")
        assert "\n" not in str(error.value)
    file.write_text(json.dumps({"version": 1, "name": "x", "label_set": {"labels": []}}))
    assert Project.load(project.folder).cases == []


def test_the_demo_prints_only_json_when_asked(
    hippocampus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SAMSEMISEG_DATA", str(hippocampus_folder.parent))
    monkeypatch.setattr("SAMSemiSegLib.command.train.train", lambda *_, as_json, **__: print("{}"))
    demo(tmp_path, "tiny", [], True)
    said = capsys.readouterr()
    assert said.out == "{}\n" and "CC BY-SA" in said.err
    assert len(Project.load(tmp_path / "project").labeled) == 4


@pytest.mark.usefixtures("run_here")
def test_what_a_run_writes_down_holds_no_path_of_a_scan(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path may name a patient, and what is printed is kept in a file by the panel."""
    monkeypatch.setattr("SAMSemiSegLib.run.cancellation.Cancellation.start", lambda _: None)
    project.path(project.labeled[0].image).write_text("no image")
    project.path(project.unlabeled[0].image).write_text("no image")
    folder = RunFolder(project.folder / "runs" / "a")
    case = project.labeled[0]
    with pytest.raises(InputError, match=rf"'{case.id} \(image\)' is not an image") as refused:
        start(project, folder, load_settings("tiny", device="cpu"))
    assert str(Path(case.image).parent) not in str(refused.value)
    for name in ("log.txt", "events.jsonl"):
        written = (folder / name).read_text(encoding="utf-8")
        assert f"'{case.id} (image)' is not an image" in written
        assert str(Path(case.image).parent) not in written


def told_by_preprocessing(project: Project, folder: Path) -> str:
    """All messages of the stage."""
    events: list[str] = []
    stage = Events(None, (lambda event: events.append(event.get("message", "")),))
    context = Context(devices.make_accelerator("cpu"), stage, Cancellation(folder / "cancel"))
    prepare(project, PreprocessingSettings(), folder / "preprocessed", context)
    return " ".join(events)


def test_a_resampled_label_is_said_in_a_run_without_its_file_name(
    tmp_path: Path, write_phantom_set: PhantomSet
) -> None:
    images, labels = write_phantom_set(tmp_path / "scans", 1)
    image, label = next(images.iterdir()), next(labels.iterdir())
    whole = sitk.ReadImage(str(label))
    coarse = sitk.Shrink(whole, [2, 2, 1])
    sitk.WriteImage(coarse, str(tmp_path / "Mustermann.nrrd"))
    project = Project.create(tmp_path / "project", LabelSet.parse("head=1,tail=2"))
    case = add_case(project, image, tmp_path / "Mustermann.nrrd")
    assert case.note is not None and "resampled" in case.note
    said = told_by_preprocessing(project, tmp_path)
    assert f"{case.id}: The label lies on another grid" in said and "Mustermann" not in said


def test_a_negative_seed_is_one_sentence() -> None:
    with pytest.raises(InputError, match="'seed' cannot be used"):
        load_settings("tiny", seed=-1)


def test_overlapping_segments_are_told_without_their_file_name(
    project: Project, tmp_path: Path
) -> None:
    case = project.labeled[0]
    image = sitk.ReadImage(str(project.path(case.image)))
    layers = sitk.Compose(*[sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1] * 2)
    layers.CopyInformation(image)
    for layer, name in enumerate(("head", "tail")):
        for key, value in {
            "ID": name, "Name": name, "LabelValue": "1", "Layer": f"{layer}", "Color": "1 0 0",
        }.items():  # fmt: skip
            layers.SetMetaData(f"Segment{layer}_{key}", value)
    path = tmp_path / "Mustermann.seg.nrrd"
    sitk.WriteImage(layers, str(path))
    project.replace(case.model_copy(update={"label": str(path)}))
    said = told_by_preprocessing(project, tmp_path)
    assert f"{case.id}: The segments of the label overlap" in said and "Mustermann" not in said


def test_a_long_list_of_names_is_no_path() -> None:
    from SAMSemiSegLib.command.project import _number_or_names

    names = [f"a_case_with_a_name_of_its_own_{i}" for i in range(200)]
    assert _number_or_names(",".join(names), "--labeled") == names
