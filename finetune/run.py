"""Fine-tuning from end to end: fits, entries beside the heads' on the same rows, and what is kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract import Place
from finetune.bundle import save_bundle
from finetune.device import Device, is_main_process, n_workers
from finetune.division import keep_some_out
from finetune.export import export_onnx
from finetune.from_heads import begin_from_heads
from finetune.listener import NOBODY, Listener
from finetune.network import MultimodalNetwork
from finetune.outputs import Outputs, predict_rows
from finetune.settings import FinetuneSettings
from finetune.verdict import compare_with_heads, summary
from heads import Calibration, Given, Leaderboard, Predictions, Sweep, calibration_of, given_entry, versions
from store import FeatureStore

if TYPE_CHECKING:
    from finetune.fit import Fitted

HEAD = "finetune"
TEST = "test"
NOTHING = np.empty(0, dtype=np.int64)

Rows = NDArray[np.int64]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One fit, and what its network says of rows.

    Attributes:
        fitted: The fit.
        outputs: By task, ``(n, k)``; NaN for rows that were not asked.
        train: Rows trained on.
        stop: Rows kept out of training.
        left_out: Why rows cannot be used, by row id.
    """

    fitted: "Fitted"
    outputs: Outputs
    train: Rows
    stop: Rows
    left_out: dict[str, str]


