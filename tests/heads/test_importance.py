import numpy as np
import pytest

from heads.importance import block_importance
from heads.leaderboard import best
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix


def found(head):
    """The image says the class; the metadata is noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    data = dataset(classes(y), n=120)
    X = np.column_stack([y * 2.0 + rng.normal(size=120), rng.normal(size=(120, 5))])
    features = matrix(data, image__bf_at_texture=X, metadata=rng.normal(size=(120, 1)), columns=("noise",))
    wanted = ["image:bf@texture+metadata"]
    sweep = Sweep(data, features, make_split(data), heads=(head,), blocks=wanted)
    return {row["block"]: row for row in block_importance(sweep, best(sweep.run()).values())}


@pytest.mark.parametrize("head", ["linear", "lightgbm", "fusion"])
def test_the_block_that_says_the_class_is_leaned_on_and_noise_is_not(head):
    rows = found(head)
    image, noise = rows["image:bf@texture"], rows["metadata"]
    assert image["metric"] == "accuracy"
    assert image["low"] > 0.15
    assert abs(noise["value"]) < 0.06
    assert noise["low"] < 0.03


def test_gain_is_shared_out_among_blocks_by_lightgbm_alone():
    gains = {name: row["gain"] for name, row in found("lightgbm").items()}
    assert sum(gains.values()) == pytest.approx(1)
    assert gains["image:bf@texture"] > 0.6
    assert [row["gain"] for row in found("linear").values()] == [None, None]


def test_the_same_call_gives_the_same_numbers():
    assert found("linear") == found("linear")
