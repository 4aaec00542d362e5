"""Ridge regression in principal coordinates: every strength and target from one decomposition."""

import numpy as np

from heads.design import Design
from heads.head import Float


def solve_ridge(design: Design, Y: Float, alphas: Float) -> Float:
    """Minimise ``sum_i weight_i * |Y_i - f_i|^2 + alpha * |V|^2`` for every alpha.

    Args:
        design: The fold.
        Y: Targets of its rows, ``(m, t)``, weighted mean 0 (the coordinates have it too, so no intercept is left).
        alphas: ``(s,)``, positive.

    Returns:
        Coefficients of the coordinates without the last, ``(s, t, r)``.
    """
    T = design.coordinates[:, :-1]
    pulled = T.T @ (design.weight[:, None] * Y)
    if design.is_uniform:
        return np.asarray(pulled.T / (len(T) * design.power + alphas[:, None])[:, None])
    values, vectors = np.linalg.eigh(T.T @ (design.weight[:, None] * T))
    turned = (vectors.T @ pulled).T / (np.maximum(values, 0) + alphas[:, None])[:, None]
    return np.asarray(turned @ vectors.T)


def target_scale(y: Float, weight: Float) -> tuple[Float, Float]:
    """Mean and standard deviation of each output, ``(t,)``; 1 where it does not vary."""
    centre = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - centre) ** 2, axis=0, weights=weight))
    return centre, np.where(scale > 1e-12 * np.abs(centre), scale, 1.0)
