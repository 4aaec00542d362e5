import numpy as np
import pytest

from heads.combination import fused_columns, fused_parts
from heads.fusion import FusionHead, fit_fusion
from heads.head import Job
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers


def swept(task, n, *, heads=("linear", "fusion"), **blocks):
    data = dataset(task, n=n)
    sweep = Sweep(data, matrix(data, **blocks), make_split(data, n_folds=4), heads=heads)
    return {(tuple(e["blocks"]), e["head"]): e for e in sweep.run()}, sweep


def halves(n=200, seed=0, *, d=12):
    """Two blocks, each of which tells half of four classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4)
    a, b = rng.normal(size=(2, n, d))
    a[:, 0] += 4 * (y % 2)
    b[:, 0] += 4 * (y // 2)
    return y, a, b


BOTH = ("image:bf@a", "text:note@n")


def test_what_two_blocks_know_is_put_together():
    y, a, b = halves()
    found, _ = swept(classes(y), 200, image__bf_at_a=a, text__note_at_n=b)
    alone = max(found[(name,), "linear"]["metrics"]["accuracy"]["high"] for name in BOTH)
    fused = found[BOTH, "fusion"]["metrics"]["accuracy"]
    assert fused["value"] > 0.85 and fused["low"] > alone
    assert ((BOTH[0],), "fusion") not in found  # one block has nothing to be fused with
    assert found[BOTH, "fusion"]["beats_baseline"]


def test_a_wide_block_of_noise_drowns_the_fusion_less_than_the_concatenation():
    rng = np.random.default_rng(1)
    y = rng.permutation(np.arange(160) % 2)
    narrow = rng.normal(size=(160, 4)) + 1.2 * y[:, None]
    found, _ = swept(classes(y), 160, image__bf_at_a=rng.normal(size=(160, 600)), text__note_at_n=narrow)
    fused, whole = (found[BOTH, head]["metrics"]["accuracy"]["value"] for head in ("fusion", "linear"))
    assert fused > whole - 0.02 and fused > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_score_at_chance(seed):
    y, a, b = halves(seed=seed, d=60)
    y = np.random.default_rng(seed + 9).permutation(y)
    found, _ = swept(classes(y), 200, heads=["fusion"], image__bf_at_a=a, text__note_at_n=b)
    entry = found[BOTH, "fusion"]
    assert abs(entry["metrics"]["accuracy"]["value"] - 0.25) < 0.1 and not entry["beats_baseline"]


def test_numbers_are_fused_too():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200, 5))
    y = np.stack([a[:, 0] + b[:, 0], b[:, 1]], axis=1)
    task = numbers(y, columns=("uv", "blue"))
    found, _ = swept(task, 200, image__bf_at_a=a, text__note_at_n=b)
    fused = found[BOTH, "fusion"]["metrics"]["mae"]["value"]
    assert fused < 0.7 * min(found[(name,), "linear"]["metrics"]["mae"]["value"] for name in BOTH)


def test_the_rows_that_are_scored_move_nothing():
    y, a, b = halves()
    X = np.concatenate([a, b], axis=1).astype(np.float32)
    parts = [slice(0, 12), slice(12, 24)]
    train = np.arange(150)
    inner = [(train[train % 4 != k], train[train % 4 == k]) for k in range(4)]
    [head] = fit_fusion(X, [Job("classification", y, 4, train, inner)], seed=0, parts=parts)
    other, labels = X.copy(), y.copy()
    other[150:], labels[150:] = 7.0, 0
    [again] = fit_fusion(other, [Job("classification", labels, 4, train, inner)], seed=0, parts=parts)
    np.testing.assert_allclose(head.predict_proba(X[150:]), again.predict_proba(X[150:]), rtol=1e-9)
    rows = np.concatenate([rows for rows, _ in head.held_out])
    assert sorted(rows) == train.tolist()


def test_without_inner_folds_the_members_are_averaged():
    y, a, b = halves()
    X = np.concatenate([a, b], axis=1).astype(np.float32)
    parts = [slice(0, 12), slice(12, 24)]
    [head] = fit_fusion(X, [Job("classification", y, 4, np.arange(200), [])], seed=0, parts=parts)
    members = [one.predict_proba(X[:, part]) for one, part in zip(head.members, parts, strict=True)]
    np.testing.assert_allclose(head.predict_proba(X), np.mean(members, axis=0))
    assert head.top is None


@pytest.mark.parametrize("inner", [True, False])
def test_a_restored_head_predicts_the_same(inner):
    y, a, b = halves()
    X = np.concatenate([a, b], axis=1).astype(np.float32)
    rows = np.arange(200)
    folds = [(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)] if inner else []
    [head] = fit_fusion(X, [Job("classification", y, 4, rows, folds)], seed=0, parts=[slice(0, 12), slice(12, 24)])
    restored = FusionHead.from_state(*head.state())
    np.testing.assert_array_equal(restored.predict_proba(X), head.predict_proba(X))
    np.testing.assert_array_equal(restored.predict(X), head.predict_proba(X).argmax(axis=1))


def test_parts_are_the_first_copies_of_fused_columns():
    slices = {"image": slice(0, 100), "metadata": slice(100, 103), "text": slice(103, 110)}
    for blocks in (["image", "metadata", "text"], ["metadata", "text"], ["text"], []):
        columns = fused_columns(slices, blocks)
        parts = fused_parts(slices, blocks)
        for name, part in zip(blocks, parts, strict=True):
            assert columns[part].tolist() == list(range(slices[name].start, slices[name].stop))


def test_heads_on_top_of_jobs_solved_together_equal_each_alone():
    X = np.random.default_rng(0).normal(size=(90, 12)).astype(np.float32)
    y = np.digitize(X[:, 0] + X[:, 7], [-0.5, 0.5])
    rows, halves = np.arange(90), [(np.arange(45), np.arange(45, 90)), (np.arange(45, 90), np.arange(45))]
    weight = np.linspace(0.5, 2, 90)
    jobs = [
        Job("classification", y, 3, rows, halves),
        Job("regression", X[:, [0, 7]].astype(np.float64), 0, rows, halves),
        Job("classification", y[::-1].copy(), 3, rows, halves, sample_weight=weight),
        Job("classification", (y > 0).astype(int), 2, rows, []),
    ]
    parts = [slice(0, 6), slice(6, 12)]
    together = fit_fusion(X, jobs, seed=0, parts=parts)
    assert together[3].top is None
    for head, job in zip(together, jobs, strict=True):
        [alone] = fit_fusion(X, [job], seed=0, parts=parts)
        np.testing.assert_allclose(head.predict(X), alone.predict(X), atol=1e-5)
        for (one, found), (other, expected) in zip(head.held_out, alone.held_out, strict=True):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_allclose(found, expected, atol=1e-5)
