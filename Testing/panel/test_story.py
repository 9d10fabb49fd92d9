"""The whole story on real scans, with the real library in a real process."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the library's packages are not installed")
pytest.importorskip("slicer", reason="slicer-core is not installed")
psutil = pytest.importorskip("psutil")


@pytest.mark.timeout(600)
def test_from_six_scans_to_an_exported_model(panel, tmp_path, hippocampusFolder):
    from SAMSemiSegModule.story import Story

    story = Story(panel, hippocampusFolder, tmp_path / "project")
    story.run()
    assert story.slowest < 0.1, f"the panel was busy for {1000 * story.slowest:.0f} ms"
    assert not [p for p in psutil.process_iter() if str(tmp_path) in " ".join(commandLine(p))]


def commandLine(process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []
