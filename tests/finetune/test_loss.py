from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.loss import TaskLosses
from finetune.settings import read_settings
from heads import balanced_weights
from store import InputError
from tests.heads.made import classes, numbers

N = 12
ALL = np.arange(N)
RNG = np.random.default_rng(0)
KIND = classes(np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, -1]))
SIZE = numbers(np.stack([np.arange(12.0), 5 * RNG.normal(size=12)], axis=1), name="size", columns=("u", "v"))
LOGITS = torch.tensor(RNG.normal(size=(N, 3)), dtype=torch.float32)
OUTPUTS = torch.tensor(RNG.normal(size=(N, 2)), dtype=torch.float32)


def losses(*tasks, assignments=(), rows=ALL):
    return TaskLosses(tasks, read_settings({}, assignments), rows=rows)


def targets(*tasks):
    return {
        t.name: torch.tensor(t.y, dtype=torch.int64 if t.kind == "classification" else torch.float32) for t in tasks
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_a_loop_over_labelled_rows(smoothing: float) -> None:
    weights = RNG.uniform(0.5, 2, N)
    task = replace(KIND, class_weight="balanced", sample_weight=weights)
    of = losses(task, assignments=[f"label_smoothing={smoothing}"])
    got, each = of({"kind": LOGITS}, targets(task), {"kind": torch.tensor(weights, dtype=torch.float32)})
    known = np.flatnonzero(task.y >= 0)
    per_row = weights * balanced_weights(task.y, known)
    total = 0.0
    for i in known:
        p = torch.softmax(LOGITS[i].double(), dim=0).numpy()
        hard, uniform = -np.log(p[task.y[i]]), -np.log(p).mean()
        total += per_row[i] / per_row[known].mean() * ((1 - smoothing) * hard + smoothing * uniform)
    assert got.item() == pytest.approx(total / len(known), rel=1e-5)
    assert each["kind"].item() == got.item()


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_errors_equal_a_loop_over_present_outputs_in_training_deviations(loss: str) -> None:
    y = SIZE.y.copy()
    task = replace(SIZE, weights=np.array([3.0, 1.0]))
    y[2, 1], y[5] = np.nan, np.nan
    of = losses(task, assignments=[f"loss={loss}"])
    got, _ = of({"size": OUTPUTS}, {"size": torch.tensor(y, dtype=torch.float32)})
    total, share = 0.0, 0.0
    for i in range(N):
        for j, weight in enumerate((3.0, 1.0)):
            if not np.isnan(y[i, j]):
                error = abs(float(OUTPUTS[i, j]) - y[i, j]) / SIZE.y[:, j].std()
                total += weight * (error**2 if loss == "mse" else 0.5 * error**2 if error < 1 else error - 0.5)
                share += weight
    assert got.item() == pytest.approx(total / share, rel=1e-5)


def test_a_task_without_any_row_in_the_batch_adds_exactly_nothing_and_has_a_gradient() -> None:
    for weights in ("equal", "uncertainty"):
        of = losses(KIND, SIZE, assignments=[f"task_weights={weights}"])
        if of.log_variance is not None:
            of.log_variance.data.fill_(0.7)
        logits = LOGITS.clone().requires_grad_()
        none = {"kind": torch.full((N,), -1), "size": torch.full((N, 2), torch.nan)}
        got, each = of({"kind": logits, "size": OUTPUTS}, none)
        got.backward()
        assert got.item() == 0.0 and {one.item() for one in each.values()} == {0.0}
        assert logits.grad is not None and not logits.grad.any()


def test_what_is_missing_has_no_gradient_and_what_is_there_has_a_finite_one() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    y = targets(SIZE)["size"].clone()
    y[3] = torch.nan
    losses(SIZE)({"size": outputs}, {"size": y})[0].backward()
    assert outputs.grad is not None and outputs.grad.isfinite().all()
    assert not outputs.grad[3].any() and outputs.grad[4].all()


def test_weights_have_a_mean_of_one_over_training_rows_so_that_batches_of_one_count() -> None:
    task = replace(KIND, class_weight="balanced")
    of = losses(task)
    known = np.flatnonzero(task.y >= 0)
    alone = [float(of({"kind": LOGITS[i : i + 1]}, {"kind": torch.tensor(task.y[i : i + 1])})[0]) for i in known]
    together = float(of({"kind": LOGITS}, targets(task))[0])
    assert np.mean(alone) == pytest.approx(together, rel=1e-5)


def test_fixed_task_weights_multiply() -> None:
    both, each = losses(KIND, SIZE, assignments=["task_weights={size=2.5}"])(
        {"kind": LOGITS, "size": OUTPUTS}, targets(KIND, SIZE)
    )
    assert both.item() == pytest.approx(each["kind"].item() + 2.5 * each["size"].item(), rel=1e-6)


def test_learned_weights_are_kendalls_formula() -> None:
    of = losses(KIND, SIZE, assignments=["task_weights=uncertainty"])
    assert of.log_variance is not None
    of.log_variance.data = torch.log(torch.tensor([0.5, 3.0]) ** 2)
    total, each = of({"kind": LOGITS, "size": OUTPUTS}, targets(KIND, SIZE))
    want = each["kind"].item() / 0.5**2 + np.log(0.5) + each["size"].item() / (2 * 3.0**2) + np.log(3.0)
    assert total.item() == pytest.approx(want, rel=1e-5)
    total.backward()
    assert of.log_variance.grad is not None
    assert float(of.log_variance.grad[1]) == pytest.approx(0.5 - each["size"].item() / (2 * 3.0**2), rel=1e-4)


def test_scales_and_class_weights_come_from_training_rows() -> None:
    rows = np.array([0, 1, 6, 9])
    assert losses(SIZE, rows=rows).of["size"].scale.tolist() == pytest.approx(SIZE.y[rows].std(axis=0), rel=1e-6)
    weights = losses(replace(KIND, class_weight="balanced"), rows=rows).of["kind"].class_weights.tolist()
    assert weights == pytest.approx([4 / 6, 4 / 3, 4 / 3])


def test_a_task_weight_for_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"task_weights names 'sise'. Did you mean 'size'\? There is kind, size"):
        losses(KIND, SIZE, assignments=["task_weights={sise=1}"])
