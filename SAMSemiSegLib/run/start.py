"""Run, or continue, in this process: all that is around the stages."""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path
from typing import Any

from SAMSemiSegLib.atomic import is_disk_full
from SAMSemiSegLib.errors import Cancelled, UserError
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.report.report import write_report
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.cases import as_started, write_cases
from SAMSemiSegLib.run.checks import check_before_start
from SAMSemiSegLib.run.events import Events, Listener
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.log import log, log_event, log_to
from SAMSemiSegLib.run.pipeline import Pipeline
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.training.memory import hold_to_free_memory, let_go

STOPPED = "The run was stopped; it can be resumed."


def start(
    project: Project,
    folder: RunFolder,
    settings: RunSettings,
    resume: bool = False,
    listener: Listener | None = None,
    stop_with_parent: bool = False,
) -> Scores | None:
    """Lock, events, log, cancellation; the stages; report and manifest.

    Args:
        project: the cases; a resumed run keeps to those it was started with.
        folder: of the run; created unless ``resume``.
        settings: ignored parts are none; a resumed run passes those it was started with.
        listener: is told each event.
        stop_with_parent: stop when standard input ends.

    Returns:
        The scores; None in all processes but the first.

    Raises:
        UserError: something the user can mend; names cases by id, not by path.
        Cancelled: asked to stop; resumable.
    """
    if not resume:
        check_before_start(project, settings)
    accelerator = make_accelerator(settings.device, settings.mixed_precision)
    main = accelerator.is_main_process
    if not resume:  # a run that goes on on another kind of machine keeps its model
        settings = settings.model_copy(deep=True)
        settings.foundation.name = settings.foundation.resolved(str(accelerator.device))
    if main and not resume:
        folder.create(settings)
        write_cases(project, folder)
    accelerator.wait_for_everyone()
    project = as_started(project, folder)
    locked = not main or folder.lock()
    listeners: tuple[Listener, ...] = (log_event,) if main else ()
    if listener is not None and main:
        listeners += (listener,)
    events = Events(folder.events if main else None, listeners)

    def last_words() -> None:
        log.info(STOPPED)
        events.emit("stopped", message=STOPPED)

    cancellation = Cancellation(folder.cancel_file, stop_with_parent, last_words)
    cancellation.start()
    handler = log_to(folder / "log.txt") if main else None
    context = Context(
        accelerator, events, cancellation, settings.seed, 60 * settings.checkpoint_minutes
    )
    began = time.monotonic()
    try:
        if accelerator.device.type == "cpu":
            hold_to_free_memory()
        events.emit("start", message="resumed" if resume else "started")
        if accelerator.num_processes > 1:
            events.message(f"{accelerator.num_processes} processes work on this run.")
        if not locked:
            events.warning(
                f"The drive of the run '{folder.path.name}' cannot keep other processes out; see "
                "that no other one works on this run."
            )
        scores = Pipeline(project, folder, settings, context).run()
        if main:
            events.emit("end", values={"seconds": time.monotonic() - began})
            write_report(folder.path)
            folder.write_manifest(_manifest(folder))
        return scores if main else None
    except UserError as error:
        told = project.without_paths(str(error))
        error.args = (told,)  # what the command prints is kept in a file too: the panel's log
        log.error("%s", told)
        with contextlib.suppress(OSError):  # the disk may be what is full
            events.emit("error", message=told)
        raise
    except Cancelled:
        log.info(STOPPED)
        raise
    except Exception as error:
        _clean(error, project)
        if not (isinstance(error, OSError) and is_disk_full(error)):
            told = project.without_paths(traceback.format_exc())
            log.error("The run ended unexpectedly\n%s", told)
        raise
    finally:
        cancellation.stop()
        if handler is not None:
            log.removeHandler(handler)
            handler.close()
        folder.unlock()
        let_go()


def _clean(error: BaseException | None, project: Project) -> None:
    """Take the paths of scans out of an error and of those that it came from: their traceback is
    printed, and what is printed the panel keeps."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error.args = tuple(
            project.without_paths(part) if isinstance(part, str) else part for part in error.args
        )
        if isinstance(error, OSError):
            for name in ("filename", "filename2"):
                if isinstance(path := getattr(error, name), str | Path):
                    setattr(error, name, project.without_paths(str(path)))
        error = error.__cause__ or error.__context__


def _manifest(folder: RunFolder) -> dict[str, Any]:
    """Names of what a complete run has made, where it is there."""
    candidates = {
        "report": "report.html",
        "scores": "evaluation/scores.json",
        "pseudolabels": "pseudolabels",
        "proposals": "proposals",
        "net": "retraining/net.safetensors",
        "torchscript": "model/model.ts",
        "onnx": "model/model.onnx",
        "bundle": "model/bundle",
    }
    # The last round that was made: one that had nothing to do has its selection alone.
    number = 1
    while (folder / f"round-{number}" / "retraining" / "net.safetensors").exists():
        candidates["net"] = f"round-{number}/retraining/net.safetensors"
        candidates["pseudolabels"] = f"round-{number}/pseudolabels"
        number += 1
    made = {name: path for name, path in candidates.items() if (folder / path).exists()}
    return {"complete": True, **made}
