"""A character-level language model: an LSTM reads text, one character after the other, and learns to guess the next.

    python examples/char_lm.py                                  # the source code of Python's standard library
    python examples/char_lm.py --text book.txt --seconds 600    # any other text, for longer
    python examples/char_lm.py --resume char_lm.safetensors     # goes on from where the last run ended

It trains, measures itself on text that it has not seen, against a 5-gram model made of the same training text, writes
some text of its own and saves the model. Characters are bytes, so that any file in any language will do.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import callbacks, layers, models, optimizers

ALPHABET = 256
NOT_SOURCE = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "encodings", "pydoc_data"}


# Text


def standard_library(megabytes: float) -> tuple[bytes, bytes]:
    """About so much of the standard library's source code: for training, and every twelfth file held out."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(f for f in root.rglob("*.py") if not NOT_SOURCE & set(f.relative_to(root).parts))
    if not files:
        raise SystemExit(f"found no Python source files below {root}; name a file with --text")
    total = sum(f.stat().st_size for f in files)
    files = files[:: max(1, round(total / (1e6 * megabytes)))]
    print(f"{len(files)} files of {root}")
    held_out = files[::12]
    return _join(f for f in files if f not in held_out), _join(held_out)


def named_files(paths: list[Path]) -> tuple[bytes, bytes]:
    """The first nine tenths of these files for training, the rest held out."""
    text = _join(paths)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def _join(paths: Iterable[Path]) -> bytes:
    return b"".join(path.read_bytes() for path in paths)


def characters(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).astype(np.int64)


