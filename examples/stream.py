"""A signal that arrives sample by sample: forecast it as it comes, with `model.stepper()`.

    python examples/stream.py            # about ten seconds on 2 cores
    python examples/stream.py --quick    # one or two seconds

An LSTM learns, from whole sequences, to tell the next sample of a noisy sum of two waves. Then it runs live: one step a
sample, from the state the last step left. The last lines say how often the live forecasts were, bit by bit, those that
`predict` gives for the whole signal at once, and how long a step takes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import fastrnn as keras
from fastrnn import layers


def signals(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(count, length): sums of two waves of random frequency and phase, with a little noise."""
    t = np.arange(length)
    frequency, phase = rng.uniform(0.05, 0.5, (2, count, 1)), rng.uniform(0, 2 * np.pi, (2, count, 1))
    return (np.sin(frequency * t + phase).sum(0) + 0.05 * rng.normal(size=(count, length))).astype("float32")


def main(arguments: list[str] | None = None) -> tuple[float, float, float]:
    """Trains and streams; returns the live error, the share of equal forecasts and the microseconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    epochs, count = (2, 300) if options.quick else (options.epochs, 3000)

    keras.utils.set_random_seed(1)
    data = signals(count, 101, np.random.default_rng(1))[..., None]
    model = keras.Sequential(
        [
            layers.Input((None, 1)),
            layers.LSTM(options.units, return_sequences=True),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(5e-3), "mse")
    model.fit(data[:, :-1], data[:, 1:], batch_size=64, epochs=epochs, verbose=2)

    live = signals(1, 2001, np.random.default_rng(2))[0, :, None]
    stepper, forecasts = model.stepper(), np.empty((2000, 1), "float32")
    for sample, forecast in zip(live[:-1], forecasts, strict=True):
        stepper.step(sample, out=forecast)
    error = float(np.sqrt(np.mean((forecasts - live[1:]) ** 2)))
    equal = float((forecasts == model.predict(live[None, :-1], verbose=0)[0]).mean())

    step, fastest = stepper.step, np.inf
    for _ in range(20):
        start = time.perf_counter()
        for sample in live:
            step(sample)
        fastest = min(fastest, time.perf_counter() - start)
    microseconds = 1e6 * fastest / len(live)
    print(f"live forecasts are off by {error:.3f} (root mean square); the signal itself moves by {live.std():.3f}")
    print(f"{equal:.2%} of them are those of predict; a step of LSTM({options.units}) takes {microseconds:.2f} us")
    return error, equal, microseconds


if __name__ == "__main__":
    main()
