"""What a method needs is given to it, or refused with a sentence."""

import pytest

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.retraining.student import adapt_settings, build_method, check_patch, needs_of
from SAMSemiSegLib.run.settings import NetSettings, RetrainingSettings


def test_settings_are_adapted_or_refused_with_a_sentence() -> None:
    settings = RetrainingSettings(method="magicnet", labeled_batch=1, unlabeled_batch=1)
    adapted, notes = adapt_settings(settings, 1, 5)
    assert adapted.net.norm == "instance" and settings.net.norm == "batch"
    assert any("instance norm" in note for note in notes)
    adapted, notes = adapt_settings(
        RetrainingSettings(method="bcp", labeled_batch=1, unlabeled_batch=1), 1, 5
    )
    assert (adapted.labeled_batch, adapted.unlabeled_batch) == (4, 4) and len(notes) == 3
    plain = RetrainingSettings(method="ua_mt", net=NetSettings(dropout=0))
    adapted, notes = adapt_settings(plain, 3, 3)
    assert adapted.net.dropout == 0.1 and any("dropout" in note for note in notes)
    odd = RetrainingSettings(method="bcp", labeled_batch=3, unlabeled_batch=5)
    adapted, notes = adapt_settings(odd, 9, 9)
    assert (adapted.labeled_batch, adapted.unlabeled_batch) == (6, 6) and len(notes) == 2
    many = RetrainingSettings(method="bcp", labeled_batch=8, unlabeled_batch=4)
    adapted, notes = adapt_settings(many, 9, 9)
    assert (adapted.labeled_batch, adapted.unlabeled_batch) == (8, 8)
    assert notes == ["BCP wants 8 unlabeled crops in a batch; it gets them."]
    assert adapt_settings(odd, 9, 0)[0].labeled_batch == 4
    for change, words in [
        ({"options": {"lambda": 1}}, "retraining.options.lambda"),
        ({"options": {"ema_decay": 2}}, "retraining.options.ema_decay"),
        ({"method": "no_such"}, "choose one of"),
    ]:
        with pytest.raises(InputError, match=words):
            build_method(RetrainingSettings(**change), 2, 1, 2, (32, 32, 32))
    with pytest.raises(InputError, match="multiple of 16"):
        build_method(RetrainingSettings(), 2, 1, 1, (32, 40, 32))
    with pytest.raises(InputError, match="multiple of 32"):
        build_method(RetrainingSettings(method="magicnet"), 2, 1, 1, (32, 48, 32))


def test_some_needs_depend_on_the_options() -> None:
    cubes = RetrainingSettings(method="magicnet", options={"cube": 48})
    assert needs_of(cubes).divisor == 48
    check_patch((96, 48, 96), cubes)
    with pytest.raises(InputError, match="multiple of 48"):
        check_patch((96, 32, 96), cubes)
    small = RetrainingSettings(
        method="magicnet", options={"cube": 16}, net=NetSettings(norm="instance")
    )
    assert adapt_settings(small, 1, 1)[0].net.norm == "group"
    with pytest.raises(InputError, match=r"options\.cube"):
        needs_of(RetrainingSettings(method="magicnet", options={"cube": 40}))
    for indicator, dropout in (("entropy", 0), ("uncertainty", 0.1)):
        own = RetrainingSettings(
            method="acmt", options={"indicator": indicator}, net=NetSettings(dropout=0)
        )
        assert adapt_settings(own, 1, 1)[0].net.dropout == dropout
