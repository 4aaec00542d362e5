import numpy as np
import pytest

from heads.curvature import Blocks, Hessian, Principal, Problems
from heads.logistic import _conjugate_gradients


@pytest.mark.parametrize("inverse", [Principal, Blocks])
def test_rounding_that_all_classes_have_in_common_does_not_grow(inverse):
    """A softmax does not see it, and no penalty holds the intercept: a step along it would be endless."""
    rng, k, n, r = np.random.default_rng(0), 3, 12, 4
    T, Y, ratio = rng.normal(size=(1, n, r)), np.zeros((1, k, 1, n)), np.ones((1, 1, 1, r))
    T[..., -1], ratio[..., -1] = 1, 0
    Y[0, np.arange(n) % k, 0, np.arange(n)] = 1
    problems = Problems(T, T.astype(np.float32), Y, np.full((1, 1, n), 1e-3), ratio, None, np.ones((1, r)))
    hessian = Hessian(problems, rng.dirichlet(np.ones(k), n).T[None, :, None])
    noise = np.full((1, k, 1, r), 1e-18)
    step, _ = _conjugate_gradients(hessian, inverse(hessian), noise, forcing=np.full((1, 1), 1e-2), limit=15)
    assert np.abs(step).max() < 1e-15
