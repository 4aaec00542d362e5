import math
from typing import Any

import pytest
import torch

from finetune.network import MultimodalNetwork
from finetune.optimise import make_optimizer, make_schedule
from finetune.settings import FinetuneSettings, read_settings
from tests.finetune.test_freezing import network  # noqa: F401 - a fixture
from tests.finetune.trained import QUICK


def settings(*assignments: str) -> FinetuneSettings:
    return read_settings({}, [*QUICK, *assignments])


def groups(optimizer: torch.optim.Optimizer, net: MultimodalNetwork) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in optimizer.param_groups:
        found |= {names.get(id(p), "other"): (group["lr"], group["weight_decay"]) for p in group["params"]}
    return found


def rates(*assignments: str, n_epochs: int, steps_per_epoch: int = 4, lr: float = 0.1) -> list[float]:
    chosen = settings(f"max_epochs={n_epochs}", *assignments)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make_schedule(optimizer, chosen, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(n_epochs * steps_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rates_fall_layer_by_layer_and_vectors_do_not_decay(network: MultimodalNetwork) -> None:  # noqa: F811
    other = torch.nn.Parameter(torch.zeros(2))
    chosen = settings("layer_decay=0.5", "lr=0.01", "head_lr=0.2", "weight_decay=0.3")
    found = groups(make_optimizer(network, chosen, [other]), network)
    start = "branches.bf.encoder."
    for name, depth in [("layer4", 0), ("layer3", 1), ("layer2", 2), ("layer1", 3)]:
        assert found[f"{start}{name}.0.conv1.weight"] == (0.01 * 0.5**depth, 0.3)
        assert found[f"{start}{name}.0.bn1.weight"] == (0.01 * 0.5**depth, 0.0)
    assert found[f"{start}bn1.weight"] == (0.01 * 0.5**4, 0.0)
    assert found["heads.kind.weight"] == (0.2, 0.3) and found["heads.kind.bias"] == found["other"] == (0.2, 0.0)
    assert len(found) == len(list(network.parameters())) + 1


def test_what_never_trains_is_not_in_the_optimizer(network: MultimodalNetwork) -> None:  # noqa: F811
    assert set(groups(make_optimizer(network, settings("freeze=backbone")), network)) == {
        f"heads.{task}.{part}" for task in ("kind", "level") for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_every_optimizer(network: MultimodalNetwork, name: str, kind: Any) -> None:  # noqa: F811
    made = make_optimizer(network, settings(f"optimizer={name}", "momentum=0.7"))
    assert type(made) is kind
    assert name != "sgd" or made.param_groups[0]["momentum"] == 0.7


def test_warm_up_rises_to_full_height() -> None:
    found = rates("schedule=constant", "warmup_epochs=2", n_epochs=4)
    assert found == pytest.approx([0.1 * min(1, (i + 1) / 8) for i in range(16)])


def test_cosine_falls_to_min_lr() -> None:
    found = rates("schedule=cosine", "warmup_epochs=1", "min_lr=0.01", n_epochs=5)
    expected = [0.01 + 0.09 * (1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)]
    assert found[4:] == pytest.approx(expected)


def test_cosine_restarts_double() -> None:
    found = rates("schedule=cosine_restarts", "warmup_epochs=0", "restart_epochs=1", "restart_factor=2", n_epochs=7)
    assert [i for i, rate in enumerate(found) if rate == pytest.approx(0.1)] == [0, 4, 12]
    assert found[2] == pytest.approx(0.05) and found[8] == pytest.approx(0.05) and found[20] == pytest.approx(0.05)
    assert found[11] == pytest.approx(0.1 * (1 + math.cos(math.pi * 7 / 8)) / 2)


def test_steps() -> None:
    found = rates("schedule=step", "warmup_epochs=0", "step_epochs=2", "gamma=0.1", n_epochs=5, steps_per_epoch=1)
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_rate_below_the_least_stays() -> None:
    assert rates("schedule=cosine", "warmup_epochs=0", "min_lr=0.5", n_epochs=2) == pytest.approx([0.1] * 8)
