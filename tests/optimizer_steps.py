"""The steps of the optimizers as formulas on arrays: what the kernels' steps (`kernels.steps`) are to compute.

Each function takes weights w, gradient g, the slots and the coefficients in the kernels' order, and gives the new w and
slots. The first coefficient multiplies w first (decoupled weight decay).
"""

from __future__ import annotations

import numpy as np


def sgd(w, g, slots, keep, lr):
    return keep * w - lr * g, ()


def momentum(w, g, slots, keep, lr, friction):
    m = friction * slots[0] - lr * g
    return keep * w + m, (m,)


def nesterov(w, g, slots, keep, lr, friction):
    m = friction * slots[0] - lr * g
    return keep * w + friction * m - lr * g, (m,)


def lion(w, g, slots, keep, lr, beta_1, beta_2):
    m = slots[0]
    move = lr * np.sign(beta_1 * m + (1 - beta_1) * g)
    return keep * w - move, (beta_2 * m + (1 - beta_2) * g,)


def adam(w, g, slots, keep, alpha, beta_1, beta_2, epsilon):
    m, v = _moments(g, slots, beta_1, beta_2)
    return keep * w - alpha * m / (np.sqrt(v) + epsilon), (m, v)


def amsgrad(w, g, slots, keep, alpha, beta_1, beta_2, epsilon):
    m, v = _moments(g, slots, beta_1, beta_2)
    most = np.maximum(slots[2], v)
    return keep * w - alpha * m / (np.sqrt(most) + epsilon), (m, v, most)


def adamax(w, g, slots, keep, alpha, beta_1, beta_2, epsilon):
    m = slots[0] + (1 - beta_1) * (g - slots[0])
    u = np.maximum(beta_2 * slots[1], np.abs(g))
    return keep * w - alpha * m / (u + epsilon), (m, u)


def nadam(w, g, slots, keep, of_momentum, of_gradient, root, beta_1, beta_2, epsilon):
    m, v = _moments(g, slots, beta_1, beta_2)
    return keep * w - (of_momentum * m + of_gradient * g) / (root * np.sqrt(v) + epsilon), (m, v)


def rmsprop(w, g, slots, keep, lr, rho, friction, epsilon, *, has_momentum=False, centered=False):
    v = rho * slots[0] + (1 - rho) * g**2
    new, under = [v], v + epsilon
    if centered:
        a = rho * slots[-1] + (1 - rho) * g
        under = under - a**2
    move = lr * g / np.sqrt(under)
    if has_momentum:
        move = friction * slots[1] + move
        new.append(move)
    return keep * w - move, (*new, a) if centered else tuple(new)


def rmsprop_momentum(*arguments):
    return rmsprop(*arguments, has_momentum=True)


def rmsprop_centered(*arguments):
    return rmsprop(*arguments, centered=True)


def rmsprop_momentum_centered(*arguments):
    return rmsprop(*arguments, has_momentum=True, centered=True)


def adagrad(w, g, slots, keep, lr, epsilon):
    v = slots[0] + g**2
    return keep * w - lr * g / np.sqrt(v + epsilon), (v,)


def adadelta(w, g, slots, keep, lr, rho, epsilon):
    v = rho * slots[0] + (1 - rho) * g**2
    move = g * np.sqrt(slots[1] + epsilon) / np.sqrt(v + epsilon)
    return keep * w - lr * move, (v, rho * slots[1] + (1 - rho) * move**2)


def _moments(g, slots, beta_1, beta_2):
    m, v = slots[:2]
    return m + (1 - beta_1) * (g - m), v + (1 - beta_2) * (g**2 - v)


STEPS = {
    "sgd": (sgd, (0.1,)),
    "momentum": (momentum, (0.1, 0.9)),
    "nesterov": (nesterov, (0.1, 0.9)),
    "lion": (lion, (0.1, 0.9, 0.99)),
    "adam": (adam, (0.02, 0.9, 0.999, 1e-7)),
    "amsgrad": (amsgrad, (0.02, 0.9, 0.999, 1e-7)),
    "adamax": (adamax, (0.02, 0.9, 0.999, 1e-7)),
    "nadam": (nadam, (0.01, 0.02, 1.3, 0.9, 0.999, 1e-7)),
    "rmsprop": (rmsprop, (0.01, 0.9, 0.0, 1e-7)),
    "rmsprop_momentum": (rmsprop_momentum, (0.01, 0.9, 0.8, 1e-7)),
    "rmsprop_centered": (rmsprop_centered, (0.01, 0.9, 0.0, 1e-7)),
    "rmsprop_momentum_centered": (rmsprop_momentum_centered, (0.01, 0.9, 0.8, 1e-7)),
    "adagrad": (adagrad, (0.1, 1e-7)),
    "adadelta": (adadelta, (1.0, 0.95, 1e-7)),
}
"""By name: the formula, and coefficients after the first."""
