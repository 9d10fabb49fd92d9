"""Asking the library something that needs torch, without waiting for the answer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from SAMSemiSegModule.process.command import ChildCommand
from SAMSemiSegModule.process.tree import ProcessTree


class Query(Protocol):
    """A question under way."""

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
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'samsemiseg'; "
            "from SAMSemiSegLib.command.app import main; main()"
        )
        flags = {"creationflags": 0x08000000} if sys.platform == "win32" else {}
        group = {} if sys.platform == "win32" else {"start_new_session": True}
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [command.python, "-c", script, str(command.library), *arguments, "--json"],
            env=command.environment or None,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            **flags,
            **group,
        )

    def poll(self) -> Any | None:
        """The answer once it is there; an empty one where the library could not give it."""
        if self._process is None or self._process.poll() is None:
            return None
        self._process = None
        self._output.seek(0)
        text = self._output.read().decode("utf-8", "replace")
        self._output.close()
        try:
            return json.loads(text)
        except ValueError:
            return {}

    def end(self) -> None:
        """Give up the question."""
        if self._process is not None:
            ProcessTree(self._process.pid).kill()
            self._process.wait()
            self._process = None
            self._output.close()


AskLibrary = Callable[[Sequence[str]], Query]
