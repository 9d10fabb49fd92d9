"""The project file, its review decisions, and the command that shows it."""

import json
import shutil
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from SAMSemiSegLib.command.project import app
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.stage import prepare
from SAMSemiSegLib.project import review
from SAMSemiSegLib.project.case import Case, case_id, matching_stem
from SAMSemiSegLib.project.importing import add_case, import_cases
from SAMSemiSegLib.project.label_set import Label, LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator


@pytest.fixture
def project(tmp_path, write_phantom_set) -> Project:
    """Six phantoms, two of them labeled, one for evaluation."""
    images, labels = write_phantom_set(tmp_path / "scans", 6)
    project = Project.create(tmp_path / "my project ü", LabelSet.of(["anterior", "posterior"]))
    import_cases(project, images, labels, labeled=2, evaluate=1)
    return project


def proposal_of(project: Project, case_id: str, tmp_path: Path) -> Path:
    """A file like those that a run leaves for review, on the grid of the case."""
    path = project.folder / "runs" / "a" / "proposals" / f"{case_id}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "scans" / "labels" / path.name, path)
    return path


def test_label_sets_are_parsed_and_checked():
    labels = LabelSet.parse("anterior=3:#ff0080, posterior")
    assert labels.values == [3, 4] and labels.names == ["anterior", "posterior"]
    assert labels.colors[0] == (255, 0, 128) and labels.channels == 3
    for wrong in ("a=0", "a=x", "a:#12", "=3", "a,a", "a=1,b=1"):
        with pytest.raises(InputError, match="label"):
            LabelSet.parse(wrong)
    with pytest.raises(ValidationError, match="value 1"):
        LabelSet(labels=[Label(value=1, name=n, color=(0, 0, 0)) for n in "ab"])


def test_ids_are_file_names_and_unlike_each_other():
    assert case_id("Herz 1_0000.nii.gz") == "Herz_1"
    assert case_id("肝.seg.nrrd", {"肝"}) == "肝_2"
    assert case_id("...") == "case"
    for name in ("la_7_0000.nii.gz", "la_7.seg.nrrd", "LA_7-label.nrrd", "la_7_gt.mha", "la_7"):
        assert matching_stem(name) == "la_7"
    # nnU-Net's first channel is _0000; other numbers tell patients apart.
    assert len({matching_stem(f"case_{i:04}.nrrd") for i in range(3)}) == 3
    with pytest.raises(ValidationError):
        Case(id="../up", image="a.nrrd")


def test_ids_differ_by_more_than_capitals_since_windows_and_macos_give_both_one_folder(
    project, tmp_path, write_phantom_set
):
    assert case_id("t1.nrrd", {"T1", "t1_2"}) == "t1_3"
    images, _ = write_phantom_set(tmp_path / "more", 2, seed=9)
    first, second = (i.rename(images / i.name.upper()) for i in sorted(images.iterdir()))
    assert add_case(project, first).id == "PHANTOM_001_2"
    with pytest.raises(InputError, match=r"'PHANTOM_003' is taken .*--id"):
        add_case(project, second, name="PHANTOM_003")


def test_a_project_that_has_such_ids_already_still_opens(tmp_path):
    project = Project.create(tmp_path)
    project.cases = [Case(id=id, image=f"{id}.nrrd") for id in ("T1", "t1")]
    project.save()
    assert Project.load(tmp_path) == project


def test_a_project_is_saved_and_loaded_whole(project):
    again = Project.load(project.folder)
    assert again == project and again.folder == project.folder
    assert [len(x) for x in (again.labeled, again.unlabeled, again.evaluation)] == [2, 3, 1]
    held_out = again.evaluation[0]
    assert held_out.label is None and held_out.reference is not None
    assert all(case.reference is None for case in again.unlabeled)
    inside = project.folder / "labels" / "a.nrrd"
    assert project.stored(inside) == "labels/a.nrrd" and project.path("labels/a.nrrd") == inside
    with pytest.raises(InputError, match="already a project"):
        Project.create(project.folder)
    with pytest.raises(InputError, match="no case 'x'"):
        project.case("x")


