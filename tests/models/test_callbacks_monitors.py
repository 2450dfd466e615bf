"""The callbacks that watch a value or set the learning rate: what they decide."""

from __future__ import annotations

import math

import pytest
from played_fit import Metric, Model, fit

from fastrnn.models import callbacks as C
from fastrnn.saving import SaveError


def losses(values):
    return [{"loss": v, "val_loss": v} for v in values]


def test_early_stopping_waits_for_patience():
    _, history = fit([C.EarlyStopping(patience=2)], losses([5, 4, 4, 4, 3]))
    assert history.epoch == [0, 1, 2, 3]


def test_early_stopping_min_delta_asks_for_more():
    _, history = fit([C.EarlyStopping(min_delta=0.5)], losses([5, 4.4, 4, 3]))
    assert history.epoch == [0, 1, 2]


def test_early_stopping_does_not_stop_in_the_first_epoch():
    stop = C.EarlyStopping(baseline=1.0)
    _, history = fit([stop], losses([5, 6, 7]))
    assert history.epoch == [0, 1] and stop.stopped_epoch == 1


def test_early_stopping_restores_the_best_weights_also_when_it_did_not_stop():
    stop = C.EarlyStopping(patience=9, restore_best_weights=True)
    model, history = fit([stop], losses([5, 2, 3, 4]))
    assert len(history.epoch) == 4 and model.seen == 2 and stop.best_epoch == 1


def test_early_stopping_starts_from_an_epoch():
    _, history = fit([C.EarlyStopping(start_from_epoch=3)], losses([1, 2, 3, 4, 5, 6]))
    assert history.epoch == [0, 1, 2, 3, 4]


def test_early_stopping_is_not_fooled_by_nan():
    stop = C.EarlyStopping(patience=2)
    _, history = fit([stop], losses([math.nan, 3, 2, math.nan, math.nan]))
    assert history.epoch == [0, 1, 2, 3, 4] and stop.best == 2


def test_nan_in_the_first_epoch_does_not_stop_at_once():
    _, history = fit([C.EarlyStopping()], losses([math.nan, 2, 3]))
    assert history.epoch == [0, 1, 2]


def test_without_any_number_the_first_weights_come_back():
    stop = C.EarlyStopping(patience=2, restore_best_weights=True)
    model, history = fit([stop], losses([math.nan, math.nan, math.nan]))
    assert history.epoch == [0, 1] and model.seen == 1


def test_early_stopping_can_be_used_again():
    stop = C.EarlyStopping(patience=1)
    fit([stop], losses([1, 2]))
    assert stop.stopped_epoch == 1
    _, history = fit([stop], losses([5, 4, 3]))
    assert history.epoch == [0, 1, 2] and stop.stopped_epoch == 0


def test_a_watched_value_that_is_missing_warns():
    with pytest.warns(UserWarning, match="EarlyStopping watches 'val_loss', which is not among the logs: loss"):
        fit([C.EarlyStopping()], [1.0])


@pytest.mark.parametrize(
    ("monitor", "rising"),
    [
        ("val_loss", False),
        ("loss", False),
        ("out_loss", False),
        ("val_accuracy", True),
        ("acc", True),
        ("sparse_categorical_accuracy", True),
        ("val_mean_squared_error", False),
        ("mae", False),
        ("auc", True),
        ("decoder_accuracy", True),
        ("val_binary_crossentropy", False),
        ("r2_score", True),
        ("rmse", False),
    ],
)
def test_auto_mode_knows_the_usual_names(monitor, rising):
    assert C.EarlyStopping(monitor).rising() is rising


def test_auto_mode_asks_the_metric_first():
    stop = C.EarlyStopping("val_mine")
    stop.set_model(Model())
    stop.model.metrics = [Metric("mine", "up")]
    assert stop.rising()
    stop.model.metrics = [Metric("mine", "down")]
    assert not stop.rising()


def test_auto_mode_that_cannot_tell_says_so():
    with pytest.raises(ValueError, match="cannot tell whether 'bleu' should rise or fall"):
        fit([C.EarlyStopping("bleu")], [{"bleu": 1.0}, {"bleu": 2.0}])


@pytest.mark.parametrize(
    "cls", [C.EarlyStopping, C.ReduceLROnPlateau, lambda **k: C.ModelCheckpoint("a.safetensors", **k)]
)
def test_unknown_mode_is_refused(cls):
    with pytest.raises(ValueError, match='mode "auto", "min" or "max"; received \'lowest\''):
        cls(mode="lowest")


# ModelCheckpoint


def test_checkpoint_fills_in_epoch_and_logs(tmp_path):
    model, _ = fit(
        [C.ModelCheckpoint(tmp_path / "new" / "{epoch:02d}-{val_loss:.2f}.safetensors")], losses([0.5, 0.25])
    )
    assert model.saved == [
        ("model", str(tmp_path / "new" / name)) for name in ("01-0.50.safetensors", "02-0.25.safetensors")
    ]
    assert (tmp_path / "new").is_dir()


