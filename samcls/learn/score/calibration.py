"""Temperature scaling: one number for each task that makes probabilities mean what they say.

Fitted on validation by maximum likelihood (Guo et al., 1706.04599); it changes no ranking between
two classes and no answer.

    temperature = fit_temperature(labels, probabilities)
    probabilities = temperature_scaled(probabilities, temperature)
"""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["fit_temperature", "temperature_scaled"]

RANGE = 20.0  # highest temperature tried, and one over the lowest
SMALLEST = 1e-12


def fit_temperature(
    labels: Int[np.ndarray, " image"], probabilities: Float[np.ndarray, "image class"]
) -> float:
    """Return the temperature under which labels are most likely; 1 where there is no label.

    Args:
        labels: Class indices of the validation split; -1 where a label is missing.
        probabilities: What the model says of the same images.
    """
    from scipy.optimize import minimize_scalar  # a second, and a prediction needs none

    known = labels >= 0
    if not known.any():
        return 1.0
    logs = np.log(np.clip(probabilities[known], SMALLEST, 1)).astype(np.float64)
    truth = labels[known]

    def nll(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        norm = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((norm - scaled[np.arange(len(truth)), truth]).mean())

    bounds = (-np.log(RANGE), np.log(RANGE))
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded").x))


def temperature_scaled(
    probabilities: Float[np.ndarray, "image class"], temperature: float
) -> Float[np.ndarray, "image class"]:
    """Softmax of the logarithms over the temperature; rows sum to 1."""
    logs = np.log(np.clip(probabilities, SMALLEST, 1)) / temperature
    raised = np.exp(logs - logs.max(1, keepdims=True))
    scaled: np.ndarray = raised / raised.sum(1, keepdims=True)
    return scaled
