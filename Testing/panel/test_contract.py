"""What Slicer demands of a module, checked by reading the files."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SAMSemiSeg"
PACKAGE = MODULE / "SAMSemiSegModule"
SOURCES = sorted([MODULE / "SAMSemiSeg.py", *PACKAGE.rglob("*.py")])
UI_FILES = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
# Standard library, Slicer and what Slicer brings and loads quickly.
LIGHT = {"slicer", "qt", "ctk", "vtk", "SAMSemiSegModule"}
SHORT_BOXES = {"stateBox", "formatBox"}
GONE_IN_QT6 = (
    "QRegExp",
    "QDesktopWidget",
    "QTextCodec",
    "currentIndexChanged(QString)",
    "setMargin",
    ".margin ",
    "QTime.start",
    "MidButton",
    "QMatrix",
    "QStringRef",
)


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def widgetNames(uiFile: Path) -> set[str]:
    tree = ET.parse(uiFile)
    return {w.get("name", "") for w in tree.iter("widget")}


def uiFileOf(source: str) -> str | None:
    match = re.search(r'uiFile = "(\w+\.ui)"|UI/(\w+\.ui)', source)
    return (match[1] or match[2]) if match else None


@pytest.mark.parametrize("path", sorted((PACKAGE / "panel").glob("*.py")), ids=lambda p: p.name)
def test_every_widget_that_is_named_stands_in_the_ui_file(path):
    source = path.read_text(encoding="utf-8")
    uiFile = uiFileOf(source)
    if uiFile is None or path.name == "section.py":
        return
    names = widgetNames(MODULE / "Resources" / "UI" / uiFile)
    named = set(re.findall(r"(?:self\.|\b)ui\.(\w+)\b", source)) - {"__dict__"}
    assert named and not named - names


def test_every_input_widget_has_a_tooltip_and_a_place_in_the_keyboard_order():
    inputs = ("QPushButton", "QComboBox", "QLineEdit", "QCheckBox", "QSpinBox", "QDoubleSpinBox")
    mrml = ("qMRMLNodeComboBox", "qMRMLCheckableNodeComboBox", "ctkSliderWidget", "QTableView")
    for path in UI_FILES:
        tree = ET.parse(path)
        stops = {stop.text for stop in tree.iter("tabstop")}
        assert stops <= widgetNames(path), path.name
        for widget in tree.iter("widget"):
            if widget.get("class") in (*inputs, *mrml):
                tips = [p for p in widget.findall("property") if p.get("name") == "toolTip"]
                assert tips, f"{path.name}: {widget.get('name')} has no tooltip"
                if stops:
                    assert widget.get("name") in stops, f"{path.name}: {widget.get('name')}"


def test_long_entries_do_not_widen_the_panel():
    """A combo box that is filled at run time asks for the width of its longest entry."""
    for path in UI_FILES:
        for widget in ET.parse(path).iter("widget"):
            if widget.get("class") == "QComboBox" and widget.get("name") not in SHORT_BOXES:
                names = {p.get("name") for p in widget.findall("property")}
                assert "minimumContentsLength" in names, widget.get("name")


def test_every_bound_widget_names_a_parameter():
    source = (PACKAGE / "parameters.py").read_text(encoding="utf-8")
    attributes = set(re.findall(r"^    (\w+):", source, re.MULTILINE))
    bound = set()
    for path in UI_FILES:
        for entry in ET.parse(path).iter("property"):
            if entry.get("name") == "SlicerParameterName":
                bound.add(entry.findtext("string"))
    assert bound and bound <= attributes


def test_no_own_styling():
    for path in (*UI_FILES, *SOURCES):
        text = path.read_text(encoding="utf-8")
        assert "styleSheet" not in text and "setStyleSheet" not in text, path.name


def test_top_level_of_each_ui_file_is_a_qMRMLWidget():
    for path in UI_FILES:
        assert ET.parse(path).find("widget").get("class") == "qMRMLWidget", path.name


def test_nothing_heavy_is_imported_at_file_scope():
    import sys

    for path, tree in trees():
        for node in tree.body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                root = name.split(".")[0]
                assert root in LIGHT or root in sys.stdlib_module_names, f"{path.name}: {name}"


def test_no_names_that_qt6_or_pythonqt_lack():
    for path, tree in trees():
        text = path.read_text(encoding="utf-8")
        for name in GONE_IN_QT6:
            assert name not in text, f"{path.name}: {name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                middle = node.value
                isQt = isinstance(middle.value, ast.Attribute) and (
                    isinstance(middle.value.value, ast.Name) and middle.value.value.id == "qt"
                )
                # qt.Class.Enum.Value is PySide; PythonQt knows qt.Class.Value only.
                assert not (isQt and middle.attr[0].isupper()), f"{path.name}: {ast.unparse(node)}"
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("qt.Signal", "qt.Slot"):
                raise AssertionError(f"{path.name}: {ast.unparse(node)}")


def test_slots_take_what_pythonqt_gives_them():
    """A slot with ``*args`` gets nothing, a partial everything: neither is connected."""
    for path, tree in trees():
        for node in ast.walk(tree):
            isConnect = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if isConnect and node.func.attr == "connect":
                slot = node.args[-1]
                assert isinstance(slot, (ast.Name, ast.Attribute, ast.Lambda)), ast.unparse(node)
                if isinstance(slot, ast.Lambda):
                    assert slot.args.vararg is None, f"{path.name}: {ast.unparse(node)}"


def test_texts_for_translation_hold_no_values():
    """``_("{x}").format(x=..)``: an f-string cannot be found by the translator's tool."""
    for path, tree in trees():
        for node in ast.walk(tree):
            isCall = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if isCall and node.func.id == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}: {ast.unparse(node)}"


