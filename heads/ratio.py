"""Ratios that may not be defined: NaN stands for "not defined here"."""

import numpy as np

from heads.head import Float


def ratio(above: Float, below: Float) -> Float:
    """Return above / below, NaN where below is 0 or not a number."""
    out: Float = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=out, where=below > 0)


def mean_of_defined(values: Float) -> Float:
    """Return the mean over the last axis of what is a number."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))
