"""Encoder-decoder as Keras users write it: learns to reverse strings of digits, then translates step by step.

    python examples/reverse_digits.py            # under a minute on 2 cores
    python examples/reverse_digits.py --quick    # a few seconds, not yet good

The encoder reads a string and ends in its states (h, c); the decoder starts from them and writes the string backwards.
In training the decoder is fed the right answer so far (teacher forcing). Afterwards the model is saved and loaded, two
inference models are built from the loaded model's layers, and strings that were not in the training data are translated
symbol by symbol. The last line is the share of unseen strings that came out exactly right.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fastrnn as keras
from fastrnn import layers

DIGITS = 10
START, END, SYMBOLS = DIGITS, DIGITS + 1, DIGITS + 2  # the decoder's input begins with START, its output ends with END


def strings(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Different random strings of `length` digits, (count, length)."""
    found = np.unique(rng.integers(0, DIGITS, size=(2 * count, length)), axis=0)
    return rng.permutation(found)[:count]


def one_hot(tokens: np.ndarray) -> np.ndarray:
    return np.eye(SYMBOLS, dtype=np.float32)[tokens]


def with_edges(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reversed strings behind a START, as the decoder reads them, and before an END, as it should write them."""
    backwards = tokens[:, ::-1]
    edge = np.ones((len(tokens), 1), int)
    return np.hstack([edge * START, backwards]), np.hstack([backwards, edge * END])


def build(units: int) -> keras.Model:
    encoder_inputs = layers.Input((None, SYMBOLS), name="encoder_inputs")
    _, h, c = layers.LSTM(units, return_state=True, name="encoder")(encoder_inputs)
    decoder_inputs = layers.Input((None, SYMBOLS), name="decoder_inputs")
    decoder = layers.LSTM(units, return_sequences=True, return_state=True, name="decoder")
    sequence, _, _ = decoder(decoder_inputs, initial_state=[h, c])
    outputs = layers.Dense(SYMBOLS, activation="softmax", name="symbols")(sequence)
    return keras.Model([encoder_inputs, decoder_inputs], outputs)


def inference_models(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The encoder, and the decoder for one step, from the layers of a trained model."""
    encoder_inputs = model.input[0]
    _, h, c = model.get_layer("encoder").output
    encoder = keras.Model(encoder_inputs, [h, c])

    decoder_inputs, units = model.input[1], model.get_layer("decoder").units
    state = [layers.Input((units,), name="h"), layers.Input((units,), name="c")]
    sequence, h, c = model.get_layer("decoder")(decoder_inputs, initial_state=state)
    return encoder, keras.Model([decoder_inputs, *state], [model.get_layer("symbols")(sequence), h, c])


def translate(tokens: np.ndarray, encoder: keras.Model, decoder: keras.Model, steps: int) -> np.ndarray:
    """What the decoder writes for each string, always taking the likeliest symbol."""
    h, c = encoder.predict(one_hot(tokens), batch_size=256, verbose=0)
    symbol = np.full((len(tokens), 1), START)
    written = []
    for _ in range(steps):
        probabilities, h, c = decoder.predict([one_hot(symbol), h, c], batch_size=256, verbose=0)
        symbol = probabilities.argmax(-1)
        written.append(symbol)
    return np.hstack(written)


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--length", type=int, default=6)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.units, options.length, options.examples, options.epochs = 32, 4, 2000, 2

    keras.utils.set_random_seed(1)
    tokens = strings(options.examples + 1000, options.length, np.random.default_rng(1))
    unseen, tokens = tokens[:1000], tokens[1000:]
    reads, writes = with_edges(tokens)

    model = build(options.units)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(4e-3, options.epochs * -(-len(tokens) // 128)), global_clipnorm=1.0
        ),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit([one_hot(tokens), one_hot(reads)], one_hot(writes), batch_size=128, epochs=options.epochs, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reverse.safetensors")
        model.save(path)
        encoder, decoder = inference_models(keras.models.load_model(path))
    written = translate(unseen, encoder, decoder, options.length + 1)
    for source, target in zip(unseen[:5], written[:5], strict=True):
        print("".join(map(str, source)), "->", "".join(str(t) if t < DIGITS else "." for t in target))
    exact = float((written == with_edges(unseen)[1]).all(1).mean())
    print(f"{exact:.1%} of {len(unseen)} unseen strings of {options.length} digits reversed exactly")
    return exact


if __name__ == "__main__":
    main()
