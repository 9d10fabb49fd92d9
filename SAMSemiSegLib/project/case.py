"""A case: one scan, its label if it has one, and what a person thinks of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from SAMSemiSegLib.volumes.formats import stem_of

Origin = Literal["expert", "corrected", "pseudo", "none"]
Status = Literal["unlabeled", "labeled", "pseudo", "accepted", "corrected", "rejected"]
Role = Literal["training", "evaluation"]

DECORATION = re.compile(
    r"(_0000|[-_. ](seg|segmentation|label|labels|labelmap|mask|gt|image|img))$", re.IGNORECASE
)


class Case(BaseModel):
    """Paths are relative to the project folder (posix) or absolute."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    id: Annotated[str, Field(pattern=r"^[^/\\:*?\"<>|\x00-\x1f]+$")]
    image: str
    label: str | None = None
    origin: Origin = "none"
    """Who made ``label``."""
    status: Status = "unlabeled"
    role: Role = "training"
    reference: str | None = None
    """A label that only scores and never trains: of evaluation cases and, on request, of
    unlabeled ones."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the pseudo-label, averaged over the volume."""
    note: str | None = None

    @property
    def trainable(self) -> bool:
        """Whether the label may be trained on as if an expert had drawn it."""
        return (
            self.role == "training"
            and self.label is not None
            and (self.origin in ("expert", "corrected") or self.status == "accepted")
            and self.status != "rejected"
        )


def matching_stem(name: str) -> str:
    """What an image's and its label's file name have in common.

    ``la_007_0000.nii.gz``, ``la_007.seg.nrrd``, ``la_007-label.nrrd`` and ``la_007_gt.nii.gz`` all
    give ``la_007``.
    """
    stem = stem_of(name)
    while (shorter := DECORATION.sub("", stem)) and shorter != stem:
        stem = shorter
    return unicodedata.normalize("NFC", stem).casefold()


def case_id(name: str, taken: Iterable[str] = ()) -> str:
    """A file-name-safe id from a file name (letters of any script stay), unlike those ``taken``.

    Small and capital letters count as alike: ids name files, and Windows and macOS tell no more.
    """
    folded = {id.casefold() for id in taken}
    stem = unicodedata.normalize("NFC", stem_of(name))
    stem = re.sub(r"_0000$", "", stem)
    safe = re.sub(r"[^\w.\-]+", "_", stem).strip("._") or "case"
    unique, number = safe, 2
    while unique.casefold() in folded:
        unique, number = f"{safe}_{number}", number + 1
    return unique
