"""The event stream on a terminal: one progress bar a stage, with the time left."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

TITLES = {
    "preprocessing": "Preprocessing",
    "finetuning": "Adapting the foundation model",
    "pseudolabels": "Writing pseudo-labels",
    "supervised": "Supervised V-Net",
    "warm-start": "Warm start of the V-Net",
    "retraining": "Re-training the V-Net",
    "selection": "Selecting confident volumes",
    "evaluation": "Evaluating",
    "proposals": "Segmenting the unlabeled cases",
    "export": "Exporting",
}


class Display:
    """A listener of the events that draws them; used as a context manager.

    On a terminal it draws bars; elsewhere (a log file, Slicer) a line a stage.

    Args:
        run: name of the run.
        stopped: what is said where the process ends in the middle of a step.
    """

    def __init__(self, run: str, stopped: str) -> None:
        self.run, self.stopped = run, stopped
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
        )
        self._task: TaskID | None = None
        self._stage = ""

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind, stage = event["kind"], event["stage"]
        title = TITLES.get(stage.partition(":")[0], stage)
        if ":" in stage:
            title += f" ({stage.partition(':')[2]})"
        if kind == "start":
            self.console.print(f"Run {self.run} {event['message']}", highlight=False, markup=False)
        elif kind == "stage":
            self._stage = title
            if self.console.is_terminal:
                self._task = self._bars.add_task(
                    title, total=event["total"], completed=event["step"], left="", note=""
                )
            else:
                self.console.print(f"{title}: {event['total']} steps", highlight=False)
        elif kind == "progress" and self._task is not None:
            left = event.get("seconds_left")
            loss = event["values"].get("loss")
            self._bars.update(
                self._task,
                completed=event["step"],
                total=event["total"],
                left="" if left is None else f"{_clock(left)} left",
                note="" if loss is None else f"loss {loss:.3f}",
            )
        elif kind == "done":
            if self._task is not None:
                self._bars.update(self._task, left="done", note="")
            elif not self.console.is_terminal:
                seconds = event["values"]["seconds"]
                self.console.print(f"{title}: done in {_clock(seconds)}", highlight=False)
        elif kind == "stopped":  # in the middle of a step: the process ends now
            if self.console.is_terminal:
                self._bars.stop()
            self.console.print(self.stopped, highlight=False, markup=False, soft_wrap=True)
        elif kind in ("warning", "message"):
            style = "yellow" if kind == "warning" else ""
            self.console.print(
                event["message"], style=style, highlight=False, markup=False, soft_wrap=True
            )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
