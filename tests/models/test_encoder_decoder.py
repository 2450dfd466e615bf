"""The encoder-decoder as Keras users write it: one model to train, two to decode with, from the same layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastrnn import Input, Model, layers, models, optimizers, utils

TOKENS, WIDTH, LENGTH = 7, 24, 3
START = 0


def training_model() -> Model:
    encoder_inputs = Input(shape=(None, TOKENS))
    encoder = layers.LSTM(WIDTH, return_state=True)
    _, state_h, state_c = encoder(encoder_inputs)
    encoder_states = [state_h, state_c]
    decoder_inputs = Input(shape=(None, TOKENS))
    decoder_lstm = layers.LSTM(WIDTH, return_sequences=True, return_state=True)
    decoder_outputs, _, _ = decoder_lstm(decoder_inputs, initial_state=encoder_states)
    decoder_outputs = layers.Dense(TOKENS, activation="softmax")(decoder_outputs)
    return Model([encoder_inputs, decoder_inputs], decoder_outputs)


def inference_models(model: Model) -> tuple[Model, Model]:
    encoder_inputs = model.input[0]
    _, state_h_enc, state_c_enc = model.layers[2].output
    encoder_model = Model(encoder_inputs, [state_h_enc, state_c_enc])
    decoder_inputs = model.input[1]
    decoder_states_inputs = [Input(shape=(WIDTH,)), Input(shape=(WIDTH,))]
    decoder_outputs, state_h_dec, state_c_dec = model.layers[3](decoder_inputs, initial_state=decoder_states_inputs)
    decoder_outputs = model.layers[4](decoder_outputs)
    return encoder_model, Model([decoder_inputs, *decoder_states_inputs], [decoder_outputs, state_h_dec, state_c_dec])


def decode(encoder_model: Model, decoder_model: Model, x: np.ndarray, steps: int) -> np.ndarray:
    states = encoder_model.predict(x, verbose=0)
    token = np.zeros((len(x), 1, TOKENS), dtype="float32")
    token[:, 0, START] = 1
    found = []
    for _ in range(steps):
        output, *states = decoder_model.predict([token, *states], verbose=0)
        found.append(output[:, -1].argmax(axis=-1))
        token = np.eye(TOKENS, dtype="float32")[found[-1]][:, None]
    return np.stack(found, axis=1)


def reversal(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    digits = np.random.default_rng(seed).integers(1, TOKENS, size=(count, LENGTH))
    eye = np.eye(TOKENS, dtype="float32")
    target = digits[:, ::-1]
    shifted = np.concatenate([np.full((count, 1), START), target[:, :-1]], axis=1)
    return [eye[digits], eye[shifted]], eye[target]


def test_layers_stand_where_keras_users_look_for_them() -> None:
    model = training_model()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "InputLayer", "LSTM", "LSTM", "Dense"]
    assert model.input[0].node.layer is model.layers[0] and len(model.layers[2].output) == 3


def test_inference_models_step_through_what_the_training_model_computes() -> None:
    model = training_model()
    encoder_model, decoder_model = inference_models(model)
    (x, teacher), _ = reversal(4, 0)
    expected = model.predict([x, teacher], verbose=0)
    states = encoder_model.predict(x, verbose=0)
    for t in range(LENGTH):
        output, *states = decoder_model.predict([teacher[:, t : t + 1], *states], verbose=0)
        np.testing.assert_allclose(output[:, 0], expected[:, t], rtol=1e-5, atol=1e-6)
    assert encoder_model.weights[0] is model.weights[0]


def test_gradient_flows_through_the_states_into_the_encoder() -> None:
    model = training_model()
    model.compile("adam", "categorical_crossentropy")
    x, y = reversal(8, 0)
    _, gradients = model.gradients(x, y)
    assert all(np.abs(g).max() > 0 for g in gradients)


@pytest.mark.parametrize("reload", [False, True])
def test_it_learns_to_reverse_digits_and_decodes_unseen_ones(reload: bool, tmp_path: Path) -> None:
    utils.set_random_seed(1)
    model = training_model()
    model.compile(optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    x, y = reversal(512, 1)
    history = model.fit(x, y, batch_size=32, epochs=14, verbose=0)
    assert history.history["accuracy"][-1] > 0.97
    if reload:
        model.save(tmp_path / "s2s.safetensors")
        model = models.load_model(tmp_path / "s2s.safetensors")
    unseen, target = reversal(100, 2)
    found = decode(*inference_models(model), unseen[0], LENGTH)
    assert (found == target.argmax(axis=-1)).all(axis=1).mean() > 0.8
