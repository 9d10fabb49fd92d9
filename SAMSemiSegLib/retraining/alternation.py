"""SFR+ online: within re-training, the network and the foundation model teach each other by crops.

Source: SFR+, IEEE TMI 44(10):3909-3923, 2025, section III-C: a sample of which the re-trained net
is sure (eq. 8) updates the foundation model, with the net's own answer as its label; to the others
the foundation model gives the pseudo-label; the two are updated in turn. What is not printed is our
choice: a sample is a crop; the moving average judges it where the method keeps one, without noise;
the selection begins after a part of the run, before which the stored pseudo-labels serve all crops;
a labeled crop goes with each confident one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Sample
from SAMSemiSegLib.pseudolabels.make import make_pseudo_label, predict_with_guide
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.retraining.batch_norm import evaluating_by_batch
from SAMSemiSegLib.retraining.pseudo_label_term import PseudoLabelTerm
from SAMSemiSegLib.retraining.selection import Evidence, Shape, select
from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, StepResult, UnlabeledBatch
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import forget_frozen_casts
from SAMSemiSegLib.training.loop import CLIP
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import draw_seed

REMEMBERED = 500
"""Judgments on the last so many crops are kept for the report."""


class OnlineAlternation:
    """The pseudo-label term of a method, and the foundation model that makes the labels.

    Args:
        term: any method with its pseudo-label term.
        strategy: the fine-tuned foundation model; trained on.
        known: label maps of labeled crops, which say what is plausible.
        names: of the labels, for cleaning.
        settings: of the run.
        context: collaborators.
    """

    def __init__(
        self,
        term: PseudoLabelTerm,
        strategy: FinetuningStrategy,
        known: Sequence[Shape],
        names: Sequence[str],
        settings: RunSettings,
        context: Context,
    ) -> None:
        self.term = term
        self.strategy = strategy.to(context.device)
        self.strategy.take_each_sample()
        self.known = known
        self.names = names
        self.retraining = settings.retraining
        self.selection = settings.retraining.selection
        # No averaging over canvas offsets and mirrored views, which is for stored labels. And what
        # is one piece in a volume may be two in a crop.
        self.labeling = settings.pseudolabels.model_copy(
            update={"offsets": 1, "flips": False, "largest_component": False}
        )
        self.context = context
        self.judged: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.parameters = [p for p in strategy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, weight_decay=settings.finetuning.weight_decay
        )

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        """The loss terms of the network; the foundation model has taken its own step by then."""
        if unlabeled is None or progress.fraction < self.selection.online_start:
            return self.term.step(labeled, unlabeled, progress)
        if unlabeled.pseudo_hard is None:  # all are of volumes that take no part
            self._train_foundation([], progress)  # the other processes may have samples
            return self.term.step(labeled, unlabeled, progress)
        answers = self._answers(unlabeled.image)
        # 255 outside of the volume, where there is nothing to learn, and in a volume without part.
        inside = (unlabeled.pseudo_hard != IGNORE).cpu().numpy()
        evidence = {
            str(i): Evidence.of(answer, within)
            for i, (answer, within) in enumerate(zip(answers, inside, strict=True))
            if within.any()
        }
        decisions = select(evidence, self.known, self.selection)
        self.judged.extend(vars(decision) for decision in decisions.values())
        sure = [int(i) for i, decision in decisions.items() if decision.confident]
        unsure = [int(i) for i, decision in decisions.items() if not decision.confident]
        result = self.term.step(labeled, self._relabeled(unlabeled, unsure), progress)
        samples = [
            Sample(
                f"crop {i} of step {progress.step}",
                unlabeled.image[i, 0],
                torch.from_numpy(np.where(inside[i], answers[i].argmax(0), IGNORE)).to(
                    labeled.labels
                ),
                seed=draw_seed(),
            )
            for i in sure
        ]
        samples += [
            Sample(
                f"labeled {i} of step {progress.step}",
                labeled.image[i, 0],
                labeled.labels[i],
                seed=draw_seed(),
            )
            for i in range(min(len(samples), len(labeled.image)))
        ]
        self._train_foundation(samples, progress)
        judged = list(decisions.values())
        if judged:
            result.values["confident_share"] = len(sure) / len(judged)
            result.values["crop_confidence"] = float(np.mean([d.confidence for d in judged]))
        return result

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "term": self.term.state_dict(),
            "foundation": self.strategy.trainable_state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "judged": list(self.judged),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` gave."""
        self.term.load_state_dict(state["term"])
        self.strategy.load_trainable_state_dict(state["foundation"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.judged.clear()
        self.judged.extend(state["judged"])

    @torch.no_grad()
    def _answers(self, images: Tensor) -> list[np.ndarray[Any, Any]]:
        """Probabilities (K, X, Y, Z) of the judge for each crop."""
        judge = self.term.ema_net() or self.term.final_net()
        with evaluating_by_batch(judge):
            answers = list(judge(images).float().softmax(1).cpu().numpy())
        forget_frozen_casts()
        return answers

    def _relabeled(self, unlabeled: UnlabeledBatch, unsure: Sequence[int]) -> UnlabeledBatch:
        """The batch with what the foundation model says now of these crops; no other takes part."""
        image = unlabeled.image
        assert unlabeled.pseudo_hard is not None
        hard = unlabeled.pseudo_hard.clone()
        soft, confidence = self._maps(unlabeled)
        for i in unsure:
            found = self._pseudo_label(image[i, 0])
            hard[i] = torch.from_numpy(found.hard).to(hard).where(hard[i] != IGNORE, IGNORE)
            for kept, new in ((soft, found.probabilities), (confidence, found.confidence)):
                if kept is not None:
                    kept[i] = torch.from_numpy(new).to(kept)
        chosen = torch.tensor([i in unsure for i in range(len(image))], device=image.device)
        return replace(
            unlabeled, pseudo_hard=hard, pseudo_soft=soft, confidence=confidence, selected=chosen
        )

    def _maps(self, unlabeled: UnlabeledBatch) -> tuple[Tensor | None, Tensor | None]:
        """Probabilities and confidence to write into, those that the settings ask for; a batch
        whose volumes have no stored pseudo-label comes without."""
        image, soft, confidence = unlabeled.image, unlabeled.pseudo_soft, unlabeled.confidence
        if soft is None and self.retraining.pseudo_label_target == "soft":
            soft = image.new_zeros((len(image), len(self.names) + 1, *image.shape[2:]))
        if confidence is None and self.retraining.confidence_weights:
            confidence = image.new_zeros((len(image), *image.shape[2:]))
        return (
            None if soft is None else soft.clone(),
            None if confidence is None else confidence.clone(),
        )

    def _pseudo_label(self, image: Tensor) -> PseudoLabel:
        self.strategy.eval()
        with torch.inference_mode():
            prediction = predict_with_guide(self.strategy, image, self.labeling)
        forget_frozen_casts()
        return make_pseudo_label(prediction, self.labeling, self.names)

    def _train_foundation(self, samples: list[Sample], progress: Progress) -> None:
        """One step on the samples, over all processes; none where no process has any."""
        accelerator = self.context.accelerator
        count = torch.tensor(float(len(samples)), device=self.context.device)
        if accelerator.num_processes > 1:
            count = accelerator.reduce(count, "sum")
        if count == 0:
            return
        rate = self.selection.online_learning_rate * (1 - progress.fraction) ** 0.9
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        if samples:
            self.strategy.train()
            # fp16 would need a gradient scaler of its own here.
            half = self.context.autocast_dtype == torch.float16
            full = torch.autocast(self.context.device.type, enabled=False)
            with full if half else nullcontext():
                terms = self.strategy.step(samples, [], progress)
                torch.stack([term.float() for term in terms.values()]).sum().backward()
        self.context.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
