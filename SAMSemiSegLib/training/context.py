"""What every stage of a run is given."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events, Kind

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn


@dataclass
class Context:
    """Collaborators of a stage.

    Attributes:
        accelerator: device, number format, processes.
        events: the event stream (silent on all processes but the first).
        cancellation: asked between steps.
        seed: of the run.
        checkpoint_seconds: time between two checkpoints.
    """

    accelerator: Accelerator
    events: Events
    cancellation: Cancellation
    seed: int = 1337
    checkpoint_seconds: float = 60.0

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def main(self) -> bool:
        """Whether this is the first process, which writes the files all share."""
        return self.accelerator.is_main_process

    @functools.cached_property
    def autocast_dtype(self) -> torch.dtype | None:
        """The number format of mixed precision, or None."""
        import torch

        formats = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return formats.get(self.accelerator.mixed_precision)

    def tell(self, told: Sequence[tuple[Kind, str]]) -> None:
        """Tell what the processes met, each in its share; all must call it."""
        from accelerate.utils import gather_object

        several = self.accelerator.num_processes > 1
        for kind, text in gather_object(list(told)) if several else told:
            self.events.emit(kind, message=text)

    def share(self, items: list[str]) -> list[str]:
        """This process's part of the items: every n-th one."""
        return items[self.accelerator.process_index :: self.accelerator.num_processes]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Over the processes. A parameter that took no part in the step has a zero gradient, with
        one process too, so that it decays alike however many there are.

        Here rather than by DistributedDataParallel: a method may have several networks, use only
        some of their heads in a step, and run one of them twice.
        """
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.accelerator.num_processes > 1:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()
