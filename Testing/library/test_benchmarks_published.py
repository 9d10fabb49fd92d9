"""The published benchmarks' configurations, on phantoms laid out as the sets are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from published_phantoms import CASES, SHAPE, small, write_lists, write_set

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.student import check_patch, read_options
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.stitching.layout import plan_layout
from SAMSemiSegLib.volumes.reading import read_image, read_labels

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "benchmarks" / "configurations"
NAMES = sorted(path.stem for path in CONFIGURATIONS.glob("*.json"))


@pytest.mark.parametrize(
    ("name", "image_file"),
    [
        *((name, "") for name in NAMES if name != "btcv"),
        # As the list names them, and as MagicNet's script opens them.
        ("btcv", "btcv_h5/case{case}.npy.h5"),
        ("btcv", "btcv_h5/{case}.h5"),
    ],
)
def test_a_set_as_it_is_handed_out_becomes_a_project(
    published: ModuleType, name: str, image_file: str, tmp_path: Path
) -> None:
    configuration = small(published, name)
    names, data = CASES[name], tmp_path / "the set"
    data.mkdir()
    written = write_set(configuration, data, names, image_file)
    write_lists(configuration, data, names)
    configuration.make_project(data, 1, 1, 2, tmp_path / "work" / "project")
    project = published.Project.load(tmp_path / "work" / "project")
    assert [c.id for c in project.labeled] == names[1:2]  # the first labeled line is number 1
    assert [c.id for c in project.unlabeled] == names[2:4]
    assert [c.id for c in project.evaluation] == names[4:]
    assert project.label_set.names == list(configuration.labels)
    case = project.labeled[0]
    image = read_image(project.path(case.image))
    assert image.array.shape == SHAPE and case.label is not None
    found, _ = read_labels(project.path(case.label), project.label_set.values, image.geometry)
    expected = np.zeros(SHAPE, np.uint8)
    for channel, values in enumerate(configuration.labels.values(), 1):
        expected[np.isin(written[case.id], values)] = channel
    assert np.array_equal(found.array, expected)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_valid_for_every_published_row(
    published: ModuleType, name: str, tmp_path: Path
) -> None:
    configuration = published.load_configuration(name)
    preset = str(configuration.write_preset(tmp_path))
    rows = {row.split("/")[0] for row in configuration.published if "/" in row}
    assert set(configuration.method_settings) | rows <= set(METHODS)
    for method in {"mean_teacher", *rows, *configuration.method_settings}:
        settings = load_settings(
            preset,
            [f"retraining.method={method}", *configuration.method_settings.get(method, ())],
        )
        # What is not set would have the default of whole volumes.
        given = configuration.settings["finetuning"]["augmentation"]
        assert set(given) | {"flip_axes"} == set(
            type(settings.finetuning.augmentation).model_fields
        )
        assert not settings.retraining.window_statistics
        assert settings.finetuning.augmentation.style == 0
        assert 0 in (
            settings.retraining.augmentation.style,
            settings.retraining.augmentation.strength,
        )
        read_options(settings.retraining)
        check_patch(settings.retraining.patch, settings.retraining)
        STRATEGIES[settings.finetuning.strategy].Options(**settings.finetuning.options)
    for figures in configuration.published.values():
        assert set(figures) <= set(configuration.labeled)
        assert all(10 < dice < 100 for dice in figures.values())


@pytest.mark.parametrize(
    ("name", "side", "pixels"),
    [("la2018", 9, 1008)] + [(n, 10, 960) for n in ("brats2019", "btcv", "mact", "abdomenct1k")],
)
def test_crops_fill_the_published_grid(
    published: ModuleType, name: str, side: int, pixels: int, tmp_path: Path
) -> None:
    """SFR, section III-A: d = ceil(sqrt(slices)) cells a side, of the crop's own size."""
    settings = load_settings(str(published.load_configuration(name).write_preset(tmp_path)))
    patch = settings.finetuning.patch
    assert patch is not None and patch == settings.retraining.patch
    layout = plan_layout(patch, settings.stitching, 16)
    assert (layout.rows, layout.cols, layout.height, layout.width) == (side, side, pixels, pixels)


def test_what_is_missing_is_said(published: ModuleType, tmp_path: Path) -> None:
    configuration = small(published, "la2018")
    with pytest.raises(InputError, match=r"'train.list' is missing .*--data"):
        configuration.make_project(tmp_path, 1, 0, 0, tmp_path / "project")
    write_lists(configuration, tmp_path, CASES["la2018"][:5])
    with pytest.raises(InputError, match="has 1 cases"):
        configuration.cases(tmp_path)
    with pytest.raises(InputError, match="choose one of abdomenct1k"):
        published.load_configuration("no such")


@pytest.mark.parametrize("name", NAMES)
def test_sfr_plus_selects_as_published(published: ModuleType, name: str, tmp_path: Path) -> None:
    """Without the guards, which the paper does not have."""
    preset = published.load_configuration(name).write_preset(tmp_path)
    assert not load_settings(str(preset)).retraining.selection.guards


def test_the_preset_paper_is_the_left_atriums_row_but_for_what_belongs_to_the_set(
    published: ModuleType, tmp_path: Path
) -> None:
    def flat(settings: dict[str, Any], place: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in settings.items():
            inner = isinstance(value, dict)
            found |= flat(value, f"{place}{key}.") if inner else {place + key: value}
        return found

    preset = published.load_configuration("la2018").write_preset(tmp_path)
    theirs = flat(load_settings(str(preset)).model_dump())
    ours = flat(load_settings("paper").model_dump())
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert different == {
        "export",
        "preset",
        "preprocessing.intensity",
        "preprocessing.spacing",
        # Which axes a heart may be mirrored along is not so of every organ.
        "finetuning.augmentation.flip_axes",
        "retraining.augmentation.flip_axes",
    }
