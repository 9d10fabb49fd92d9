"""The whole story on real scans, with the real library in a real process."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch", reason="the library's packages are not installed")
pytest.importorskip("slicer", reason="slicer-core is not installed")
psutil = pytest.importorskip("psutil")


@pytest.mark.timeout(600)
def test_from_six_scans_to_an_exported_model(panel, tmp_path, hippocampusFolder):
    """The story, and two bars: the panel answers within 100 ms while a training runs; no process
    is left.

    A pause is the time between two turns of the event loop, a click's own work included. The test
    shares its cores with the training and with whatever else runs, so by the clock a pause can
    last as long as the system likes. What is held against the bar is therefore ``Pause.busy``:
    the time by the clock less the time in which the panel's thread was ready to run but had no
    core, as Linux counts it. This is no weaker than it sounds: everything that the panel does or
    waits for by itself (computing, disk, locks, a process that it starts) counts in full, which
    the thread's processor time would not. Both times are printed.
    """
    from SAMSemiSegModule.story import Story

    began = time.monotonic()

    def note(chapter: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s: {chapter}")

    story = Story(panel, hippocampusFolder, tmp_path / "project", note)
    story.run()
    print(story.pauses.report())
    assert len(story.pauses.all) > 100
    assert story.pauses.longest.busy < 0.1, story.pauses.report()
    assert not [p for p in psutil.process_iter() if str(tmp_path) in " ".join(commandLine(p))]


def commandLine(process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []
