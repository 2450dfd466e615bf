"""Recurrent layers of every cell, with weights that are the same in every test."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn.layers import GRU, LSTM, SimpleRNN

FEATURES, UNITS = 4, 2
MAKERS = {
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": lambda *a, **k: GRU(*a, reset_after=False, **k),
    "simple_rnn": SimpleRNN,
}


@pytest.fixture(params=MAKERS)
def make(request):
    """Makes the layer with the options it is given, in float64, built for FEATURES."""

    def make(**options):
        layer = MAKERS[request.param](UNITS, dtype="float64", **options)
        layer.build((None, None, FEATURES))
        random = np.random.default_rng(0)
        layer.set_weights([random.normal(0, 0.7, w.shape) for w in layer.weights])
        return layer

    return make
