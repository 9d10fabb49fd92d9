"""What is to be segmented: names, values in label files, colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from SAMSemiSegLib.errors import InputError

Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 97, 76),
    (78, 162, 206),
    (244, 190, 84),
    (111, 184, 120),
    (167, 128, 196),
    (240, 140, 170),
    (86, 188, 178),
    (190, 150, 110),
    (150, 190, 70),
    (110, 120, 200),
    (220, 130, 50),
    (170, 175, 185),
)
"""Colors of moderate saturation that stay apart on gray scans."""

MOST_LABELS = 254
"""Channel indices are bytes; 255 means ignore."""


class Label(BaseModel):
    """One class. ``terminology`` is an entry as Slicer writes it into a segment's tags."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    value: Annotated[int, Field(gt=0)]
    name: Annotated[str, Field(min_length=1)]
    color: Color
    terminology: str | None = None


class LabelSet(BaseModel):
    """The labels in the order of the network's channels (channel 0 is background)."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[list[Label], Field(max_length=MOST_LABELS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _unique(self) -> LabelSet:
        for what in ("value", "name"):
            seen = [getattr(label, what) for label in self.labels]
            double = next((x for i, x in enumerate(seen) if x in seen[:i]), None)
            if double is not None:
                raise ValueError(f"two labels have the {what} {double}")
        return self

    @classmethod
    def of(cls, names: Sequence[str], values: Sequence[int] | None = None) -> LabelSet:
        """A label set in the default palette; values 1, 2, ... unless given."""
        values = values or range(1, len(names) + 1)
        return cls(
            labels=[
                Label(value=value, name=name, color=PALETTE[i % len(PALETTE)])
                for i, (name, value) in enumerate(zip(names, values, strict=True))
            ]
        )

    @classmethod
    def parse(cls, text: str) -> LabelSet:
        """``name[=value][:#rrggbb]`` separated by commas: ``anterior=1:#e6614c,posterior=2``.

        Raises:
            InputError: it cannot be understood, or two labels share a name or value.
        """
        labels: list[Label] = []
        for i, part in enumerate(p.strip() for p in text.split(",") if p.strip()):
            rest, _, color = part.partition(":")
            name, _, value = (x.strip() for x in rest.partition("="))
            try:
                rgb = PALETTE[i % len(PALETTE)]
                if color:
                    digits = color.strip().removeprefix("#")
                    red, green, blue = bytes.fromhex(digits)
                    rgb = (red, green, blue)
                taken = max((label.value for label in labels), default=0)
                labels.append(Label(value=int(value) if value else taken + 1, name=name, color=rgb))
            except ValueError as error:
                raise InputError(
                    f"The label '{part}' cannot be understood; write name=value:#rrggbb with a "
                    "value above 0 (value and color may be left out)."
                ) from error
        try:
            return cls(labels=labels)
        except ValueError as error:
            raise InputError(
                f"The label set '{text}' has a name or value twice, or too many labels; give each "
                "label its own."
            ) from error

    @property
    def values(self) -> list[int]:
        return [label.value for label in self.labels]

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.labels]

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        return [label.color for label in self.labels]

    @property
    def terminologies(self) -> list[str | None]:
        return [label.terminology for label in self.labels]

    @property
    def channels(self) -> int:
        """K = C + 1: the labels and the background."""
        return len(self.labels) + 1
