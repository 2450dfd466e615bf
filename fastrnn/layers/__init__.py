"""Layers: parts of models, and functions of arrays when called by themselves."""

from __future__ import annotations

from . import arithmetic as arithmetic
from .activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from .bidirectional import Bidirectional
from .dense import Dense
from .dropout import Dropout, SpatialDropout1D
from .embedding import Embedding
from .gru import GRU
from .input import Input, InputLayer
from .layer import Layer
from .lstm import LSTM
from .masking import Masking
from .merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    maximum,
    minimum,
    multiply,
    subtract,
)
from .pooling import GlobalAveragePooling1D, GlobalMaxPooling1D
from .recurrent import Gated, Recurrent
from .reshaping import Flatten, Permute, RepeatVector, Reshape
from .rnn import SimpleRNN
from .time_distributed import TimeDistributed

__all__ = [
    "Activation",
    "Add",
    "Average",
    "Bidirectional",
    "Concatenate",
    "Dense",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GRU",
    "Gated",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "Input",
    "InputLayer",
    "LSTM",
    "Layer",
    "LeakyReLU",
    "Masking",
    "Maximum",
    "Minimum",
    "Multiply",
    "Permute",
    "ReLU",
    "Recurrent",
    "RepeatVector",
    "Reshape",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "Subtract",
    "TimeDistributed",
    "add",
    "average",
    "concatenate",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]
