"""What the report says in words."""

from __future__ import annotations

from typing import Any

from SAMSemiSegLib.report.material import Material

_TITLES = {
    "preprocessing": "Preprocessing",
    "finetuning": "Adapting the foundation model",
    "pseudolabels": "Pseudo-labels",
    "selection": "Confident volumes",
    "supervised": "Supervised V-Net",
    "warm-start": "Warm start of the V-Net",
    "retraining": "Re-training the V-Net",
    "evaluation": "Evaluation",
    "proposals": "Segmentation of the unlabeled cases",
    "export": "Export",
}


def stage_title(stage: str) -> str:
    """A stage's name as a heading; ``evaluation:re-trained`` is a part of a stage."""
    name, _, part = stage.partition(":")
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    return f"{title} ({part})" if part else title


def clock(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def count(number: int, what: str) -> str:
    """1 volume, 2 volumes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _strategy_title(name: str) -> str:
    """What people call it; its name, where a later version no longer has it."""
    from SAMSemiSegLib.finetuning.strategy import STRATEGIES

    return STRATEGIES[name].title if name in STRATEGIES else name


def _method_title(name: str) -> str:
    from SAMSemiSegLib.retraining.ssl.method import METHODS

    return METHODS[name].title if name in METHODS else name


def summary_sentences(material: Material) -> list[str]:
    """What was done and what came out, as far as the run has come."""
    sentences = []
    settings = material.settings
    model = _get(settings, "foundation", "name")
    strategy = _get(settings, "finetuning", "strategy")
    method = _get(settings, "retraining", "method")
    labeled = material.counts.get("labeled")
    if _began(material, "warm-start"):
        sentences.append("A V-Net was trained on the labels first.")
    if strategy and _began(material, "finetuning"):
        name = (
            "The foundation model" if model in (None, "auto") else f"The foundation model {model}"
        )
        volumes = count(labeled, "labeled volume") if labeled else "the labeled volumes"
        sentences.append(f"{name} was adapted to {volumes} ({_strategy_title(strategy)}).")
    if material.pseudo_scores:
        sentences.append(
            f"It wrote pseudo-labels for {count(len(material.pseudo_scores), 'unlabeled volume')}."
        )
    if method and _began(material, "retraining"):
        warm = "The V-Net" if _began(material, "warm-start") else "A V-Net"
        with_labels = " with the pseudo-labels" if material.pseudo_scores else ""
        # The supervised loss on both is no method of its own.
        how = "" if with_labels and method == "supervised" else f" ({_method_title(method)})"
        sentences.append(f"{warm} was then trained{with_labels}{how}.")
    if material.selections:
        judged = len(next(iter(material.selections.values())))
        chosen = [sum(j.confident for j in s.values()) for s in material.selections.values()]
        # Where none or all are, there was nothing to do (run/pipeline.py).
        rounds = [number for number in chosen if 0 < number < judged]
        if rounds:
            sentences.append(
                f"In {count(len(rounds), 'further round')} the volumes that it was sure of adapted "
                f"the foundation model again ({', '.join(map(str, rounds))} of {judged})."
            )
        if len(rounds) < len(chosen):
            sure = "all volumes" if chosen[-1] else "no volume"
            sentences.append(f"It was then sure of {sure}, so that there was no further round.")
    if material.scores is not None:
        rows = material.scores.row_names
        last = material.scores.overall(rows[-1])
        sentence = (
            f"On {count(last.cases, 'case')} that no stage had seen, its mean Dice is "
            f"{last.figures['dice'].mean:.3f}"
        )
        others = [
            f"{row} {material.scores.overall(row).figures['dice'].mean:.3f}" for row in rows[:-1]
        ]
        sentences.append(sentence + (f" ({', '.join(others)})." if others else "."))
    if not material.complete:
        sentences.append("The run is not complete.")
    return sentences


def _began(material: Material, stage: str) -> bool:
    return any(name.partition(":")[0] == stage for name in material.seconds)


def _get(settings: dict[str, Any], section: str, key: str) -> str | None:
    part = settings.get(section)
    value = part.get(key) if isinstance(part, dict) else None
    return str(value) if value is not None else None
