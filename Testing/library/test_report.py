"""The report of a small made-up run."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.pseudolabels.confidence import voxel_confidence
from SAMSemiSegLib.pseudolabels.picture import draw_pseudo_label
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.report.figures import (
    confidence_figure,
    curve_figure,
    dot_figure,
    histogram_figure,
)
from SAMSemiSegLib.report.report import write_report
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.settings import RunSettings


def make_run(folder, cases=4):
    """A run folder with events, scores of noisy balls, pseudo-labels and settings."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"))
    distance = np.linalg.norm(grid - 9.5, axis=0)
    reference = np.where(distance < 4, 2, np.where(distance < 7, 1, 0)).astype(np.uint8)
    (folder / "pseudolabels").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    settings = RunSettings.model_validate({"retraining": {"method": "mean_teacher"}, "seed": 7})
    settings.foundation.weights = "/home/Jane Doe/weights.safetensors"
    (folder / "config.json").write_text(settings.model_dump_json())
    (folder / "versions.json").write_text(json.dumps({"python": "3.12.1", "torch": "2.9"}))
    scores, pseudo_scores = Scores(), {}
    for index in range(cases):
        case = f"case <{index}> & ä"
        for row, noise in (("supervised", 3.0), ("pseudo-labels", 2.0), ("re-trained", 1.0)):
            shift = distance + noise * generator.normal() * 0.6
            found = np.where(shift < 4, 2, np.where(shift < 7, 1, 0))
            scores.add(row, case, compare_labels(found, reference, ["rim", "core"], (1, 1, 1)))
        soft = np.exp(-np.abs(distance - np.array([9, 5.5, 2])[:, None, None, None]))
        soft /= soft.sum(0)
        pseudo = PseudoLabel.of(soft, voxel_confidence(soft), 0.2 + 0.6 * index / cases)
        image = reference + generator.normal(size=reference.shape)
        name = f"id{index}"
        picture = folder / "pseudolabels" / f"{name}.png"
        if index < 2:
            draw_pseudo_label(image, pseudo, picture, [(230, 80, 60), (60, 160, 230)])
        pseudo_scores[name] = pseudo.score
    scores.to_json(folder / "evaluation" / "scores.json")
    (folder / "pseudolabels" / "scores.json").write_text(json.dumps(pseudo_scores))
    events = Events(folder / "events.jsonl")
    for stage in ("finetuning", "retraining"):
        events.stage(stage, 60)
        for step in range(1, 61):
            loss = 0.2 + np.exp(-step / 20) + 0.05 * generator.normal()
            values = {"loss": loss, "supervised": 0.7 * loss, "pseudo_label": 0.3 * loss}
            events.progress(step, 60, **values, pseudo_label_weight=1.0)
        events.done()
    events.warning("The case 'x' is left out: '/data/Doe_Jane/scan 1.nrrd' is <constant>.")
    return folder


