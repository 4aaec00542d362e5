import numpy as np

from heads.audit import audit_leaks
from store import make_split, merge_groups
from store.split import Split
from tests.heads.made import classes, dataset, matrix, planted


def vectors_with_twins():
    X, y, _ = planted(200, 16)
    X[150] = X[10]
    X[151] = X[11] + np.random.default_rng(1).normal(0, 0.03, 16)
    y[[10, 150]] = 0, 1
    y[[11, 151]] = 1
    return X, y


def split_of(data, **roles):
    made = make_split(data, n_folds=4)
    return Split.of({**made.roles, **roles}, seed=0, n_folds=4)


def pairs_of(found):
    return {(row["a"], row["b"]): row for row in found["duplicates"]}


def test_duplicates_name_their_rows_where_they_stand_and_what_differs():
    X, y = vectors_with_twins()
    data = dataset(classes(y), n=200)
    split = split_of(data, r010="0", r150="1", r011="2", r151="2")
    found = pairs_of(audit_leaks(data, matrix(data, image__bf_at_a=X), split))
    assert list(found) == [("r010", "r150"), ("r011", "r151")]
    exact, near = found.values()
    assert (exact["kind"], exact["crosses"], exact["roles"], exact["differs"]) == (
        "exact",
        ["split"],
        ["0", "1"],
        ["kind"],
    )
    assert (near["kind"], near["crosses"], near["differs"], near["space"]) == ("near", [], [], "image:bf@a")


def test_rows_of_one_group_are_no_news_and_of_two_are():
    X, y = vectors_with_twins()
    groups = np.arange(200)
    groups[150] = 10
    data = dataset(classes(y), n=200, groups=groups)
    found = pairs_of(audit_leaks(data, matrix(data, image__bf_at_a=X), split_of(data)))
    assert list(found) == [("r011", "r151")] and "groups" in found["r011", "r151"]["crosses"]


def test_merged_duplicates_are_no_news():
    X, y = vectors_with_twins()
    data = dataset(classes(y), n=200)
    merged = merge_groups(data, [("r010", "r150"), ("r011", "r151")])
    found = audit_leaks(merged, matrix(data, image__bf_at_a=X), make_split(merged, n_folds=4))
    assert found["duplicates"] == [] and 0.5 < found["thresholds"]["image:bf@a"] < 1


def test_two_held_out_rows_are_no_leak():
    X, y = vectors_with_twins()
    data = dataset(classes(y), n=200)
    split = split_of(data, r010="test", r150="other", r011="test", r151="0")
    found = pairs_of(audit_leaks(data, matrix(data, image__bf_at_a=X), split))
    assert [row["crosses"] for row in found.values()] == [["split"], []]


def test_rows_without_a_vector_stand_aside_and_texts_are_asked_only_without_images():
    X, y = vectors_with_twins()
    X[[0, 5]] = np.nan
    data = dataset(classes(y), n=200)
    texts = np.ones((200, 3))
    both = audit_leaks(data, matrix(data, image__bf_at_a=X, text__note_at_n=texts), split_of(data))
    assert list(both["thresholds"]) == ["image:bf@a"] and len(both["duplicates"]) == 2
    assert list(audit_leaks(data, matrix(data, text__note_at_n=texts), split_of(data))["thresholds"]) == ["text:note@n"]
