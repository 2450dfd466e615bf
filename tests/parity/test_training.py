"""Whole models against Keras and PyTorch: outputs, gradients of the loss, and three training steps.

The models are written once, for whichever module is handed in: that Keras' code runs as it stands is part of the claim.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

BATCH, TIME, FEATURES, TOKENS, CLASSES = 6, 5, 4, 9, 3
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2


@pytest.fixture
def float64(keras):
    """Keras' policy too: it is taken from floatx once, when the first layer is made."""
    before = keras.config.floatx(), keras.config.dtype_policy(), fastrnn.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    fastrnn.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])
    fastrnn.config.set_floatx(before[2])


# models: (module) -> model, loss; and their data


def tagger(k):
    """Tokens with padding -> a class for each."""
    model = k.Sequential(
        [
            k.Input((None,), dtype="int32"),
            k.layers.Embedding(TOKENS, 4, mask_zero=True),
            k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True)),
            k.layers.TimeDistributed(k.layers.Dense(CLASSES, activation="softmax")),
        ]
    )
    return model, "sparse_categorical_crossentropy"


def classifier(k):
    """Masked features -> one of two classes, with penalties, constraints and every kind of stacking."""
    model = k.Sequential(
        [
            k.Input((TIME, FEATURES)),
            k.layers.Masking(),
            k.layers.GRU(4, return_sequences=True, kernel_regularizer="l2", activity_regularizer="l2"),
            k.layers.Bidirectional(k.layers.GRU(3, return_sequences=True, reset_after=False), merge_mode="sum"),
            k.layers.LSTM(3, recurrent_regularizer="l1", bias_constraint="non_neg", activation="softsign"),
            k.layers.Dense(1, activation="sigmoid"),
        ]
    )
    return model, "binary_crossentropy"


def regressor(k):
    """Features -> a number at every step; layers that are shared, reversed, repeated and joined."""
    x = k.Input((TIME, FEATURES))
    shared = k.layers.SimpleRNN(3, return_sequences=True)
    y = shared(k.layers.Dense(FEATURES, activation="relu")(x))
    z = k.layers.LSTM(3, go_backwards=True)(shared(x))
    z = k.layers.RepeatVector(TIME)(z)
    joined = k.layers.Concatenate()([y, z, k.layers.Add()([y, z])])
    return k.Model(x, k.layers.Dense(1)(k.layers.GRU(3, return_sequences=True)(joined))), "mse"


def encoder_decoder(k):
    """Tokens -> states -> classes, as Keras users write it."""
    source, target = k.Input((None,), dtype="int32"), k.Input((None,), dtype="int32")
    _, h, c = k.layers.LSTM(4, return_state=True)(k.layers.Embedding(TOKENS, 3, mask_zero=True)(source))
    decoder = k.layers.LSTM(4, return_sequences=True, return_state=True)
    y, _, _ = decoder(k.layers.Embedding(TOKENS, 3)(target), initial_state=[h, c])
    return k.Model([source, target], k.layers.Dense(CLASSES, activation="softmax")(y)), "categorical_crossentropy"


MODELS = {m.__name__: m for m in (tagger, classifier, regressor, encoder_decoder)}


def data(name, dtype="float64"):
    random = np.random.default_rng(len(name))
    tokens = random.integers(1, TOKENS, (BATCH, TIME))
    tokens[1, 3:] = 0
    tokens[2, 1:] = 0
    tokens[3, :2] = 0
    x = random.normal(size=(BATCH, TIME, FEATURES)).astype(dtype)
    labels = random.integers(0, CLASSES, (BATCH, TIME))
    if name == "tagger":
        return tokens, labels
    if name == "classifier":
        x[1, 3:], x[2, :2], x[3, 2] = 0, 0, 0
        return x, random.integers(0, 2, (BATCH, 1)).astype(dtype)
    if name == "regressor":
        return x, random.normal(size=(BATCH, TIME, 1)).astype(dtype)
    return [tokens, random.integers(0, TOKENS, (BATCH, TIME))], np.eye(CLASSES, dtype=dtype)[labels]


def pair(keras, name):
    """The model of Keras and ours with the same weights, larger ones than the initializers give."""
    (theirs, loss), (ours, _) = MODELS[name](keras), MODELS[name](fastrnn)
    random = np.random.default_rng(1)
    weights = [random.uniform(-0.8, 0.8, w.shape) for w in ours.weights]
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs, loss


def close(ours, theirs, tolerance, what):
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else np.asarray(theirs)
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, what
    error = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
    assert error <= tolerance, f"{what} differs by {error:.2e}"


