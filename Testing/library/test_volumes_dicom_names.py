"""Folders of DICOM slices that are named after their patient, by the header of a slice."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import SimpleITK as sitk

from SAMSemiSegLib.project.importing import add_case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.volumes.dicom import names_patient

NAME, NUMBER, BIRTH = "0010|0010", "0010|0020", "0010|0030"
EXAMINATION, DAY = "0008|0050", "0008|0020"


def slices(folder: Path, tags: dict[str, str], count: int = 1) -> Path:
    folder.mkdir()
    for number in range(count):
        slice_ = sitk.Image(8, 8, sitk.sitkInt16)
        slice_[number, 0] = 1
        places = {"0020|0032": f"0\\0\\{number}", "0020|0013": str(number), "0020|000e": "1.2.3"}
        for key, value in {**tags, **places}.items():
            slice_.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(slice_)
    return folder


@pytest.mark.parametrize(
    "name, tags",
    [
        ("王小东", {NAME: "王^小东"}),
        ("王伟", {NAME: "王^伟"}),
        ("王小东", {NAME: "Wang^XiaoDong=王^小东"}),
        ("王 小东 CT", {NAME: "Wang^XiaoDong=王^小东"}),
        ("XiaoDong_Wang", {NAME: "Wang^XiaoDong=王^小东"}),
        ("山田太郎", {NAME: "Yamada^Tarou=山田^太郎=やまだ^たろう"}),
        ("やまだ_1", {NAME: "Yamada^Tarou=山田^太郎=やまだ^たろう"}),
        (unicodedata.normalize("NFD", "홍길동"), {NAME: "Hong^Gildong=洪^吉洞=홍^길동"}),
        (unicodedata.normalize("NFD", "Müller"), {NAME: "Müller^Eva"}),
        ("1950-03-04", {BIRTH: "19500304"}),
        ("19500304", {BIRTH: "19500304"}),
        ("CT 04.03.1950", {BIRTH: "19500304"}),
        ("scan_2024-01-15", {DAY: "20240115"}),
        ("A123456", {EXAMINATION: "A123456"}),
        ("CT-A-123456-2", {EXAMINATION: "A123456"}),
    ],
)
def test_a_folder_says_who_or_when(name: str, tags: dict[str, str], tmp_path: Path) -> None:
    assert names_patient(slices(tmp_path / name, tags))


EVERYTHING = {
    NAME: "Wang^XiaoDong^Y=王^小东",
    NUMBER: "0072001",
    BIRTH: "19500304",
    EXAMINATION: "A123456",
    DAY: "20240115",
}


@pytest.mark.parametrize("name", ["case_07", "CT abdomen", "1950", "A12", "东门", "2024-01"])
def test_a_harmless_name_stays(name: str, tmp_path: Path) -> None:
    assert not names_patient(slices(tmp_path / name, EVERYTHING))
    assert not names_patient(slices(tmp_path / f"{name} 2", {}))


@pytest.mark.parametrize(
    "codec, name, written",
    [
        ("gb18030", "王小东", "Wang^XiaoDong=王^小东"),
        ("iso2022_jp", "山田太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("euc_kr", "홍길동", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("iso8859-1", "Müller_2", "Müller^Eva"),
        ("iso8859-5", "Иванов", "Иванов^A"),
    ],
)
def test_names_are_known_in_other_character_sets(
    codec: str, name: str, written: str, tmp_path: Path
) -> None:
    raw = written.encode(codec)
    if codec == "euc_kr":  # as DICOM announces it (PS3.5, annex I)
        raw = raw.replace(b"=", b"=\x1b$)C").replace(b"^", b"^\x1b$)C")
    place = "x" * (len(raw) + len(raw) % 2)
    folder = slices(tmp_path / name, {NAME: place})
    file = folder / "0.dcm"
    file.write_bytes(file.read_bytes().replace(place.encode(), raw.ljust(len(place))))
    assert names_patient(folder)


def test_such_a_folder_gives_no_case_its_name(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    case = add_case(project, slices(tmp_path / "王小东", {NAME: "Wang^XiaoDong=王^小东"}, 4))
    assert case.id == "case_1" and "王" not in (case.note or "")