def test_what_the_user_reads_is_wrapped_for_translation():
    """Texts given to widgets, and errors raised in the panel and the scene, pass through ``_``."""
    shown = {"text", "toolTip", "title"}
    for path, tree in trees():
        if path.parent.name not in ("panel", "scene", "review"):
            continue
        for node in ast.walk(tree):
            values = []
            if isinstance(node, ast.Assign):
                targets = [t for t in node.targets if isinstance(t, ast.Attribute)]
                values = [node.value] if any(t.attr in shown for t in targets) else []
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                values = node.exc.args[:1]
            for value in values:
                isBare = isinstance(value, ast.Constant) and isinstance(value.value, str)
                isWord = isBare and any(c.isalpha() for c in value.value)
                assert not isWord, f"{path.name}: {value.value!r} is not translated"


def cmakeList(text: str, name: str) -> set[str]:
    block = re.search(rf"set\({name}\s(.*?)\)", text, re.DOTALL)
    assert block, name
    return {line.strip() for line in block[1].splitlines() if line.strip()} - {""}


def test_every_file_is_listed_for_packaging():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    scripts = cmakeList(text, "MODULE_PYTHON_SCRIPTS")
    found = {p.relative_to(MODULE).as_posix() for p in SOURCES}
    assert {s.replace("${MODULE_NAME}", "SAMSemiSeg") for s in scripts} == found
    resources = cmakeList(text, "MODULE_PYTHON_RESOURCES")
    found = {
        p.relative_to(MODULE).as_posix() for p in (MODULE / "Resources").rglob("*") if p.is_file()
    }
    assert {r.replace("${MODULE_NAME}", "SAMSemiSeg") for r in resources} == found


def test_the_library_is_packaged_whole():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "SAMSemiSegLib" in text and "*.py" in text and "Presets" in text


def test_extension_description_meets_the_index():
    entry = json.loads((ROOT / "Resources" / "SAMSemiSeg.json").read_text(encoding="utf-8"))
    for key in ("$schema", "category", "scm_url"):
        assert entry[key]
    assert entry["build_dependencies"] == ["PyTorch"]
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "project(SAMSemiSeg)" in cmake
    assert entry["scm_url"].rsplit("/", 1)[-1].startswith("Slicer")
    for key in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert f"EXTENSION_{key}" in cmake
    urls = re.findall(r'EXTENSION_(?:ICONURL|SCREENSHOTURLS) "(.*?)"', cmake)
    for url in " ".join(urls).split():
        assert url.endswith((".png", ".jpg", ".gif"))
        named = ROOT / url.split("/main/", 1)[1]
        assert named.is_file(), f"{named} does not exist"


def test_files_have_unix_line_endings():
    for path in (ROOT / "CMakeLists.txt", ROOT / "Resources" / "SAMSemiSeg.json", *SOURCES):
        assert b"\r" not in path.read_bytes(), path


def test_requirements_leave_slicers_own_packages_alone_and_pin_nothing():
    text = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {re.split(r"[<>=]", line)[0].lower() for line in lines}
    assert not names & {"numpy", "simpleitk", "vtk", "scipy", "torchvision"}
    assert not [line for line in lines if "==" in line]
