"""What the system does not let be read: a missing right, a drive that fails or was disconnected."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from SAMSemiSegLib.errors import InputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def told_if_unreadable(
    read: Callable[Concatenate[Path, Arguments], Result],
) -> Callable[Concatenate[Path, Arguments], Result]:
    """For functions that read the path they are given first: where the system refuses, they raise
    an ``InputError`` that names this path, as for any file that cannot be used."""

    @wraps(read)
    def told(path: Path, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return read(path, *args, **kwargs)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(
                f"'{path}' cannot be read ({reason}); check that you may read it and that its "
                "drive is connected."
            ) from error

    return told
