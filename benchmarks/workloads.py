"""Six models as users' scripts train them: which layers, which data, which `compile` and batch size.

Each is told in the words that fastrnn and Keras share, so `build` takes the namespaces of either:

    from fastrnn import layers, models          or          from keras import layers, models

    workload = WORKLOADS["addition"]
    model = workload.compiled(layers, models)
    x, y = workload.data()
    model.fit(x, y, batch_size=workload.batch_size, epochs=2)

Data are made up, of the shapes and kinds that the scripts have: sums that can be learned, one-hot text, words that are
as unevenly distributed as words are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[Any, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One script.

    Attributes:
        name: short, as tables show it.
        title: the model in words.
        batch_size: of `fit`.
        samples: of an epoch that takes about a second.
        optimizer, loss, metrics: as given to `compile`.
        build: the model, not compiled, from the namespaces `layers` and `models`.
        make: x and y, from a random generator and the number of samples.
    """

    name: str
    title: str
    batch_size: int
    samples: int
    optimizer: str
    loss: str
    metrics: tuple[str, ...]
    build: Callable[[Any, Any], Any]
    make: Callable[[np.random.Generator, int], Arrays]

    def compiled(self, layers: Any, models: Any) -> Any:
        """The model, ready for `fit`."""
        model = self.build(layers, models)
        model.compile(optimizer=self.optimizer, loss=self.loss, metrics=list(self.metrics))
        return model

    def data(self, samples: int | None = None) -> Arrays:
        """x (a list for several inputs) and y: the same arrays in every process."""
        return self.make(np.random.default_rng(0), samples or self.samples)


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    """(...) integers as (..., count) float32."""
    return np.eye(count, dtype=np.float32)[classes]


# adding two numbers of three digits, character by character

CHARACTERS = "0123456789+ "


def _addition(layers: Any, models: Any) -> Any:
    return models.Sequential(
        [
            layers.Input((7, len(CHARACTERS))),
            layers.LSTM(128),
            layers.RepeatVector(4),
            layers.LSTM(128, return_sequences=True),
            layers.Dense(len(CHARACTERS), activation="softmax"),
        ]
    )


def _sums(random: np.random.Generator, samples: int) -> Arrays:
    a, b = random.integers(0, 1000, (2, samples))
    questions = [f"{m}+{n}".ljust(7)[::-1] for m, n in zip(a, b, strict=True)]
    answers = [str(m + n).ljust(4) for m, n in zip(a, b, strict=True)]
    x, y = ([[CHARACTERS.index(c) for c in text] for text in texts] for texts in (questions, answers))
    return one_hot(np.array(x), len(CHARACTERS)), one_hot(np.array(y), len(CHARACTERS))


# the next character of a text

SIGNS, WINDOW = 57, 40


def _text(layers: Any, models: Any) -> Any:
    return models.Sequential(
        [layers.Input((WINDOW, SIGNS)), layers.LSTM(128), layers.Dense(SIGNS, activation="softmax")]
    )


def _windows(random: np.random.Generator, samples: int) -> Arrays:
    text = one_hot(_uneven(random, SIGNS, 3 * samples + WINDOW), SIGNS)
    starts = 3 * np.arange(samples)
    return text[starts[:, None] + np.arange(WINDOW)], text[starts + WINDOW]


# whether a review is a good one

WORDS, REVIEW = 20_000, 200


