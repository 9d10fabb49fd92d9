"""``project.json``: the one source of truth about the cases."""

from __future__ import annotations

import codecs
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from SAMSemiSegLib.atomic import replacing, write_text
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.locking import alone
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.label_set import LabelSet

FILE = "project.json"
VERSION = 1

SLICE_NAME = r"""(?m:[/\\].*?(?=["'](?:\W|$)|$))?"""
"""What follows a folder's path in a sentence: up to a quotation mark, else to the end of a line."""


class Decision(BaseModel):
    """A review decision and the case as it was before, so that it can be undone."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["accept", "correct", "reject"]
    before: Case


class Project(BaseModel):
    """Label set and cases of one folder.

    Which cases are used for what: :attr:`labeled` trains as ground truth, :attr:`unlabeled` gets
    pseudo-labels, :attr:`evaluation` is only scored. A rejected pseudo-label makes its case
    unlabeled again; a pseudo-label waiting for review counts as unlabeled too.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    identity: str = ""
    """The same wherever the folder is moved to."""
    name: str
    label_set: LabelSet
    cases: list[Case] = Field(default_factory=list)
    history: list[Decision] = Field(default_factory=list)
    """Review decisions, the latest last."""

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _unique_ids(self) -> Project:
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise ValueError(f"two cases have the id '{case.id}'")
            seen.add(case.id)
        return self

    @classmethod
    def create(cls, folder: Path, label_set: LabelSet | None = None, name: str = "") -> Project:
        """Start a project in a folder, which is made if need be.

        Raises:
            InputError: there is a project already, or the folder cannot be made.
        """
        folder = folder.resolve()
        if (folder / FILE).exists():
            raise InputError(
                f"There is already a project in '{folder}'; import into it, or choose another "
                "folder."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder '{folder}' cannot be made ({error.strerror}); choose another one."
            ) from error
        project = cls(
            identity=uuid.uuid4().hex, name=name or folder.name, label_set=label_set or LabelSet()
        )
        project._folder = folder
        project.save()
        return project

    @classmethod
    def load(cls, folder: Path) -> Project:
        """Open the project of a folder (or of its ``project.json``).

        Raises:
            InputError: there is none, it is damaged, or a newer version wrote it.
        """
        folder = folder.resolve()
        if folder.name == FILE and folder.is_file():
            folder = folder.parent
        path = folder / FILE
        if not path.is_file():
            raise InputError(
                f"There is no project in '{folder}' (no {FILE}); create one with "
                "'samsemiseg project create'."
            )
        try:
            project = cls.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        except ValidationError as error:
            raise InputError(_what_is_wrong(path, error)) from error
        except OSError as error:
            raise InputError(
                f"'{path}' cannot be read ({error.strerror}); check its permissions."
            ) from error
        project._folder = folder
        return project

    def save(self) -> None:
        """Write ``project.json``, whole or not at all; what it held becomes ``project.json.bak``.

        Raises:
            DiskFullError: no space left; the file stays as it was.
            InputError: the folder cannot be written to; the same.
        """
        path = self._folder / FILE
        try:
            if path.exists():
                with replacing(self._folder / (FILE + ".bak")) as backup:
                    shutil.copyfile(path, backup)
            write_text(path, self.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"The project could not be saved in '{self._folder}' ({error.strerror}); check "
                "that you may write there and that its drive is connected."
            ) from error

    @contextmanager
    def saved(self) -> Iterator[None]:
        """Change the project as its file is by now, and save it; meanwhile no other process does.

        One that was read earlier is brought up to date first: a training may have offered its
        pseudo-labels since. Where it fails, the project here is as before, too.

        Raises:
            InputError, DiskFullError: the project cannot be read or saved.
        """
        before = list(self.cases), list(self.history), self.label_set, self.name
        with alone(self._folder / FILE):
            try:
                if (self._folder / FILE).is_file():
                    now = Project.load(self._folder)
                    self.cases[:], self.history[:] = now.cases, now.history
                    self.label_set, self.name = now.label_set, now.name
                yield
                self.save()
            except BaseException:
                self.cases[:], self.history[:], self.label_set, self.name = before
                raise

    @property
    def folder(self) -> Path:
        """The project folder, absolute."""
        return self._folder

    def case(self, case_id: str) -> Case:
        """The case of that id.

        Raises:
            InputError: there is none.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise InputError(
            f"There is no case '{case_id}' in the project '{self.name}'; check its name, it may "
            "have been taken out."
        )

    def path(self, stored: str) -> Path:
        """The absolute path of what a case stores."""
        return self._folder / stored

    def stored(self, path: Path) -> str:
        """How a path is stored: relative (posix) inside the folder, else absolute."""
        # The folder is resolved, so the path must be; but a link in the folder stays a link.
        absolute = path.parent.resolve() / path.name
        try:
            return absolute.relative_to(self._folder).as_posix()
        except ValueError:
            return str(absolute)

    def without_paths(self, text: str) -> str:
        """A sentence about a case's file with the case's id in place of the path, which may name a
        patient: for logs, events and reports. Nor does the name of a slice stay, in a folder of
        DICOM slices."""
        kinds = ("image", "label", "reference")
        found = [
            (str(self.path(p)), c.id, k) for c in self.cases for k in kinds if (p := getattr(c, k))
        ]
        # The longest first: "scan1" is the beginning of "scan10".
        for path, case_id, kind in sorted(found, key=lambda item: -len(item[0])):
            # Also as Python's own errors write it, and other libraries on Windows.
            for written in {path, repr(path)[1:-1], Path(path).as_posix()}:
                if written in text:
                    text = re.sub(re.escape(written) + SLICE_NAME, f"{case_id} ({kind})", text)
        return text

    def replace(self, case: Case) -> None:
        """Put ``case`` where the case of its id was.

        Raises:
            InputError: there is none.
        """
        former = self.case(case.id)
        self.cases[next(i for i, c in enumerate(self.cases) if c is former)] = case

    @property
    def labeled(self) -> list[Case]:
        """Training cases with a label drawn, corrected or accepted by a person."""
        return [case for case in self.cases if case.trainable]

    @property
    def unlabeled(self) -> list[Case]:
        """All other training cases: without label, with one to review, or with a rejected one."""
        return [case for case in self.cases if case.role == "training" and not case.trainable]

    @property
    def evaluation(self) -> list[Case]:
        """Cases that are never trained on, only scored against their ``reference``."""
        return [case for case in self.cases if case.role == "evaluation"]


def _what_is_wrong(path: Path, error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "json_invalid":
        wrong = f"is damaged: {first['msg']}"
    elif where == "version":
        return (
            f"'{path}' was written by another version of this program (format {first['input']}, "
            f"this one reads {VERSION}); update the program to open it."
        )
    else:
        wrong = f"is not valid at '{where or 'top level'}': {first['msg']}"
    backup = path.with_name(FILE + ".bak")
    remedy = (
        f"mend it, or put back the previous save by renaming '{backup.name}' to '{FILE}'"
        if backup.exists()
        else "mend it, or create the project anew"
    )
    return f"'{path}' {wrong}; {remedy}."
