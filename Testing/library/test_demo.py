"""Where the demo's scans come from."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest

from SAMSemiSegLib.command import demo
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.project import Project


@pytest.mark.parametrize("problem", [URLError("no network"), Exception("no such module")])
def test_without_scans_and_network_phantoms_are_made_and_it_says_so(
    problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*arguments: object, **options: object) -> None:
        raise problem

    monkeypatch.setattr(demo, "find_data", lambda name: None)
    monkeypatch.setattr("monai.apps.download_and_extract", download)
    monkeypatch.setattr(demo, "UNLABELED", 1)
    monkeypatch.setattr(demo, "EVALUATION", 1)
    images, labels, order, about = demo._scans(tmp_path)
    names = order.read_text(encoding="utf-8").split()
    assert len(names) == demo.LABELED + 2
    assert len(list(images.iterdir())) == len(list(labels.iterdir())) == len(names)
    assert "phantoms" in about


def test_only_a_demo_s_own_project_is_made_anew(tmp_path: Path) -> None:
    project = tmp_path / "project"
    Project.create(project, name="of a user")
    with pytest.raises(InputError, match="not a demo's project"):
        demo.demo(tmp_path, "demo", [], False)
    assert Project.load(project).name == "of a user"
    former = Project.create(tmp_path / "former" / "project", name=demo.NAME)
    with pytest.raises(InputError, match="no preset 'dmo'"):
        demo.demo(tmp_path / "former", "dmo", [], False)
    assert Project.load(former.folder) == former
