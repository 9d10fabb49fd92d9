"""A table of named entries that registers each by a decorator.

The three registries of the product (foundation models, fine-tuning strategies, semi-supervised
methods) are objects of this one class.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from SAMSemiSegLib.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries by name, found by importing every module of ``package`` on first use.

    Args:
        kind: what an entry is, in the words of an error ("semi-supervised method").
        package: the Python package whose modules register the entries.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._imported = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the class or function known as ``name``."""

        def decorate(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ValueError(f"two {self.kind}s are named {name!r}")
            self._entries[name] = entry
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        """The entry of that name.

        Raises:
            InputError: there is none; the message lists those there are.
        """
        self._import_all()
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise InputError(f"There is no {self.kind} named '{name}'; choose one of: {known}.")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._import_all()
        return iter(sorted(self._entries))

    def _import_all(self) -> None:
        if self._imported:
            return
        self._imported = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, self._package + "."):
            importlib.import_module(module.name)