@pytest.mark.parametrize("name", MODELS)
def test_outputs_loss_and_gradients_are_those_of_keras(torch, keras, float64, name):
    ours, theirs, loss = pair(keras, name)
    x, y = data(name)
    for model in (ours, theirs):
        model.compile("sgd", loss)
    inputs = [torch.tensor(a) for a in x] if isinstance(x, list) else torch.tensor(x)
    predicted = theirs(inputs)
    value = theirs.compute_loss(inputs, torch.tensor(y), predicted)
    gradients = torch.autograd.grad(value, [w.value for w in theirs.trainable_weights])
    close(ours.predict(x, verbose=0), predicted, 1e-10, "output")
    our_value, our_gradients = ours.gradients(x, y)
    close(our_value, value, 1e-10, "loss")
    for w, a, b in zip(ours.weights, our_gradients, gradients, strict=True):
        close(a, b, 1e-10, f"gradient of {w.path}")


def test_weighted_samples_and_steps_have_the_gradients_of_keras(torch, keras, float64):
    """Keras wants the weight of a row, for a loss at every step, as a column."""
    for name, shape in (("tagger", (BATCH, TIME)), ("regressor", (BATCH, 1))):
        ours, theirs, loss = pair(keras, name)
        x, y = data(name)
        weight = np.random.default_rng(5).uniform(0, 2, shape)
        for model in (ours, theirs):
            model.compile("sgd", loss)
        inputs = torch.tensor(x)
        value = theirs.compute_loss(inputs, torch.tensor(y), theirs(inputs), torch.tensor(weight))
        gradients = torch.autograd.grad(value, [w.value for w in theirs.trainable_weights])
        our_value, our_gradients = ours.gradients(x, y, sample_weight=weight.squeeze())
        close(our_value, value, 1e-10, "loss")
        for w, a, b in zip(ours.weights, our_gradients, gradients, strict=True):
            close(a, b, 1e-10, f"gradient of {w.path}")


def inference_models(k, model):
    """The encoder and the one-step decoder of Keras' tutorial, rebuilt from the layers of the trained model."""
    encoder_lstm, decoder_lstm = [layer for layer in model.layers if isinstance(layer, k.layers.LSTM)]
    encoder = k.Model(model.input[0], encoder_lstm.output[1:])
    states = [k.Input((4,)), k.Input((4,))]
    _, embedding = [layer for layer in model.layers if isinstance(layer, k.layers.Embedding)]
    y, h, c = decoder_lstm(embedding.output, initial_state=states)
    return encoder, k.Model([model.input[1], *states], [model.layers[-1](y), h, c])


def test_inference_models_of_trained_layers_decode_as_keras_does(keras, float64):
    ours, theirs, loss = pair(keras, "encoder_decoder")
    x, y = data("encoder_decoder")
    decoded = []
    for module, model in ((fastrnn, ours), (keras, theirs)):
        model.compile("adam", loss)
        model.train_on_batch(x, y)
        encoder, decoder = inference_models(module, model)
        token, states = np.ones((BATCH, 1), int), encoder.predict(x[0], verbose=0)
        outputs = []
        for _ in range(4):
            p, *states = decoder.predict([token, *states], verbose=0)
            token = p.argmax(-1)
            outputs.append(p)
        decoded.append(np.concatenate(outputs, axis=1))
    close(*decoded, 1e-10, "decoded probabilities")