def _reviews_model(layers: Any, models: Any) -> Any:
    return models.Sequential(
        [
            layers.Input((REVIEW,), dtype="int32"),
            layers.Embedding(WORDS, 128),
            layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(64)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def _reviews(random: np.random.Generator, samples: int) -> Arrays:
    y = random.integers(0, 2, (samples, 1))
    return _uneven(random, WORDS, (samples, REVIEW)).astype(np.int32), y.astype(np.float32)


# the temperature in twelve hours, from five days

HOURS, MEASURED = 120, 7


def _weather(layers: Any, models: Any) -> Any:
    return models.Sequential([layers.Input((HOURS, MEASURED)), layers.LSTM(32), layers.Dense(1)])


def _days(random: np.random.Generator, samples: int) -> Arrays:
    steps = np.arange(samples + HOURS + 12)[:, None]
    series = np.sin(2 * np.pi * steps / random.uniform(12, 96, MEASURED) + random.uniform(0, 6, MEASURED))
    series = (series + 0.1 * random.standard_normal(series.shape)).astype(np.float32)
    starts = np.arange(samples)
    return series[starts[:, None] + np.arange(HOURS)], series[starts + HOURS + 11, :1]


# translation, character by character

SOURCE, TARGET = (16, 71), (59, 93)


def _translation(layers: Any, models: Any) -> Any:
    sentence = layers.Input((None, SOURCE[1]))
    _, h, c = layers.LSTM(256, return_state=True)(sentence)
    shifted = layers.Input((None, TARGET[1]))
    y = layers.LSTM(256, return_sequences=True)(shifted, initial_state=[h, c])
    return models.Model([sentence, shifted], layers.Dense(TARGET[1], activation="softmax")(y))


def _sentences(random: np.random.Generator, samples: int) -> Arrays:
    sentence = one_hot(_uneven(random, SOURCE[1], (samples, SOURCE[0])), SOURCE[1])
    signs = one_hot(_uneven(random, TARGET[1], (samples, TARGET[0] + 1)), TARGET[1])
    return [sentence, np.ascontiguousarray(signs[:, :-1])], np.ascontiguousarray(signs[:, 1:])


# the next word

VOCABULARY, PHRASE = 10_000, 35


def _words_model(layers: Any, models: Any) -> Any:
    return models.Sequential(
        [
            layers.Input((PHRASE,), dtype="int32"),
            layers.Embedding(VOCABULARY, 200),
            layers.GRU(200, return_sequences=True),
            layers.GRU(200, return_sequences=True),
            layers.Dense(VOCABULARY, activation="softmax"),
        ]
    )


def _phrases(random: np.random.Generator, samples: int) -> Arrays:
    words = _uneven(random, VOCABULARY, (samples, PHRASE + 1)).astype(np.int32)
    return np.ascontiguousarray(words[:, :-1]), np.ascontiguousarray(words[:, 1:])


# nothing to speak of: what a step costs before anything is computed


def _tiny(layers: Any, models: Any) -> Any:
    return models.Sequential([layers.Input((5, 3)), layers.LSTM(8), layers.Dense(1)])


def _little(random: np.random.Generator, samples: int) -> Arrays:
    x = random.standard_normal((samples, 5, 3)).astype(np.float32)
    return x, x.mean(axis=(1, 2), keepdims=True)[:, 0]


def _uneven(random: np.random.Generator, count: int, shape: Any) -> np.ndarray:
    """Numbers below `count`, n with a probability proportional to 1 / (n + 1)."""
    share = 1 / np.arange(1, count + 1)
    return np.searchsorted(np.cumsum(share / share.sum()), random.random(shape)).clip(0, count - 1)


WORKLOADS = {
    w.name: w
    for w in (
        Workload(
            "addition", "LSTM(128), RepeatVector(4), LSTM(128), softmax of 12", 32, 6400,
            "adam", "categorical_crossentropy", ("accuracy",), _addition, _sums,
        ),
        Workload(
            "text", "LSTM(128) over 40 of 57 characters, softmax", 128, 2560,
            "rmsprop", "categorical_crossentropy", (), _text, _windows,
        ),
        Workload(
            "reviews", "Embedding(20000, 128), two bidirectional LSTM(64), T 200", 32, 320,
            "adam", "binary_crossentropy", ("accuracy",), _reviews_model, _reviews,
        ),
        Workload(
            "weather", "LSTM(32) over 120 x 7", 256, 5120,
            "adam", "mse", (), _weather, _days,
        ),
        Workload(
            "translation", "encoder and decoder LSTM(256), T 16 and 59, softmax of 93", 64, 512,
            "rmsprop", "categorical_crossentropy", ("accuracy",), _translation, _sentences,
        ),
        Workload(
            "words", "Embedding(10000, 200), two GRU(200), T 35, softmax of 10000", 20, 160,
            "adam", "sparse_categorical_crossentropy", (), _words_model, _phrases,
        ),
    )
}  # fmt: skip

# not one of the six: it shows the cost of a step in which nothing is computed
TINY = Workload("tiny", "LSTM(8), T 5", 4, 8000, "adam", "mse", (), _tiny, _little)