def test_a_damaged_project_file_is_named_with_a_way_out(project):
    path = project.folder / "project.json"
    project.save()
    whole = path.read_text(encoding="utf-8")

    def refused(text: str) -> str:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as error:
            Project.load(project.folder)
        assert "project.json" in str(error.value) and "\n" not in str(error.value)
        return str(error.value)

    sentence = refused(whole[: len(whole) // 2])
    assert "damaged" in sentence and "project.json.bak" in sentence
    assert "update the program" in refused(whole.replace('"version": 1', '"version": 2'))
    assert "cases.0.status" in refused(whole.replace('"labeled"', '"lost"', 1))
    assert "two cases" in refused(whole.replace("phantom_002", "phantom_001"))

    (project.folder / "project.json.bak").replace(path)
    assert Project.load(project.folder) == project
    path.unlink()
    with pytest.raises(InputError, match="project create"):
        Project.load(project.folder)


def test_a_thousand_cases_load_at_once(tmp_path):
    project = Project.create(tmp_path, LabelSet.of(["organ"]))
    project.cases = [Case(id=f"case_{i}", image=f"images/{i}.nii.gz") for i in range(1000)]
    project.save()
    start = time.process_time()  # others may be at work on the same cores
    assert len(Project.load(tmp_path).unlabeled) == 1000
    assert time.process_time() - start < 0.5


def test_review_from_offer_to_undo_over_a_restart(project, tmp_path):
    first, second, third = (case.id for case in project.unlabeled)
    files = {case.id: proposal_of(project, case.id, tmp_path) for case in project.unlabeled}
    assert review.next_case(project) is None
    assert review.offer(project, first, files[first], 0.9)
    assert review.offer(project, second, files[second], 0.4)
    assert review.offer(project, third, files[third], 0.7)
    assert not review.offer(project, project.labeled[0].id, files[first], 1.0)
    case, why = review.next_case(project) or pytest.fail("nothing to review")
    assert case.id == second and "0.400" in why and "3 left" in why
    shown = [
        CliRunner().invoke(app, ["status", str(project.folder), *option]).stdout
        for option in ([], ["--json"])
    ]
    assert f"Next to review in 3D Slicer (SAMSemiSeg, section Review): {why}" in shown[0]
    assert json.loads(shown[1])["next_to_review"] == second

    before = Project.load(project.folder).cases
    review.accept(project, second)
    assert second in [case.id for case in project.labeled]
    label = tmp_path / "scans" / "labels" / f"{third}.nii.gz"
    corrected = review.correct(project, third, label)
    assert corrected.origin == "corrected" and project.path(corrected.label or "").is_file()
    assert project.folder in project.path(corrected.label or "").parents
    review.reject(project, first)
    assert [case.id for case in project.unlabeled] == [first]
    assert project.case(first).status == "rejected" and project.case(first).label is None
    assert review.next_case(project) is None
    with pytest.raises(InputError, match="no pseudo-label"):
        review.accept(project, first)

    project = Project.load(project.folder)
    assert review.undo(project).id == first
    assert review.undo(project).id == third
    assert review.undo(project).id == second
    assert Project.load(project.folder).cases == before
    with pytest.raises(InputError, match="no decision"):
        review.undo(project)


def test_a_correction_that_does_not_fit_changes_nothing(project, tmp_path, write_phantom_set):
    _, labels = write_phantom_set(tmp_path / "other", 1, shape=(20, 30, 20))
    case = project.unlabeled[0]
    with pytest.raises(InputError, match="another patient"):
        review.correct(project, case.id, labels / "phantom_001.nii.gz")
    assert Project.load(project.folder).case(case.id) == case


def test_the_command_creates_imports_adds_and_shows(tmp_path, write_phantom_set):
    images, labels = write_phantom_set(tmp_path / "scans", 31)
    extra, extra_labels = write_phantom_set(tmp_path / "more", 1, seed=9)
    folder = str(tmp_path / "p")
    names = tmp_path / "first.txt"
    names.write_text("phantom_001\nphantom_003\n")

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    made = json.loads(call("create", folder, "--labels", "front=1:#ff0000,back", "--json"))
    assert [label["name"] for label in made["labels"]] == ["front", "back"]
    done = json.loads(
        call(
            "import", folder, "--images", images, "--labels", labels, "--labeled", names,
            "--evaluate", 3, "--keep-references", "--json",
        )
    )  # fmt: skip
    assert (done["labeled"], done["unlabeled"], done["evaluation"]) == (2, 26, 3)
    assert done["references"] == 29
    added = call(
        "add", folder, extra / "phantom_001.nii.gz", "--label", extra_labels / "phantom_001.nii.gz",
        "--id", "extra", "--copy",
    )  # fmt: skip
    assert "'extra'" in added
    shown = json.loads(call("status", folder, "--json"))
    assert shown["count"] == 32 and shown["use"]["labeled"] == 3
    assert shown["cases"][-1]["image"] == "images/extra.nii.gz"
    table = call("status", folder)
    assert "phantom_001" in table and "phantom_031" not in table and "7 cases more" in table
    assert "phantom_031" in call("status", folder, "--all")
    with pytest.raises(InputError, match="more cases"):
        call("import", folder, "--images", extra, "--labeled", 5)


def test_names_in_brackets_are_printed_as_they_are(tmp_path):
    folder = tmp_path / "study[/old]"
    Project.create(folder, LabelSet.parse("[red]=1,B"))
    shown = CliRunner().invoke(app, ["status", str(folder)])
    assert shown.exit_code == 0 and "[red] = 1" in shown.output


def test_undo_brings_no_older_proposal_back_over_a_newer_one(project):
    first = project.unlabeled[0].id
    review.offer(project, first, project.folder / "run-1.nii.gz", 0.5)
    review.reject(project, first)
    review.offer(project, first, project.folder / "run-2.nii.gz", 0.6)
    with pytest.raises(InputError, match="no decision"):
        review.undo(project)
    assert project.case(first).label == "run-2.nii.gz"


def test_a_change_keeps_what_another_process_has_changed_since(project):
    stale = Project.load(project.folder)
    first, second, third = (case.id for case in project.unlabeled)
    review.offer(project, first, project.folder / "run-1.nii.gz", 0.5)
    review.offer(stale, second, project.folder / "run-1.nii.gz", 0.5)
    assert {case.status for case in stale.unlabeled} == {"pseudo", "unlabeled"}
    assert stale.case(first).status == "pseudo"
    with stale.saved():
        stale.cases[:] = [case for case in stale.cases if case.id != third]
    with pytest.raises(InputError, match="no case"), project.saved():
        project.replace(Case(id=third, image="x.nii.gz"))
    assert Project.load(project.folder) == stale and project.case(third)


def test_paths_that_begin_alike_are_told_apart(tmp_path):
    project = Project.create(tmp_path)
    project.cases = [Case(id=f"case_{i}", image=f"scan{i}") for i in (1, 10)]
    told = project.without_paths(f"'{tmp_path / 'scan10'}' is empty.")
    assert told == "'case_10 (image)' is empty."


def test_a_project_file_that_an_editor_has_marked_as_unicode_opens(project):
    path = project.folder / "project.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Project.load(project.folder) == project


def test_a_decision_about_what_was_changed_meanwhile_is_not_made(project, tmp_path):
    first = project.unlabeled[0].id
    review.offer(project, first, proposal_of(project, first, tmp_path), 0.5)
    stale = Project.load(project.folder)
    review.offer(project, first, project.folder / "run-2.nii.gz", 0.6)
    with pytest.raises(InputError, match="changed meanwhile"):
        review.accept(stale, first)
    assert Project.load(project.folder).case(first) == project.case(first)
    assert not list((project.folder / "labels").iterdir())


def test_accepted_labels_outlive_their_run(project, tmp_path):
    first, second, third = (case.id for case in project.unlabeled)
    for id in (first, second, third):
        review.offer(project, id, proposal_of(project, id, tmp_path), 0.5)
    accepted = review.accept(project, first)
    shutil.rmtree(project.folder / "runs")
    assert (accepted.status, accepted.origin) == ("accepted", "pseudo")
    assert accepted.label == f"labels/{first}-accepted-1.nii.gz"
    settings = PreprocessingSettings()
    context = Context(make_accelerator("cpu", "no"), Events(None, ()), Cancellation(tmp_path / "c"))
    _, cases = prepare(project, settings, tmp_path / "preprocessed", context)
    assert first in [case.id for case in cases if case.part == "labeled"]
    assert {second, third} <= {case.id for case in cases if case.part == "unlabeled"}


def test_pseudo_labels_that_are_gone_with_their_run_wait_for_no_review(project, tmp_path):
    first, second, third = (case.id for case in project.unlabeled)
    for id in (first, second, third):
        review.offer(project, id, proposal_of(project, id, tmp_path), 0.5)
    project.path(project.case(first).label).unlink()
    assert review.next_case(project)[0].id == second and "2 left" in review.next_case(project)[1]
    with pytest.raises(InputError, match=f"'{first}' is gone with its run; train again"):
        review.accept(project, first)
    shutil.rmtree(project.folder / "runs")
    assert review.next_case(project) is None
    assert review.reject(project, first).label is None


def test_an_accepted_label_that_undo_has_left_behind_is_never_another_ones(project, tmp_path):
    first = project.unlabeled[0].id
    proposal = proposal_of(project, first, tmp_path)
    review.offer(project, first, proposal, 0.5)
    offered = project.case(first)
    review.accept(project, first)
    assert review.undo(project) == offered == project.case(first)
    assert project.path(offered.label) == proposal
    proposal.write_bytes(b"of a later run")
    again = review.accept(project, first)
    assert again.label == f"labels/{first}-accepted-2.nii.gz"
    assert project.path(again.label).read_bytes() == b"of a later run"
