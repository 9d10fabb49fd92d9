"""What the library offers on this machine: methods, models, devices; asked in the background."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from SAMSemiSegModule.process.query import NoAnswer

Entry = tuple[str, str, str]  # value, title, tooltip


class Catalog:
    """Answers of ``samsemiseg methods``, ``doctor`` and ``weights list``; empty until they come."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask
        self._queries: dict[str, Any] = {}
        self._answers: dict[str, Any] = {}

    def request(self, *names: str, again: bool = False) -> None:
        """Ask for these, those answered before only if ``again``; the answers come by and by.

        Each question is a process that imports torch: seconds of a core.
        """
        words = {"methods": ["methods"], "doctor": ["doctor"], "weights": ["weights", "list"]}
        for name in names:
            if name not in self._queries and (again or not self._answers.get(name)):
                self._queries[name] = self._ask(words[name])

    def poll(self) -> bool:
        """Take in answers that have come; whether one has.

        Raises:
            NoAnswer: the library failed at a question; the others are still under way.
        """
        came = False
        for name, query in list(self._queries.items()):
            try:
                answer = query.poll()
            except NoAnswer:
                del self._queries[name]
                raise
            if answer is not None:
                del self._queries[name]
                self._answers[name] = answer
                came = True
        return came

    def end(self) -> None:
        """Give up all questions."""
        for query in self._queries.values():
            query.end()
        self._queries.clear()

    @staticmethod
    def presets() -> list[Entry]:
        """Presets for the panel; others are for tests and the demo."""
        return [
            (
                "quick",
                _("Quick (about 10 minutes)"),
                _("A first look: large volumes at half resolution, a small network."),
            ),
            (
                "balanced",
                _("Balanced (about an hour)"),
                _("Large volumes at half resolution, a small network, trained to its end."),
            ),
            (
                "paper",
                _("As published (long; wants a GPU)"),
                _("The published settings: full resolution, 6,000 steps a stage."),
            ),
        ]

    def methods(self) -> list[Entry]:
        """Semi-supervised methods."""
        return [_asInThePreset(), *self._registered("ssl")]

    def strategies(self) -> list[Entry]:
        """Fine-tuning strategies."""
        return [_asInThePreset(), *self._registered("finetuning")]

    def foundations(self) -> list[Entry]:
        """Foundation models; those with random weights are for tests only."""
        automatic = (
            "auto",
            _("Automatic"),
            _("The preset's; else SAM ViT-B on a GPU, and the small model without one."),
        )
        found = self._answers.get("methods", {}).get("foundation", [])
        return [automatic, *(_entry(e) for e in found if e.get("weights"))]

    def devices(self) -> list[Entry]:
        """Devices with what is free on each."""
        automatic = ("auto", _("Automatic"), _("The fastest device of this machine."))
        answer = self._answers.get("doctor", {})
        found = []
        for device in answer.get("devices", []):
            name, about = device.get("name", ""), device.get("about", "")
            if name == "cpu" and answer.get("free_memory_gb"):
                about += _(", {free:.0f} GB memory free").format(free=answer["free_memory_gb"])
            found.append((name, f"{name}: {about}", about))
        return [automatic, *found]

    def foundation(self, settings: Any) -> str:
        """The model that a run with these settings of the library uses."""
        devices = [settings.device]
        if settings.device == "auto":
            found = self._answers.get("doctor", {}).get("devices", [])
            devices = [device.get("name", "") for device in found]
        gpu = next((device for device in devices if device.startswith("cuda")), "cpu")
        return str(settings.foundation.resolved(gpu))

    def isGuided(self, strategy: str) -> bool:
        """Whether a strategy needs a V-Net that was trained before it."""
        found = self._answers.get("methods", {}).get("finetuning", [])
        return any(entry.get("name") == strategy and entry.get("guided") for entry in found)

    def weightsSentence(self, foundation: str, ownFile: bool = False) -> str:
        """Where the weights of a model are or come from, their size and license.

        Args:
            foundation: name of the model.
            ownFile: the settings name a file of weights.
        """
        rows = self._answers.get("weights")
        if not isinstance(rows, list):
            return ""
        row = next((row for row in rows if row.get("name") == foundation), None)
        if row is None:
            return ""
        words = _("{title}: {megabytes:.0f} MB, license {license}.").format(
            title=row.get("title"), megabytes=row.get("megabytes", 0), license=row.get("license")
        )
        if row.get("cached") and not ownFile:
            return words + " " + _("On this machine already.")
        if ownFile or row.get("url", "") is None:
            return words + " " + _("Its file is named in the further settings: foundation.weights.")
        return words + " " + _("It is downloaded once, when the training starts.")

    def hasToDownload(self, foundation: str) -> bool:
        """Whether the weights of a model were not on this machine when last asked."""
        rows = self._answers.get("weights")
        known = rows if isinstance(rows, list) else []
        row = next((row for row in known if row.get("name") == foundation), {"cached": True})
        return not row.get("cached") and row.get("url", "") is not None

    def _registered(self, kind: str) -> list[Entry]:
        found = self._answers.get("methods", {}).get(kind, [])
        return [_entry(entry) for entry in found]


def _asInThePreset() -> Entry:
    return "auto", _("As in the preset"), _("The choice that goes with the preset's times.")


def _entry(entry: dict[str, Any]) -> Entry:
    needs = entry.get("needs") or []
    tip = str(entry.get("source", ""))
    if needs:
        tip += "\n" + _("Needs: {needs}.").format(needs=", ".join(needs))
    return str(entry.get("name")), str(entry.get("title") or entry.get("name")), tip
