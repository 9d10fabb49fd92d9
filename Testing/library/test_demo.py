"""Where the demo's scans come from."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest

from SAMSemiSegLib.command import demo


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
