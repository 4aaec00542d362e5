import numpy as np
import pytest

from finetune.division import keep_some_out
from store import InputError
from tests.heads.made import classes, dataset, numbers


def test_groups_are_on_one_side_and_nothing_is_lost() -> None:
    groups = np.arange(80) // 4
    data = dataset(classes(np.arange(80) % 3), n=80, groups=groups)
    train, stop = keep_some_out(data, np.arange(60), seed=0)
    assert sorted([*train, *stop]) == list(range(60)) and not set(groups[train]) & set(groups[stop])
    assert 4 <= len(stop) <= 12
    assert keep_some_out(data, np.arange(60), seed=0)[1].tolist() == stop.tolist()


def test_rows_without_any_label_stay_behind() -> None:
    y, other = np.arange(40) % 2, np.where(np.arange(40) < 30, np.nan, 1.0)
    y[:20] = -1
    data = dataset(classes(y, labels=("a", "b")), numbers(other), n=40)
    train, stop = keep_some_out(data, np.arange(10, 40), seed=0)
    assert sorted([*train, *stop]) == list(range(20, 40))


def test_no_class_is_kept_out_of_training_whole() -> None:
    for seed in range(8):
        rare = np.where(np.arange(48) == seed, 1, 0)  # one row of the class
        data = dataset(numbers(np.arange(48.0)), classes(rare), n=48)
        train, _ = keep_some_out(data, np.arange(48), seed=seed)
        assert seed in train


def test_one_group_is_too_few() -> None:
    data = dataset(classes(np.arange(8) % 2), n=8, groups=np.zeros(8))
    with pytest.raises(InputError, match="needs two labelled groups or more to train on"):
        keep_some_out(data, np.arange(8), seed=0)
