"""A fine-tuning step beside the plain PyTorch loop that a user would write: same network, same batches, same steps.

    python tests/benchmarks/bench_finetune.py                 # CPU, one thread: resnet18 at 96 px; two minutes
    python tests/benchmarks/bench_finetune.py --device cuda   # images/s and utilisation at bfloat16, by backbone

One JSON line per result. "step" alternates ours (Lightning, our losses and callbacks) and the plain loop, epoch by
epoch, asserts that both end with the same weights, and prints medians of the time from the end of one step to the end
of the next, input included; where other programs run beside it, the processor time of the fastest step says most.
"input" is the share of that time that the plain loop waits for its next batch: images were read before, so what remains
is augmentation; with a worker it happens beside the step.
"""

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from finetune.callbacks import make_callbacks
from finetune.listener import NOBODY
from finetune.loaders import Loader, Loaders, make_loaders
from finetune.module import FinetuneModule
from finetune.network import MultimodalNetwork, make_network
from finetune.optimise import make_optimizer, make_schedule
from finetune.settings import FinetuneSettings, read_settings
from finetune.trainer import make_trainer, train
from store import Dataset, load_dataset, write_sample
from tests.benchmarks.gpu import Utilisation

SEED = 0
BATCH, GPU_BATCH = 16, 128
BAR = 1.05
AUGMENT = {"hflip": 0.5, "vflip": 0.5, "rotate_deg": 20, "brightness": 0.2, "contrast": 0.2}


@dataclass(frozen=True)
class Case:
    """What is trained."""

    dataset: Dataset
    settings: FinetuneSettings
    rows: np.ndarray
    network: MultimodalNetwork
    loaders: Loaders


def make_case(dataset: Dataset, rows: np.ndarray, **given: Any) -> Case:
    table = {"weights": "random", "batch_size": BATCH, "max_epochs": 1, "blocks": ["image:tem"], "augment": AUGMENT}
    table |= {"optimizer": "sgd", "lr": 0.01, "head_lr": 0.01}  # Adam would make differences of rounding large
    settings = read_settings(table | given)
    network = make_network(dataset, settings, rows=np.unique(rows), seed=SEED)
    parts = {"train": rows, "stop": rows[:BATCH]}
    size, workers = int(settings.batch_size), settings.workers or 0
    loaders = make_loaders(dataset, network, settings, **parts, seed=SEED, batch_size=size, workers=workers)
    return Case(dataset, settings, rows, network, loaders)


