"""From settings to a method with its networks, after checking what the method needs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.retraining.ssl.method import METHODS, Needs, SSLMethod
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import Norm, RetrainingSettings, Size3, validated

LITTLE_DROPOUT = 0.1
"""For a method whose passes have to differ, where the settings have no dropout. It is enough for
that; the published 0.5 cost a narrow network that began without any two Dice in a short run."""


def adapt_settings(
    settings: RetrainingSettings, n_labeled: int, n_unlabeled: int
) -> tuple[RetrainingSettings, list[str]]:
    """The settings changed to what the method needs, and a sentence for each change.

    Args:
        settings: as the user gave them; left alone.
        n_labeled: number of labeled cases.
        n_unlabeled: number of unlabeled cases.

    Raises:
        InputError: no labeled case; or there is no such method or option.
    """
    needs = needs_of(settings)
    title = METHODS[settings.method].title
    settings = settings.model_copy(deep=True)
    notes = []
    if n_labeled < 1:
        raise InputError("No case is labeled; label at least one case before training.")
    if settings.net.norm not in needs.norms:
        norm = _norm_of(needs)
        notes.append(f"{title} does not work with {settings.net.norm} norm; {norm} norm is used.")
        settings.net.norm = norm
    if needs.dropout and settings.net.dropout == 0:
        settings.net.dropout = LITTLE_DROPOUT
        notes.append(
            f"{title} compares passes of a network with dropout; it is {settings.net.dropout:g}."
        )
    both = [settings.labeled_batch, settings.unlabeled_batch] if n_unlabeled else []
    wanted = _batch(settings.labeled_batch, needs.labeled_batch, needs, both)
    if settings.labeled_batch != wanted:
        settings.labeled_batch = wanted
        notes.append(f"{title} wants {wanted} labeled crops in a batch; it gets them.")
    wanted = _batch(settings.unlabeled_batch, needs.unlabeled_batch, needs, both)
    if n_unlabeled and settings.unlabeled_batch != wanted:
        settings.unlabeled_batch = wanted
        notes.append(f"{title} wants {wanted} unlabeled crops in a batch; it gets them.")
    if n_labeled < settings.labeled_batch:
        notes.append(
            f"{settings.labeled_batch} different crops are taken of {n_labeled} labeled case(s)."
        )
    if n_unlabeled == 0 and METHODS[settings.method].uses_unlabeled:
        notes.append(f"There is no unlabeled case, so {title} is supervised training here.")
    return settings, notes


def _norm_of(needs: Needs) -> Norm:
    """The first that suits."""
    norms: tuple[Norm, ...] = ("instance", "group", "batch")
    return next(norm for norm in norms if norm in needs.norms)


def _batch(given: int, least: int, needs: Needs, both: Sequence[int]) -> int:
    """Crops of one batch; ``both`` as given, where there are two."""
    if not needs.pairs:
        return max(given, least)
    wanted = max(given, least, *both)
    return wanted + wanted % 2


def check_patch(patch: Sequence[int], settings: RetrainingSettings) -> None:
    """Refuse a patch that the method or the network cannot work on.

    Raises:
        InputError: a side is not a multiple of what the method needs.
    """
    entry = METHODS[settings.method]
    divisor = needs_of(settings).divisor
    if any(side < divisor or side % divisor for side in patch):
        shown = "x".join(str(side) for side in patch)
        raise InputError(
            f"The patch {shown} (retraining.patch) does not suit {entry.title}: "
            f"make each side a multiple of {divisor}, or leave it unset."
        )
    if all(side == 16 for side in patch) and settings.net.norm != "group":
        raise InputError(
            "A patch of 16x16x16 leaves one voxel at the bottleneck, which "
            f"{settings.net.norm} norm cannot normalize; set retraining.net.norm=group, or a "
            "larger retraining.patch."
        )


def check_warm_start(settings: RetrainingSettings) -> None:
    """Refuse a warm start whose network the method could not go on from.

    Raises:
        InputError: it names no method, or one that does not work with the norm that the method
            trains with, or with the patch.
    """
    if settings.warm_start is None:
        return
    own, _ = adapt_settings(settings, 1, 1)
    first = own.model_copy(update={"method": settings.warm_start.method, "options": {}})
    needs = needs_of(first)
    if own.net.norm not in needs.norms:
        raise InputError(
            f"{METHODS[first.method].title} (retraining.warm_start.method) does not work with "
            f"{own.net.norm} norm; choose another method, or set retraining.net.norm to "
            f"{_norm_of(needs)}."
        )
    if own.patch is not None:
        check_patch(own.patch, first)


def needs_of(settings: RetrainingSettings) -> Needs:
    """What the method of the settings needs, with its options.

    Raises:
        InputError: there is no such method, or an option is unknown or out of range.
    """
    return METHODS[settings.method].needs_of(read_options(settings))


def read_options(settings: RetrainingSettings) -> SSLMethod.Options:
    """The method's own options, validated.

    Raises:
        InputError: an option is unknown or out of range; the sentence names it.
    """
    entry = METHODS[settings.method]
    return validated(entry.Options, settings.options, "retraining.options", entry.title)


def build_method(
    settings: RetrainingSettings,
    channels: int,
    n_labeled: int,
    n_unlabeled: int,
    patch: Size3,
) -> SSLMethod:
    """The method named in the settings with freshly initialized networks.

    Args:
        settings: of the re-training stage; adapted as by :func:`adapt_settings`.
        channels: K, number of classes with the background.
        n_labeled: number of labeled cases.
        n_unlabeled: number of unlabeled cases.
        patch: voxels of a crop along x, y, z.

    Raises:
        InputError: the method, an option or the patch cannot be used.
    """
    options = read_options(settings)
    check_patch(patch, settings)
    settings, _ = adapt_settings(settings, n_labeled, n_unlabeled)
    entry = METHODS[settings.method]

    def build_net() -> nn.Module:
        return VNet(channels, settings.net, entry.needs_of(options).heads)

    method = entry(build_net, channels, options)
    method.prepare(patch)
    return method