def test_checkpoint_keeps_only_the_best():
    model, _ = fit(
        [C.ModelCheckpoint("{epoch}.safetensors", save_best_only=True, save_weights_only=True)],
        losses([math.nan, 3, 4, 2, 2, math.nan, 1]),
    )
    assert model.saved == [("weights", f"{epoch}.safetensors") for epoch in (2, 4, 7)]


def test_checkpoint_threshold_must_be_beaten():
    model, _ = fit(
        [C.ModelCheckpoint("{epoch}.safetensors", save_best_only=True, initial_value_threshold=2.5)],
        losses([3, 2, 2.4]),
    )
    assert model.saved == [("model", "2.safetensors")]


def test_checkpoint_of_the_best_remembers_across_fits():
    checkpoint = C.ModelCheckpoint("{epoch}.safetensors", save_best_only=True)
    fit([checkpoint], losses([1]))
    assert fit([checkpoint], losses([2, 0.5]))[0].saved == [("model", "2.safetensors")]


def test_checkpoint_every_so_many_batches_counts_over_epochs():
    model, _ = fit([C.ModelCheckpoint("{epoch}-{batch}-{loss:.0f}.safetensors", save_freq=2)], [5.0, 4.0], steps=3)
    assert [path for _, path in model.saved] == ["1-2-5.safetensors", "2-1-4.safetensors", "2-3-4.safetensors"]


def test_checkpoint_in_mid_epoch_can_watch_the_training_loss():
    model, _ = fit(
        [C.ModelCheckpoint("{epoch}.safetensors", "loss", save_best_only=True, save_freq=1)], [5.0, 6.0, 4.0], steps=2
    )
    assert [path for _, path in model.saved] == ["1.safetensors", "3.safetensors"]


def test_checkpoint_saves_with_a_warning_when_the_value_is_missing():
    with pytest.warns(UserWarning, match="'val_loss', which is not among the logs"):
        model, _ = fit([C.ModelCheckpoint("a.safetensors", save_best_only=True)], [1.0])
    assert model.saved == [("model", "a.safetensors")]


def test_checkpoint_names_what_can_be_filled_in():
    with pytest.raises(
        ValueError, match=r"cannot fill 'val_acc' into '\{val_acc\}.safetensors'; known are: epoch, loss"
    ):
        fit([C.ModelCheckpoint("{val_acc}.safetensors")], [1.0])


@pytest.mark.parametrize("path", ["model.keras", "model.weights.h5", "model"])
def test_checkpoint_refuses_other_suffixes_at_once(path):
    with pytest.raises(SaveError, match=r"\.safetensors"):
        C.ModelCheckpoint(path)


@pytest.mark.parametrize("frequency", [0, -1, 1.5, "batch", True, None])
def test_checkpoint_refuses_other_frequencies(frequency):
    with pytest.raises(ValueError, match='save_freq "epoch" or a positive number of batches'):
        C.ModelCheckpoint("a.safetensors", save_freq=frequency)


# learning rates


def rates(callback, values):
    return fit([callback], losses(values))[1].history["learning_rate"]


def test_plateau_reduces_after_patience_and_then_counts_anew():
    model, history = fit([C.ReduceLROnPlateau(patience=2, factor=0.5)], losses([1, 1, 1, 1, 1, 1]))
    assert (
        history.history["learning_rate"] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]
        and model.optimizer.learning_rate == 0.025
    )


def test_plateau_cools_down():
    assert rates(C.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=2), [1] * 7) == [
        0.1,
        0.1,
        0.05,
        0.05,
        0.025,
        0.025,
        0.0125,
    ]


def test_plateau_stops_at_the_lower_bound():
    model, _ = fit([C.ReduceLROnPlateau(patience=1, factor=0.1, min_lr=0.03)], losses([1] * 5))
    assert model.optimizer.learning_rate == 0.03


def test_plateau_ignores_small_changes():
    model, _ = fit([C.ReduceLROnPlateau(patience=1, factor=0.5)], losses([1, 1 - 5e-5]))
    assert model.optimizer.learning_rate == 0.05


@pytest.mark.parametrize("factor", [1.0, 2, -0.1])
def test_plateau_refuses_factors_that_do_not_reduce(factor):
    with pytest.raises(ValueError, match=r"factor in \[0, 1\)"):
        C.ReduceLROnPlateau(factor=factor)


def test_scheduler_takes_epoch_and_rate():
    assert rates(C.LearningRateScheduler(lambda epoch, rate: rate * 0.5), [1, 1, 1]) == [0.05, 0.025, 0.0125]


def test_scheduler_takes_the_epoch_alone():
    assert rates(C.LearningRateScheduler(lambda epoch: 1 / (epoch + 1)), [1, 1]) == [1.0, 0.5]


def test_scheduler_does_not_hide_errors_of_the_schedule():
    def schedule(epoch, rate):
        return rate + None

    with pytest.raises(TypeError, match="unsupported operand"):
        rates(C.LearningRateScheduler(schedule), [1])


@pytest.mark.parametrize("value", [None, "0.1", math.nan, [0.1], True])
def test_scheduler_refuses_what_is_no_number(value):
    with pytest.raises((ValueError, TypeError)):
        rates(C.LearningRateScheduler(lambda epoch: value), [1])
