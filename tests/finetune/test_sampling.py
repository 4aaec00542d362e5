from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch.distributed

from finetune.sampling import EpochBatches, row_weights
from store import InputError, Task


def task(name: str, y: list[int], kind: Any = "classification") -> Task:
    n_classes = max(y) + 1
    return Task(
        name=name,
        kind=kind,
        columns=(name,),
        classes=tuple("abc"[:n_classes]),
        y=np.array(y) if kind == "classification" else np.array(y, float)[:, None],
        when=None,
        applies=np.ones(len(y), bool),
        weights=np.ones(1),
    )


RARE = task("rare", [0] * 14 + [1] * 4 + [2] * 2)
OTHER = task("other", [0, 1] * 9 + [-1, -1])
SIZE = task("size", list(range(20)), "regression")
TASKS = {one.name: one for one in (RARE, OTHER, SIZE)}
ROWS = np.arange(20)


def drawn(batches: EpochBatches, epoch: int = 0) -> list[int]:
    batches.set_epoch(epoch)
    return [place for batch in batches for _, place in batch]


def test_each_class_of_a_task_has_the_same_expected_share() -> None:
    weights = row_weights(TASKS, ROWS, "rare")
    assert weights is not None
    assert [weights[RARE.y == c].sum() for c in range(3)] == pytest.approx([20 / 3] * 3)


def test_rows_outside_training_do_not_count() -> None:
    rows = np.arange(10, 20)
    weights = row_weights(TASKS, rows, "rare")
    assert weights is not None and len(weights) == 10
    assert [weights[RARE.y[rows] == c].sum() for c in range(3)] == pytest.approx([10 / 3] * 3)


def test_balanced_is_the_mean_over_classifications_and_unlabelled_rows_count_as_one() -> None:
    one, other = (row_weights(TASKS, ROWS, name) for name in ("rare", "other"))
    assert one is not None and other is not None
    assert other[18:].tolist() == [1, 1]
    assert row_weights(TASKS, ROWS, "balanced") == pytest.approx((one + other) / 2)
    assert row_weights(TASKS, ROWS, "uniform") is None


@pytest.mark.parametrize("name", ["size", "rar"])
def test_sampling_needs_a_task_with_classes(name: str) -> None:
    with pytest.raises(InputError, match=rf"sampling = '{name}': there is no classification .* balanced, rare, other"):
        row_weights(TASKS, ROWS, name)


def test_balanced_needs_a_classification() -> None:
    with pytest.raises(InputError, match=r"sampling = 'balanced': there is no classification .* Expected uniform$"):
        row_weights({"size": SIZE}, ROWS, "balanced")


def test_classes_are_drawn_equally_often() -> None:
    batches = EpochBatches(20, batch_size=4, is_training=True, weights=row_weights(TASKS, ROWS, "rare"))
    found = Counter(RARE.y[place] for epoch in range(300) for place in drawn(batches, epoch))
    assert sum(found.values()) == 6000
    assert all(abs(found[c] - 2000) < 120 for c in range(3)), found


def test_an_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    batches = EpochBatches(20, batch_size=6, seed=3, is_training=True)
    first, second = drawn(batches, 0), drawn(batches, 1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second != list(range(20))
    assert first == drawn(EpochBatches(20, batch_size=4, seed=3, is_training=True), 0)
    assert first != drawn(EpochBatches(20, batch_size=6, seed=4, is_training=True), 0)


def test_scored_rows_keep_their_order() -> None:
    assert drawn(EpochBatches(5, batch_size=2)) == [0, 1, 2, 3, 4]


def test_the_epoch_travels_with_the_row() -> None:
    batches = EpochBatches(3, batch_size=2, is_training=True)
    batches.set_epoch(7)
    assert {epoch for batch in batches for epoch, _ in batch} == {7}


def test_skipped_batches_are_those_of_the_next_pass_alone() -> None:
    batches = EpochBatches(10, batch_size=3, seed=1, is_training=True)
    batches.set_epoch(2)
    whole = list(batches)
    batches.skip(2)
    assert len(batches) == 4
    late = iter(batches)
    batches.set_epoch(2)
    assert list(late) == whole[2:]
    assert list(batches) == whole


@pytest.mark.parametrize(("n", "least", "sizes"), [(9, 1, [4, 4, 1]), (9, 2, [4, 5]), (8, 2, [4, 4]), (1, 2, [1])])
def test_a_single_last_row_joins_the_batch_before(n: int, least: int, sizes: list[int]) -> None:
    batches = EpochBatches(n, batch_size=4, least=least)
    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_processes_share_the_training_rows_and_score_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        batches = EpochBatches(9, batch_size=2, is_training=True)
        parts.append(drawn(batches))
        assert len(batches) == 3
        assert drawn(EpochBatches(3, batch_size=2)) == [0, 1, 2]
    assert len(parts[0]) == len(parts[1]) == 5
    assert set(parts[0]) | set(parts[1]) == set(range(9))
