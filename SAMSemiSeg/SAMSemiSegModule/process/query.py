"""Asking the library something that needs torch, without waiting for the answer."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

from slicer.i18n import tr as _

from SAMSemiSegModule.process.command import ChildCommand, ownGroup
from SAMSemiSegModule.process.runner import LONGEST_LAST_LINE
from SAMSemiSegModule.process.tree import ProcessTree


class NoAnswer(Exception):
    """The library could not answer; the message is its own sentence for the user."""


class Query(Protocol):
    """A question under way; ``poll`` raises :class:`NoAnswer` where there will be none."""

    def poll(self) -> Any | None: ...

    def end(self) -> None: ...


class CommandQuery:
    """Runs ``samsemiseg ... --json`` and parses what it prints.

    Args:
        command: how the library is started.
        arguments: of ``samsemiseg``.
    """

    def __init__(self, command: ChildCommand, arguments: Sequence[str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when read
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when read
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'samsemiseg'; "
            "from SAMSemiSegLib.command.app import main; main()"
        )
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [command.python, "-c", script, str(command.library), *arguments, "--json"],
            env=command.environment or None,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            **ownGroup(),
        )

    def poll(self) -> Any | None:
        """The answer once it is there.

        Raises:
            NoAnswer: the command failed, or printed no answer.
        """
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        answer, errors = (_textOf(file) for file in (self._output, self._errors))
        try:
            if code == 0:
                return json.loads(answer)
        except ValueError:
            pass
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        silence = _("The library gave no answer (exit code {code}).").format(code=code)
        raise NoAnswer(lines[-1][:LONGEST_LAST_LINE] if lines else silence)

    def end(self) -> None:
        """Give up the question."""
        if self._process is not None:
            ProcessTree(self._process.pid).kill()
            self._process.wait()
            self._process = None
            self._output.close()
            self._errors.close()


def _textOf(file: IO[bytes]) -> str:
    """All that was written; closes the file."""
    with file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


AskLibrary = Callable[[Sequence[str]], Query]