class _Tags(HTMLParser):
    """Collects addresses, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.names = [], [], []

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "path", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.names.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle", "polyline"):
            assert self.open.pop() == tag


def _parse(path):
    tags = _Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    assert tags.open == []
    return tags


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run <1>")


def test_report_has_every_part_and_needs_nothing_else(run):
    path = write_report(run)
    tags = _parse(path)
    text = path.read_text(encoding="utf-8")
    assert path.name == "report.html"
    assert tags.addresses and all(a.startswith("data:image/") for a in tags.addresses)
    assert "script" not in tags.names and "link" not in tags.names
    for heading in ("Scores", "Notes", "Pseudo-labels", "Training", "Time", "Settings"):
        assert f"<h2>{heading}</h2>" in text
    assert "does not have counts as Dice 1 where none was found" in text
    assert "Dice rim" in text and "On 4 cases" in text and "mean_teacher" in text
    assert text.count("<circle") == 2 * 3 * 4


def test_names_are_escaped_and_folders_left_out(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert "run &lt;1&gt;" in text and "run <1>" not in text
    assert "case &lt;0&gt; &amp; ä" in text and "case <0>" not in text
    assert "Doe" not in text and "scan 1.nrrd" in text and "weights.safetensors" in text
    assert not re.search(r"\b20\d\d-\d\d", text), "no dates"


def test_a_picture_that_a_killed_run_left_half_is_left_out(run):
    half = run / "pseudolabels" / ".4711.id7.png"
    half.write_bytes(next((run / "pseudolabels").glob("[!.]*.png")).read_bytes()[:60])
    assert "id7" not in write_report(run).read_text(encoding="utf-8")
    half.unlink()


@pytest.mark.parametrize("kept", [0, 60])
def test_a_picture_that_cannot_be_read_holds_up_no_report(run, kept):
    damaged = run / "pseudolabels" / "id8.png"
    damaged.write_bytes(next((run / "pseudolabels").glob("[!.]*.png")).read_bytes()[:kept])
    text = write_report(run).read_text(encoding="utf-8")
    assert "Pseudo-label of id0" in text and "Pseudo-label of id8" not in text
    damaged.unlink()


def test_gallery_shows_the_least_trusted_first(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert text.index("Pseudo-label of id0") < text.index("Pseudo-label of id1")


@pytest.mark.parametrize("present", ["config.json", "events.jsonl", "nothing"])
def test_missing_parts_are_left_out(run, tmp_path, present):
    if present != "nothing":
        (tmp_path / present).write_bytes((run / present).read_bytes())
    (tmp_path / "versions.json").write_text("{ cut off")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    _parse(tmp_path / "report.html")
    assert ("<h2>Settings</h2>" in text) == (present == "config.json")
    assert ("<h2>Training</h2>" in text) == (present == "events.jsonl")
    assert "<h2>Scores</h2>" not in text and "not complete" in text


def test_figures_are_well_formed_at_the_edges():
    figures = [
        curve_figure({"loss": {1: 0.0}}, 1),
        curve_figure({"loss": {i: -1e9 * i for i in range(2000)}, "a<b": {1: 2.0}}, 2000),
        dot_figure({"a & b": [("x", 0.0), ("y", 1.0)] * 30, "none": []}),
        histogram_figure([0, 1, 0.05, 0.999]),
    ]
    for figure in figures:
        assert ElementTree.fromstring(figure).tag == "svg"
        assert "nan" not in figure
    assert curve_figure({}, 10) == ""


def _selection(folder, number, confidences):
    decisions = {
        f"case {i} <x>": {
            "confident": value >= 0.985 and i != 2,
            "confidence": value,
            "reason": "The prediction is empty." if i == 2 else f"Confidence {value}.",
            "implausible": i == 2,
        }
        for i, value in enumerate(confidences)
    }
    path = folder / f"round-{number}"
    path.mkdir()
    (path / "selection.json").write_text(json.dumps({**decisions, "damaged": 1}))


def test_selection_of_each_round_is_drawn_with_its_threshold(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    _selection(tmp_path, 2, [0.99, 0.995, 0.999])
    _selection(tmp_path, 1, [0.99, 0.97, 0.999, 0.95])
    text = write_report(tmp_path).read_text(encoding="utf-8")
    _parse(tmp_path / "report.html")
    assert "<h2>Confident volumes</h2>" in text and text.count("threshold 0.985") == 2
    assert text.index("<h3>Round 1</h3>") < text.index("<h3>Round 2</h3>")
    assert "selected: 1" in text and "not confident: 2" in text and "implausible: 1" in text
    assert "case 2 &lt;x&gt;" in text and "The prediction is empty." in text
    assert "In 2 further rounds" in text and "(1, 2 of 4)" in text


@pytest.mark.parametrize("sure, told", [(0.5, "no volume"), (0.999, "all volumes")])
def test_a_round_that_had_nothing_to_do_is_told_for_what_it_is(run, tmp_path, sure, told):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    for number, confident in ((1, [True, False]), (2, [sure > 0.9] * 2)):
        decisions = {
            f"case {i}": {"confident": chosen, "confidence": sure, "reason": "By hand."}
            for i, chosen in enumerate(confident)
        }
        (tmp_path / f"round-{number}").mkdir()
        (tmp_path / f"round-{number}" / "selection.json").write_text(json.dumps(decisions))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "In 1 further round the volumes" in text and "(1 of 2)" in text
    assert f"It was then sure of {told}, so that there was no further round." in text


def test_options_that_are_set_are_told(tmp_path):
    settings = RunSettings.model_validate(
        {"finetuning": {"options": {"rank": 8}}, "supervised_budget": {"minutes": 3}}
    )
    for changed, hint in ((settings, "What differs"), (RunSettings(), "have their defaults")):
        (tmp_path / "config.json").write_text(changed.model_dump_json())
        text = write_report(tmp_path).read_text(encoding="utf-8")
        assert hint in text
        told = text[text.index("<h2>Settings") : text.index("<summary>All settings")]
        for key in ("finetuning.options.rank", "supervised_budget.minutes"):
            assert (key in told) == (changed is settings)
        assert "supervised_budget.steps" not in told  # without effect beside minutes


def test_crops_judged_online_are_drawn_too(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    (tmp_path / "retraining").mkdir()
    _selection(tmp_path, 1, [0.99, 0.97, 0.999, 0.95])
    judged = json.loads((tmp_path / "round-1" / "selection.json").read_text())
    crops = tmp_path / "retraining" / "crops.json"
    crops.write_text(json.dumps(list(judged.values())))
    (tmp_path / "round-1" / "selection.json").unlink()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    _parse(tmp_path / "report.html")
    assert "<h2>Confident crops</h2>" in text and "The last 4 crops" in text
    assert "selected: 1" in text and "not confident: 2" in text and "implausible: 1" in text
    crops.write_text("{")
    assert "Confident" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_confidence_histogram_counts_every_volume_left_and_right_of_the_line():
    groups = {"selected": [0.99, 0.991, 1.0], "not confident": [0.9, 0.98]}
    root = ElementTree.fromstring(confidence_figure(groups, 0.985, "threshold 0.985"))
    line = next(e for e in root if e.get("class") == "mean")
    at = float(re.match(r"M([\d.]+)", line.get("d")).group(1))
    bars = [e for e in root if e.tag == "rect" and e.get("rx") is None]
    unit = 0.0
    for bar in bars:
        middle = float(bar.get("x")) + float(bar.get("width")) / 2
        assert (middle > at) == (bar.get("class") == "fill c0")
        unit += float(bar.get("height"))
    labels = [int(e.text) for e in root if e.tag == "text" and (e.text or "").isdigit()]
    assert sum(labels) == 5 and unit > 0
    assert confidence_figure({"selected": []}, 0.5, "") == ""
    for edge in ([1.0], [0.0, 1.0], [0.999999]):
        ElementTree.fromstring(confidence_figure({"a & b": edge}, None, ""))
