from dataclasses import replace

import numpy as np
import pytest

from heads.chart import draw_robustness
from heads.predictions import Predictions
from heads.report import robustness_report
from heads.robustness import check_plain, robustness
from heads.sweep import Sweep
from store import ImageBlock, InputError, StoreError, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def a_sweep(task, X, **blocks):
    data = dataset(task, n=len(X))
    return Sweep(data, matrix(data, image__bf_at_a=X, **blocks), make_split(data, n_folds=3), heads=["linear"])


def noisy(sweep, spread, *, seed=1):
    X = sweep.matrix.X.copy()
    return replace(sweep.matrix, X=X + np.random.default_rng(seed).normal(0, spread, X.shape).astype(np.float32))


def found_by(sweep, seen):
    predictions = Predictions()
    return robustness(sweep, sweep.run(predictions=predictions), predictions, seen)


def test_a_score_falls_with_the_strength_down_to_the_baseline():
    X, y, _ = planted(240, 8, n_classes=2, strength=4.0)
    sweep = a_sweep(classes(y), X)
    seen = [("gaussian_noise:0", sweep.matrix)]
    seen += [(f"gaussian_noise:{s}", noisy(sweep, 20 * s)) for s in (0.1, 1.0)]
    [found] = found_by(sweep, seen)
    same, mild, severe = found["points"]
    assert same["verdict"] == "no change" and same["difference"] == {"value": 0, "low": 0, "high": 0}
    assert same["score"] == found["clean"] and found["clean"]["value"] > 0.95
    assert mild["verdict"] == "worse than clean" and mild["beats_baseline"]
    assert severe["verdict"] == "worse than clean, and no better than the baseline"
    assert severe["difference"]["value"] == pytest.approx(severe["score"]["value"] - found["clean"]["value"])
    assert (severe["perturbation"], severe["strength"], found["n_rows"]) == ("gaussian_noise", 1.0, 240)
    assert found["words"] == (
        "worse than clean under gaussian_noise:0.1, gaussian_noise:1.0; no change under gaussian_noise:0"
    )


def test_the_clean_score_is_the_sweep_s_own():
    X, y, _ = planted(150, 6, strength=1.0)
    sweep = a_sweep(classes(y), X)
    predictions = Predictions()
    prior, linear = sweep.run(predictions=predictions)
    [found] = robustness(sweep, [prior, linear], predictions, [])
    assert found["clean"] == linear["metrics"]["accuracy"] and found["baseline"] == linear["baseline"]["accuracy"]


def test_only_rows_that_are_held_out_are_scored_disturbed():
    """With the truth written into the training rows' disturbed vectors alone, nothing is gained."""
    X, y, _ = planted(120, 6, n_classes=2, strength=0.0)
    data = dataset(classes(y), n=120, given=np.where(np.arange(120) < 80, "train", "val"))
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data), heads=["linear"])
    told = sweep.matrix.X.copy()
    told[:80, 0] = 100 * y[:80]
    [found] = found_by(sweep, [("blur:1", replace(sweep.matrix, X=told))])
    assert found["points"][0]["verdict"] == "no change" and found["n_rows"] == 40


def test_every_set_of_image_blocks_has_its_best_head_and_metadata_alone_has_none():
    X, y, _ = planted(120, 6, n_classes=2, strength=3.0)
    sweep = a_sweep(classes(y), X, image__bf_at_b=X[:, ::-1], metadata=X[:, :1], columns=("m",))
    found = found_by(sweep, [("blur:1", sweep.matrix)])
    images = [tuple(b for b in one["blocks"] if b != "metadata") for one in found]
    assert sorted(images) == [("image:bf@a",), ("image:bf@a", "image:bf@b"), ("image:bf@b",)]


def test_numbers_get_worse_too():
    X, _, _ = planted(150, 6)
    sweep = a_sweep(numbers(X[:, :1] * 3), X)
    [found] = found_by(sweep, [("blur:1", noisy(sweep, 5.0)), ("png:8", noisy(sweep, 1e-6))])
    assert found["metric"] == "mae" and found["points"][0]["difference"]["high"] < 0
    assert [point["verdict"] for point in found["points"]] == [
        "worse than clean, and no better than the baseline",
        "no change",
    ]


def test_rows_without_a_disturbed_vector_are_named():
    X, y, _ = planted(60, 4, n_classes=2)
    sweep = a_sweep(classes(y), X)
    gone = replace(sweep.matrix, complete=np.arange(60) > 0)
    with pytest.raises(StoreError, match=r"no vector under blur:1: run extract --view blur:1 --retry"):
        found_by(sweep, [("blur:1", gone)])


def test_images_that_cannot_be_disturbed_are_refused():
    X, y, _ = planted(60, 4, n_classes=2)
    sweep = a_sweep(classes(y), X)
    check_plain(sweep)
    ft = {"ft": ImageBlock("ft", (), None, view="fourier")}
    with pytest.raises(InputError, match=r"\[images\.ft\] has view = 'fourier', which a perturbation would replace"):
        check_plain(replace(sweep, dataset=replace(sweep.dataset, images=ft)))
    with pytest.raises(InputError, match="no image is extracted"):
        check_plain(replace(sweep, matrix=replace(sweep.matrix, spaces={})))


def test_it_is_printed_and_drawn(tmp_path):
    X, y, _ = planted(120, 6, n_classes=2, strength=3.0)
    sweep = a_sweep(classes(y), X)
    found = found_by(sweep, [("blur:1", noisy(sweep, 9.0)), ("jpeg:50", sweep.matrix)])
    [section] = robustness_report(found)
    assert [row[0] for row in section.rows] == ["clean", "blur:1", "jpeg:50"] and "worse than clean" in section.rows[1][
        3
    ]
    draw_robustness(found, tmp_path / "runs" / "robustness.png")
    assert (tmp_path / "runs" / "robustness.png").read_bytes().startswith(b"\x89PNG")
