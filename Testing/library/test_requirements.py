"""What the library needs is said twice: to pip, and to the module that installs it in Slicer."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLICERS_OWN = {"numpy", "scipy", "SimpleITK", "requests"}


def test_slicer_installs_the_versions_that_the_library_asks_for():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    library = set(re.findall(r'"(.+?)"', listed[1]))
    lines = (ROOT / "SAMSemiSeg" / "Resources" / "requirements.txt").read_text(encoding="utf-8")
    slicer = {line for line in lines.splitlines() if line and not line.startswith("#")}
    assert slicer == {text for text in library if re.split("[<>=]", text)[0] not in SLICERS_OWN}
