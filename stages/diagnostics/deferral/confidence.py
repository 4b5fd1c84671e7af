"""How sure a model is of its answers: read off how likely it finds the choices, off how alike the prompts of a pool answer, or
learned. Arrays in, numbers out.

Shapes: n items, c choices, m prompts, f features, S the subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

Floats = NDArray[np.float64]

FOLDS = 5
_PENALTY = 1.0
"""Of the squares of the learned confidence's weights, against the sum of losses: a normal prior of variance 1."""
_SEED = 0
_LEAST = 1e-9


def plain_confidences(loglikelihoods: Sequence[Floats]) -> dict[str, Floats]:
    """By name [n], of the log-likelihoods of each item's distinct choices in nats; the larger, the surer.

    margin: of the likeliest choice over the next one. probability: of the likeliest, among the choices. entropy: less
    spread over the choices is surer. mass: what all choices have together, of all that could be said.
    """
    found = [_of_item(np.sort(item)[::-1]) for item in loglikelihoods]
    return {name: np.array([each[name] for each in found]) for name in ("margin", "probability", "entropy", "mass")}


def _of_item(likeliest_first: Floats) -> dict[str, float]:
    mass = logsumexp(likeliest_first)
    logs = likeliest_first - mass
    return {
        "margin": float(likeliest_first[0] - likeliest_first[1]),
        "probability": float(np.exp(logs[0])),
        "entropy": float((np.exp(logs) * logs).sum()),
        "mass": float(mass),
    }


def agreement(answer: Sequence[Any], of_prompts: Sequence[Sequence[Any]]) -> Floats:
    """Share [n] of the prompts [m, n] that answer as the repair does [n]."""
    alike = [[one == other for one, other in zip(answer, of_prompt, strict=True)] for of_prompt in of_prompts]
    return np.mean(alike, axis=0)


def learned(confidences: Mapping[str, Floats], right: NDArray[Any], subjects: NDArray[Any]) -> Floats:
    """How likely each answer is right [n]: a logistic regression on the other confidences, which never saw the item's subject.

    Args:
        right: [n].
        subjects: [n], the number of each item's subject; nobody is in two folds.
    """
    features = np.stack(list(confidences.values()), axis=1)
    places = np.random.default_rng(_SEED).permutation(subjects.max() + 1)[subjects]
    found = np.empty(len(right))
    for fold in range(FOLDS):
        held_out = places % FOLDS == fold
        if held_out.any():
            found[held_out] = _fitted(features[~held_out], right[~held_out], features[held_out])
    return found


def _fitted(features: Floats, right: NDArray[Any], asked: Floats) -> Floats:
    """Probabilities of `asked` [a, f], by a regression on `features` [k, f] and which of them are right [k]."""
    mean, deviation = features.mean(0), features.std(0).clip(min=_LEAST)
    inputs, signs = _with_constant((features - mean) / deviation), np.where(right, 1.0, -1.0)

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = signs * (inputs @ weights)
        penalised = np.append(weights[:-1], 0.0)
        slope = -(signs * expit(-margins)) @ inputs + _PENALTY * penalised
        return float(np.logaddexp(0, -margins).sum() + _PENALTY / 2 * (penalised**2).sum()), slope

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    probabilities: Floats = expit(_with_constant((asked - mean) / deviation) @ found)
    return probabilities


def _with_constant(inputs: Floats) -> Floats:
    return np.hstack([inputs, np.ones((len(inputs), 1))])


def shuffled(confidence: Floats) -> Floats:
    """The same values on other items: a confidence that knows nothing."""
    return np.random.default_rng(_SEED).permutation(confidence)