OPTIMIZERS = {
    "sgd": lambda o: o.SGD(0.1),
    "momentum": lambda o: o.SGD(0.1, momentum=0.9),
    "nesterov": lambda o: o.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda o: o.RMSprop(0.01),
    "rmsprop_centered": lambda o: o.RMSprop(0.01, momentum=0.5, centered=True),
    "adam": lambda o: o.Adam(0.01),
    "amsgrad": lambda o: o.Adam(0.01, amsgrad=True),
    "adamw": lambda o: o.AdamW(0.01, weight_decay=0.1),
    "adagrad": lambda o: o.Adagrad(0.05),
    "adadelta": lambda o: o.Adadelta(1.0),
    "nadam": lambda o: o.Nadam(0.01),
    "schedule": lambda o: o.SGD(o.schedules.ExponentialDecay(0.1, 2, 0.5)),
    "clipvalue": lambda o: o.Adam(0.01, clipvalue=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_three_steps_of_every_optimizer_are_those_of_keras(keras, float64, name, optimizer):
    ours, theirs, loss = pair(keras, name)
    x, y = data(name)
    for module, model in ((fastrnn, ours), (keras, theirs)):
        model.compile(OPTIMIZERS[optimizer](module.optimizers), loss)
    for step in range(3):
        close(ours.train_on_batch(x, y), theirs.train_on_batch(x, y), 1e-10, f"loss of step {step}")
    for w, a, b in zip(ours.weights, ours.get_weights(), theirs.get_weights(), strict=True):
        close(a, b, 1e-10, w.path)


@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm"])
def test_steps_with_clipped_norms_are_those_of_keras(keras, float64, clipping):
    """Keras rounds these norms to float32."""
    ours, theirs, loss = pair(keras, "tagger")
    x, y = data("tagger")
    for module, model in ((fastrnn, ours), (keras, theirs)):
        model.compile(module.optimizers.SGD(0.5, **{clipping: 0.05}), loss)
        for _ in range(3):
            model.train_on_batch(x, y)
    for w, a, b in zip(ours.weights, ours.get_weights(), theirs.get_weights(), strict=True):
        close(a, b, 1e-6, w.path)


@pytest.mark.parametrize("name", MODELS)
def test_float32_models_agree_to_1e_5(keras, name):
    ours, theirs, loss = pair(keras, name)
    x, y = data(name, "float32")
    for module, model in ((fastrnn, ours), (keras, theirs)):
        model.compile(module.optimizers.SGD(0.1), loss)
    close(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), 1e-5, "output")
    for _ in range(3):
        close(ours.train_on_batch(x, y), theirs.train_on_batch(x, y), 1e-5, "loss")
    for w, a, b in zip(ours.weights, ours.get_weights(), theirs.get_weights(), strict=True):
        close(a, b, 1e-5, w.path)


@pytest.mark.parametrize("name", ["tagger", "classifier"])
def test_evaluate_reports_the_loss_and_accuracy_of_keras(keras, float64, name):
    ours, theirs, loss = pair(keras, name)
    x, y = data(name)
    for model in (ours, theirs):
        model.compile("sgd", loss, metrics=["accuracy"])
    reported = [model.evaluate(x, y, batch_size=4, verbose=0) for model in (ours, theirs)]
    close(*reported, 1e-6, "loss and accuracy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_three_steps_of_sgd_are_those_of_torch(torch, cell, dtype):
    """Two layers in both directions, the last step's output into a linear layer, mean squared error."""
    torch.manual_seed(0)
    real, tolerance = getattr(torch, dtype), 1e-5 if dtype == "float32" else 1e-10
    units, gates = 3, {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
    module = getattr(torch.nn, cell)(FEATURES, units, num_layers=2, bidirectional=True, batch_first=True).to(real)
    linear = torch.nn.Linear(2 * units, 2).to(real)
    if cell != "GRU":  # ours has one bias where torch has two, so one of torch's stays at zero
        for name, parameter in module.named_parameters():
            if name.startswith("bias_hh"):
                parameter.data.zero_()
                parameter.requires_grad_(False)

    def weights():
        """Ours, of torch's: columns for rows, z r h for r z n, biases of the GRU as two rows."""
        state = {k: v.detach().numpy().copy() for k, v in module.named_parameters()}
        order = [1, 0, 2] if gates == 3 else range(gates)
        found = []
        for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
            arrays = [state[f"{n}_{suffix}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            split = [a.reshape(gates, units, -1)[list(order)].reshape(a.shape) for a in arrays]
            found += [split[0].T, split[1].T, np.stack(split[2:]) if gates == 3 else split[2]]
        return [*found, linear.weight.detach().numpy().T.copy(), linear.bias.detach().numpy().copy()]

    layers = fastrnn.layers
    layer = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}[cell]
    ours = fastrnn.Sequential(
        [
            fastrnn.Input((TIME, FEATURES), dtype=dtype),
            layers.Bidirectional(layer(units, return_sequences=True, dtype=dtype)),
            layers.Bidirectional(layer(units, return_sequences=True, dtype=dtype)),
            layers.Dense(2, dtype=dtype),
        ]
    )
    ours.set_weights(weights())
    ours.compile(fastrnn.optimizers.SGD(0.1), "mse")
    trained = [p for p in [*module.parameters(), *linear.parameters()] if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    x, y = torch.randn(BATCH, TIME, FEATURES, dtype=real), torch.randn(BATCH, TIME, 2, dtype=real)
    for _ in range(3):
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(linear(module(x)[0]), y)
        value.backward()
        optimizer.step()
        close(ours.train_on_batch(x.numpy(), y.numpy()), value, tolerance, "loss")
    for w, a, b in zip(ours.weights, ours.get_weights(), weights(), strict=True):
        close(a, b, tolerance, w.path)