@dataclass(frozen=True)
class Run:
    """One fine-tuning run.

    Attributes:
        sweep: The dataset, its split and tasks, and the heads' features: they are compared with on the same rows.
        store: Has the vectors that a linear start needs, or gets them.
        settings: All that is chosen.
        folder: ``runs/NAME``.
        leaderboard: Has the heads' entries, and gets ours.
        predictions: Has what the heads predicted, and gets ours.
        device: Where to train.
        resume: Go on from the last checkpoint.
        listener: Hears of batches, epochs, and how it is made.
    """

    sweep: Sweep
    store: FeatureStore
    settings: FinetuneSettings
    folder: Path
    leaderboard: Leaderboard
    predictions: Predictions
    device: Device = "auto"
    resume: bool = False
    listener: Listener = NOBODY

    def run(self, *, final: bool = False) -> dict[str, Any]:
        """Train, score, compare with the heads on the same rows, and keep the model.

        The model that is kept is the one that was fitted; where several were, or test rows are scored, it is one more
        that may learn from every row that is not held out.

        Args:
            final: Score the held-out test rows, once.

        Returns:
            What the command prints as JSON.

        Raises:
            InputError: `final`, and no row is held out as test.
            SystemExit: In all but the first of several processes, once training is done.
        """
        pairs = self.sweep.pairs
        is_whole = final or len(pairs) > 1
        names = [f"fold-{number}" for number in range(len(pairs))] if is_whole else ["."]
        parts = [
            self._part(train, score, self.folder / name) for (train, score), name in zip(pairs, names, strict=True)
        ]
        kept = self._whole(final=final) if is_whole else parts[0]
        if not is_main_process():
            raise SystemExit(0)  # the first process scores and writes
        sweep = self._usable([*parts, kept])
        heads = sweep.run(self.leaderboard, predictions=self.predictions)
        scored = [self._entry(sweep, task, parts) for task in sweep.task_names]
        tuned = [entry for entry, _ in scored]
        spaces = self._keep(sweep, kept, scored, is_whole=is_whole)
        comparisons = compare_with_heads(tuned, heads, self.predictions)
        if final:
            heads += sweep.final(heads, self.leaderboard, predictions=self.predictions)
            tuned += [self._entry(sweep, task, [kept], held_out=TEST)[0] for task in sweep.task_names]
        return {
            "bundle": str(self.folder),
            "onnx": export_onnx(self.folder) if self.settings.onnx else None,
            "space": spaces,
            "entries": heads + tuned,
            "epochs": len(kept.fitted.history),
            "best_epoch": kept.fitted.best_epoch,
            "seconds": round(sum(part.fitted.seconds for part in {id(p): p for p in [*parts, kept]}.values()), 1),
            "comparisons": comparisons,
            "summary": summary(comparisons),
            "left_out": kept.left_out,
            "history": kept.fitted.history,
        }

    def _whole(self, *, final: bool) -> Part:
        """Fit once more, on every row that is not held out."""
        dataset = self.sweep.dataset
        nothing = np.empty(0, dtype=np.int64)
        [(train, score)] = (
            self.sweep.held_out_pairs(TEST) if final else [(self.sweep.split.fitting(dataset.ids), nothing)]
        )
        self.listener.say("once more, on all rows that are not held out: the model that is kept")
        return self._part(train, score, self.folder)

    def _part(self, train: Rows, score: Rows, folder: Path) -> Part:
        from finetune.fit import Training, fit_fold  # imports Lightning, which predict has no use for

        dataset = self.sweep.dataset
        dataset = replace(dataset, tasks={name: dataset.tasks[name] for name in self.sweep.task_names})
        settings = self.settings
        rows, stop = keep_some_out(dataset, train, seed=self.sweep.seed)
        training = Training(dataset, settings, rows, stop, folder, self.sweep.seed, self.device)
        fitted = fit_fold(training, begin=partial(self._begin, rows), resume=self.resume, listener=self.listener)
        how: dict[str, Any] = {"device": self.device, "workers": n_workers(settings, self.device)}
        asked = np.sort(np.concatenate([stop, score]))
        outputs, left_out = predict_rows(fitted.network, dataset, asked, batch_size=fitted.batch_size, **how)
        return Part(fitted, outputs, rows, stop, fitted.left_out | left_out)

    def _begin(self, rows: Rows, network: MultimodalNetwork) -> None:
        place = Place(self.device)
        self.listener.say(begin_from_heads(network, self.sweep, self.store, self.settings, rows=rows, place=place))

    def _usable(self, parts: Sequence[Part]) -> Sweep:
        """Return the sweep without the rows that the network could not read, so that all are scored on the same."""
        left_out = sorted({row for part in parts for row in part.left_out})
        complete = self.sweep.matrix.complete & ~np.isin(self.sweep.dataset.ids, left_out)
        return replace(self.sweep, matrix=replace(self.sweep.matrix, complete=complete))

    def _entry(
        self, sweep: Sweep, task: str, parts: Sequence[Part], *, held_out: str | None = None
    ) -> tuple[Entry, list[Calibration]]:
        return given_entry(
            sweep,
            task,
            [Given(part.outputs[task], part.stop) for part in parts],
            head=HEAD,
            blocks=blocks_of(parts[0].fitted.network),
            identity=self._identity(sweep, task, held_out or sweep.role),
            seconds=sum(part.fitted.seconds for part in parts) / len(sweep.task_names),
            held_out=held_out,
            leaderboard=self.leaderboard,
            predictions=self.predictions,
        )

    def _keep(
        self, sweep: Sweep, kept: Part, scored: Sequence[tuple[Entry, list[Calibration]]], *, is_whole: bool
    ) -> list[dict[str, Any]]:
        """Write the bundle, and return the space of each encoder in it."""
        calibrations = {entry["task"]: found[-1] for entry, found in scored}
        if is_whole:
            calibrations = {task: self._calibration(sweep, task, kept) for task in sweep.task_names}
        return save_bundle(
            self.folder,
            kept.fitted.network,
            sweep.dataset,
            rows=kept.train,
            calibrations=calibrations,
            entries={entry["task"]: entry for entry, _ in scored},
            about={"split_fingerprint": sweep.split.fingerprint, "seed": sweep.seed, "versions": versions()},
            device=self.device,
        )

    def _calibration(self, sweep: Sweep, task: str, part: Part) -> Calibration:
        fitting = sweep.split.fitting(sweep.dataset.ids)
        plan = sweep.plan(task, [(fitting, NOTHING)])
        return calibration_of(plan, Given(part.outputs[task], part.stop), 0, seed=sweep.seed)

    def _identity(self, sweep: Sweep, task: str, role: str) -> str:
        """Return a digest of all that decides an entry's numbers."""
        target = sweep.dataset.tasks[task]
        labels = hashlib.sha256(target.y.tobytes() + target.applies.tobytes() + sweep.matrix.complete.tobytes())
        settings = self.settings.model_dump(mode="json")
        parts = [HEAD, task, role, settings, sweep.seed, sweep.split.fingerprint, labels.hexdigest()]
        return hashlib.sha256(json.dumps([*parts, sweep.dataset.ids.tolist()], sort_keys=True).encode()).hexdigest()


def blocks_of(network: MultimodalNetwork) -> tuple[str, ...]:
    """Return what a network reads, as entries name it: ``image:bf@efficientnet_b0``, ``metadata``."""
    found = set()
    for plan in network.blueprint.branches:
        if plan.kind == "metadata":
            found.add("metadata")
        else:
            found |= {f"{plan.kind}:{block}@{plan.encoder}" for block in plan.blocks}
    return tuple(sorted(found))