class Clock(lightning.Callback):
    """Wall and processor seconds at the end of every step."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float]] = []

    def tick(self) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.ticks.append((time.perf_counter(), time.process_time()))

    def on_train_batch_end(self, *_: Any) -> None:
        self.tick()

    def intervals(self) -> np.ndarray:
        """Wall and processor seconds from step to step ``(2, n - 1)``."""
        return np.diff(np.array(self.ticks), axis=0).T


def ours(case: Case, network: MultimodalNetwork, device: Any = "cpu") -> Clock:
    """Train as `finetune` does, with checkpoints and metrics."""
    clock = Clock()
    dataset, settings = case.dataset, case.settings
    module = FinetuneModule(network, settings, dataset.tasks, ids=dataset.ids, train=np.unique(case.rows), seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = make_callbacks(settings, Path(folder), {}, NOBODY)
        trainer = make_trainer(settings, Path(folder), [*callbacks, clock], device=device)
        train(trainer, module, case.loaders, None)
    return clock


def plain(case: Case, network: MultimodalNetwork, batches: Iterable[Any]) -> Clock:
    """Train as one would write it by hand."""
    network.train()
    optimizer = make_optimizer(network, case.settings)
    schedule = make_schedule(optimizer, case.settings, steps_per_epoch=len(case.loaders.train))
    clock = Clock()
    for batch in batches:
        optimizer.zero_grad()
        outputs = network(batch.inputs)
        losses = [F.cross_entropy(out, batch.targets[name], ignore_index=-1) for name, out in outputs.items()]
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), case.settings.clip_norm or 1.0)
        optimizer.step()
        schedule.step()
        clock.tick()
    return clock


def bench_step(case: Case, repeats: int, about: dict[str, Any]) -> None:
    found: dict[str, list[np.ndarray]] = {"ours": [], "plain": []}
    for repeat in range(repeats + 1):
        made = {which: copy.deepcopy(case.network) for which in found}
        for which in ("ours", "plain") if repeat % 2 else ("plain", "ours"):
            network = made[which]
            case.loaders.train.batch_sampler.set_epoch(0)
            clock = ours(case, network) if which == "ours" else plain(case, network, case.loaders.train)
            if repeat:  # the first warms up
                found[which].append(clock.intervals())
        assert _equal(made["ours"], made["plain"]), "other weights: these were not the same steps"
    times = {which: np.concatenate(runs, axis=1) for which, runs in found.items()}
    wall, processor = ({which: float(np.median(one[i])) for which, one in times.items()} for i in (0, 1))
    low, high = np.percentile(times["plain"][1], [25, 75])
    emit(
        "step",
        about,
        steps=times["ours"].shape[1],
        ours_seconds=wall["ours"],
        plain_seconds=wall["plain"],
        ratio_wall=wall["ours"] / wall["plain"],
        ratio_processor=processor["ours"] / processor["plain"],
        ratio_fastest=float(times["ours"][1].min() / times["plain"][1].min()),
        spread_processor=float((high - low) / processor["plain"]),
        bar=BAR,
    )


def bench_input(case: Case, about: dict[str, Any]) -> None:
    plain(case, copy.deepcopy(case.network), case.loaders.train)  # warms up, and starts the workers
    seconds: list[float] = []
    clock = plain(case, case.network, _timed(case.loaders.train, seconds))
    waited, total = sum(seconds[1:]), clock.ticks[-1][0] - clock.ticks[0][0]
    per_image_ms = 1000 * waited / (BATCH * (len(seconds) - 1))
    emit("input", about, wait_share=waited / total, wait_per_image_ms=per_image_ms)


def bench_cuda(dataset: Dataset, rows: np.ndarray, backbone: str) -> None:
    given = {"batch_size": GPU_BATCH, "precision": "bfloat16", "max_epochs": 3, "workers": 12}
    case = make_case(dataset, rows, backbone=backbone, input_px=224, **given)
    used = Utilisation()
    rate = GPU_BATCH / float(np.median(ours(case, case.network, "cuda").intervals()[0]))
    about = {"name": torch.cuda.get_device_name(), "backbone": backbone, "precision": "bfloat16", "batch": GPU_BATCH}
    emit("cuda", about, images_per_second=rate, utilisation_percent=used.stop())


def _timed(loader: Loader, seconds: list[float]) -> Iterator[Any]:
    """Yield a loader's batches and note how long each was waited for."""
    source = iter(loader)
    for _ in range(len(loader)):
        start = time.perf_counter()
        batch = next(source)
        seconds.append(time.perf_counter() - start)
        yield batch


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    want = other.state_dict()
    return all(torch.allclose(value, want[name], atol=1e-4) for name, value in one.state_dict().items())


def emit(what: str, about: dict[str, Any], **result: Any) -> None:
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}
    where = {"threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__}
    line = {"bench": f"finetune.{what}", **about, **shown, **where, "lightning": lightning.__version__}
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_sample("tem", Path(folder), n_rows=96, seed=SEED)
        dataset = load_dataset(Path(folder) / "dataset.toml")
        if arguments.device == "cuda":
            for backbone in ("convnext_tiny", "efficientnet_b0"):
                bench_cuda(dataset, np.resize(np.arange(dataset.n_rows), 4096), backbone)
            return
        torch.set_num_threads(1)
        rows = np.resize(np.arange(dataset.n_rows), 12 * BATCH)
        size = {"backbone": arguments.backbone, "input_px": arguments.px}
        bench_step(make_case(dataset, rows, **size), arguments.repeats, size | {"batch": BATCH})
        for augment, workers in (({}, 0), (AUGMENT, 0), (AUGMENT, 1)):
            about = size | {"batch": BATCH, "augmented": bool(augment), "workers": workers}
            bench_input(make_case(dataset, rows, **size, augment=augment, workers=workers), about)


if __name__ == "__main__":
    main()