def streams(text: np.ndarray, batch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The text cut into `batch` streams, read side by side `window` characters at a time.

    Row k of every batch goes on where row k of the batch before it ended: a stateful LSTM, which carries its states
    from batch to batch, sees `batch` long texts.

    Returns:
        inputs and targets (the same, one character later), both of shape (batches * batch, window).
    """
    length = (len(text) - 1) // (batch * window) * window
    if not length:
        raise SystemExit(f"{len(text)} characters are too few for {batch} streams of {window}")

    def cut(start: int) -> np.ndarray:
        whole = text[start : start + batch * length].reshape(batch, -1, window)
        return whole.swapaxes(0, 1).reshape(-1, window)

    return cut(0), cut(1)


# The baseline


class KneserNey:
    """Interpolated Kneser-Ney n-gram model with three discounts (Chen and Goodman 1998, "modified Kneser-Ney").

    For a context h and a character w, with h' = h without its first character:

        p(w | h) = (c(hw) - D(c(hw)) + mass(h) p(w | h')) / c(h)

    c counts occurrences for the longest n-grams; for shorter ones, the different characters seen before them.
    mass(h) is what the discounts D took from all characters after h. Below single characters p is uniform.
    """

    def __init__(self, text: np.ndarray, order: int = 5) -> None:
        self.order = order
        self.levels = []
        grams, counts = np.unique(self._grams(text, order), return_counts=True)
        for length in range(order, 0, -1):
            discounts = self._discounts(counts)[np.minimum(counts, 3)]
            contexts, start = np.unique(grams // ALPHABET, return_index=True)
            totals, masses = np.add.reduceat(counts, start), np.add.reduceat(discounts, start)
            self.levels.insert(0, (grams, counts - discounts, contexts, totals, masses))
            grams, counts = np.unique(grams % ALPHABET ** (length - 1), return_counts=True)

    def bits(self, text: np.ndarray) -> float:
        """Bits per character of `text`, from the first character that has a whole context."""
        p = np.full(len(text) - self.order + 1, 1 / ALPHABET)
        for length, (grams, kept, contexts, totals, masses) in enumerate(self.levels, start=1):
            wanted = self._grams(text, length)[self.order - length :]
            gram, found = _find(grams, wanted)
            context, seen = _find(contexts, wanted // ALPHABET)
            p = np.where(seen, (found * kept[gram] + masses[context] * p) / totals[context], p)
        return -float(np.log2(p).mean())

    @staticmethod
    def _grams(text: np.ndarray, length: int) -> np.ndarray:
        """Each run of `length` characters as one number."""
        return sum(text[i : len(text) - length + 1 + i] * ALPHABET ** (length - 1 - i) for i in range(length))

    @staticmethod
    def _discounts(counts: np.ndarray) -> np.ndarray:
        """What is taken from counts of 0, 1, 2 and more, by how many n-grams were seen 1, 2, 3 and 4 times."""
        n1, n2, n3, n4 = (max(1, int((counts == i).sum())) for i in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return np.clip([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3], 0, [0, 1, 2, 3])


def _find(table: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the sorted table each wanted number stands, and whether it does."""
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return place, table[place] == wanted


# The model


def build(text: np.ndarray, units: int, depth: int) -> models.Sequential:
    """Embedding, LSTMs that carry their states from batch to batch, and a probability for each character.

    The last bias starts as the logarithm of how frequent the characters are, so that nothing is spent on learning it.
    """
    model = models.Sequential([layers.Input((None,), dtype="int32"), layers.Embedding(ALPHABET, 32)])
    for _ in range(depth):
        model.add(layers.LSTM(units, return_sequences=True, stateful=True))
    model.add(layers.Dense(ALPHABET, activation="softmax"))
    frequencies = (np.bincount(text, minlength=ALPHABET) + 1) / (len(text) + ALPHABET)
    model.layers[-1].bias.assign(np.log(frequencies))
    model.compile(optimizers.Adam(global_clipnorm=1.0), loss="sparse_categorical_crossentropy")
    return model


class Anneal(callbacks.Callback):
    """Lets the learning rate rise in 50 batches, then fall to zero, and stops when the run is over.

    A run is so many batches long or, if `batches` is None, so many seconds.
    """

    def __init__(self, peak: float, batches: int | None, seconds: float) -> None:
        super().__init__()
        self.peak, self.batches, self.seconds = peak, batches, seconds

    def on_train_begin(self, logs=None):
        self.done, self.start = 0, time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        if batch % 100 == 0:  # a model that has never started from zero states cannot read a new text
            self.model.reset_state()
        self.model.optimizer.learning_rate = self.peak * min(1.0, (self.done + 1) / 50) * (1 - self.progress())

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.progress() == 1:
            self.model.stop_training = True

    def progress(self) -> float:
        over = self.done / self.batches if self.batches else (time.perf_counter() - self.start) / self.seconds
        return min(1.0, over)


def bits(model: models.Model, x: np.ndarray, y: np.ndarray, batch: int) -> float:
    """Bits per character of the text in these streams."""
    model.reset_state()
    return model.evaluate(x, y, batch_size=batch, verbose=0) / math.log(2)


def write(model: models.Model, prompt: bytes, length: int, temperature: float, seed: int) -> str:
    """Lets the model go on from `prompt`: each character is drawn from its probabilities and read as the next.

    A temperature below 1 prefers what is likely, one above 1 what is not.
    """
    rng = np.random.default_rng(seed)
    text, p = bytearray(prompt), np.full(ALPHABET, 1 / ALPHABET)
    stepper = model.stepper()
    for character in prompt:
        p = stepper.step(character)
    for _ in range(length):
        p = p.astype(np.float64) ** (1 / temperature)
        text.append(rng.choice(ALPHABET, p=p / p.sum()))
        p = stepper.step(text[-1])
    return text.decode(errors="replace")


# The run


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--text", type=Path, nargs="+", metavar="FILE", help="text to learn; its last tenth is held out")
    option("--megabytes", type=float, default=3.0, help="how much of the standard library to take without --text")
    option("--seconds", type=float, default=80.0, help="time to train")
    option("--epochs", type=int, help="train so many passes over the text instead: the same result every time")
    option("--units", type=int, default=192)
    option("--layers", type=int, default=1)
    option("--batch", type=int, default=32, help="streams that are read side by side")
    option("--window", type=int, default=64, help="characters that gradients reach back")
    option("--learning-rate", type=float, default=0.015)
    option("--temperature", type=float, default=0.6, help="of the sample")
    option("--length", type=int, default=600, help="characters in the sample")
    option("--prompt", default="\nclass ", help="beginning of the sample")
    option("--seed", type=int, default=1)
    option("--save", type=Path, default=Path("char_lm.safetensors"), metavar="FILE")
    option("--resume", type=Path, metavar="FILE", help="a saved model to go on from")
    option("--quick", action="store_true", help="a small model on little text: seconds, to see that all works")
    args = parser.parse_args(argv)
    if not args.temperature > 0:
        parser.error("--temperature must be positive")
    if args.quick:
        args.megabytes, args.epochs, args.units, args.batch, args.length = 0.3, args.epochs or 2, 64, 8, 200
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    fastrnn.utils.set_random_seed(args.seed)

    text, held_out = named_files(args.text) if args.text else standard_library(args.megabytes)
    digest = hashlib.sha256(text + held_out).hexdigest()[:16]
    print(f"{len(text):,} characters to learn, {len(held_out):,} held out; sha256 {digest}")
    text, held_out = characters(text), characters(held_out)
    x, y = streams(text, args.batch, args.window)
    unseen = streams(held_out, args.batch, args.window)

    model = models.load_model(args.resume) if args.resume else build(text, args.units, args.layers)
    model.summary()
    print(f"training for {f'{args.epochs} epochs' if args.epochs else f'{args.seconds:g} seconds'}")
    batches = args.epochs * len(x) // args.batch if args.epochs else None
    anneal = Anneal(args.learning_rate, batches, args.seconds)
    model.fit(x, y, batch_size=args.batch, epochs=args.epochs or 1000, shuffle=False, callbacks=[anneal])

    print("\n" + write(model, args.prompt.encode(), args.length, args.temperature, args.seed) + "\n")
    model.save(args.save)
    print(f"saved {args.save}; --resume {args.save} trains it further")

    ours, baseline = bits(model, *unseen, args.batch), KneserNey(text).bits(held_out)
    print(f"bits per character of the held-out text: LSTM {ours:.3f}, Kneser-Ney 5-gram {baseline:.3f}")


if __name__ == "__main__":
    main()
