"""Fine-tuning from end to end: fits, entries beside the heads' on the same rows, and what is kept."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract import Device, Runtime
from finetune.bundle import SUBSET, UNSEEN, save_bundle
from finetune.device import is_main_process, n_workers
from finetune.division import KEPT, Fit, plan_fits, with_tasks
from finetune.export import export_onnx
from finetune.from_heads import begin_from_heads
from finetune.listener import NOBODY, Listener
from finetune.network import MultimodalNetwork
from finetune.outputs import Outputs, predict_rows
from finetune.rivals import rivals
from finetune.settings import FinetuneSettings
from finetune.verdict import compare_with_heads, verdict
from heads import (
    HEADLINE,
    Calibration,
    Entry,
    Given,
    Leaderboard,
    Predictions,
    Sweep,
    calibration_of,
    given_entry,
    score_choice,
    versions,
)
from store import Dataset, FeatureStore, Rows, is_fitting, json_key

if TYPE_CHECKING:
    from finetune.fit import Fitted

HEAD = "finetune"
INPUTS = {"columns", "images", "texts", "metadata", "weight"}
"""What of a spec says what a network sees, and how much each row counts."""


@dataclass(frozen=True)
class Part:
    """One fit, and what its network says of rows.

    Attributes:
        fit: The rows.
        fitted: The network.
        outputs: By task, ``(n, k)``; NaN for rows that were not asked.
        left_out: Why rows cannot be used, by row id.
    """

    fit: Fit
    fitted: "Fitted"
    outputs: Outputs
    left_out: dict[str, str]


@dataclass(frozen=True)
class Run:
    """One fine-tuning run.

    Attributes:
        sweep: The dataset, its split and tasks, and the heads' features: they are compared with on the same rows.
        store: The run's own: gets the vectors that a linear start needs, where the sweep does not have them.
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
            final: Score the held-out rows, once.

        Returns:
            What the command prints as JSON.

        Raises:
            InputError: `final`, and no row is held out.
            SystemExit: In all but the first of several processes, once training is done.
        """
        sweep = self.sweep
        dataset = with_tasks(sweep.dataset, sweep.task_names)
        fits = plan_fits(dataset, sweep.split, fold=sweep.fold, final=final, seed=sweep.seed)
        every = [self._part(dataset, fit, number, len(fits)) for number, fit in enumerate(fits, 1)]
        kept, parts = every[-1], every[:-1] or every
        if not is_main_process():
            raise SystemExit(0)  # the first process scores and writes
        from finetune.fit import clear_folds

        sweep = rivals(self._usable(every), blocks_of(kept.fitted.network), self.leaderboard)
        self._say_rivals(sweep)
        heads = sweep.run(self.leaderboard, predictions=self.predictions)
        scored = [self._entry(sweep, task, parts) for task in sweep.task_names]
        tuned = [entry for entry, _ in scored]
        spaces = self._keep(sweep, kept, scored, is_whole=len(every) > 1)
        clear_folds(self.folder, but={fit.folder for fit in fits})
        if final:
            heads += (beside := sweep.final(heads, self.leaderboard, predictions=self.predictions))
            places = itertools.product(sweep.held_out_pairs(), sweep.task_names)
            tuned += [self._entry(sweep, t, [kept], held_out=name, beside=beside)[0] for name, t in places]
        comparisons = compare_with_heads(tuned, heads, self.predictions)
        return {
            "bundle": str(self.folder),
            "onnx": export_onnx(self.folder) if self.settings.onnx else None,
            "space": spaces,
            "entries": heads + tuned,
            "epochs": len(kept.fitted.history),
            "best_epoch": kept.fitted.best_epoch,
            "seconds": round(sum(part.fitted.seconds for part in every), 1),
            "comparisons": comparisons,
            "selection": score_choice(heads + tuned, self.predictions),
            "summary": verdict(comparisons),
            "left_out": kept.left_out,
            "history": kept.fitted.history,
        }

    def _part(self, dataset: Dataset, fit: Fit, number: int, n_fits: int) -> Part:
        from finetune.fit import Training, fit_fold  # imports Lightning, which predict has no use for

        if n_fits > 1:
            what = "all rows that are not held out, the one that is kept" if fit.folder == KEPT else fit.folder
            self.listener.say(f"network {number} of {n_fits}: {what}")
        folder = self.folder / fit.folder
        training = Training(dataset, self.settings, fit.train, fit.stop, folder, self.sweep.seed, self.device)
        fitted = fit_fold(training, begin=partial(self._begin, fit.train), resume=self.resume, listener=self.listener)
        how: dict[str, Any] = {"device": self.device, "workers": n_workers(self.settings, self.device)}
        asked = asked_rows(fit)
        outputs, left_out = predict_rows(fitted.network, dataset, asked, batch_size=fitted.batch_size, **how)
        return Part(fit, fitted, outputs, fitted.left_out | left_out)

    def _begin(self, rows: Rows, network: MultimodalNetwork) -> None:
        runtime = Runtime(self.device)
        self.listener.say(begin_from_heads(network, self.sweep, self.store, self.settings, rows=rows, runtime=runtime))

    def _say_rivals(self, sweep: Sweep) -> None:
        n_stored, spaces = len(self.sweep.matrix.spaces), list(sweep.matrix.spaces)
        if len(spaces) < n_stored:
            what = ", ".join(spaces) or "metadata alone"
            self.listener.say(f"compared with heads on {len(spaces)} of {n_stored} stored spaces: {what}")

    def _usable(self, parts: Sequence[Part]) -> Sweep:
        """Return the sweep without the rows that the network could not read, so that all are scored on the same."""
        left_out = sorted({row for part in parts for row in part.left_out})
        complete = self.sweep.matrix.complete & ~np.isin(self.sweep.dataset.ids, left_out)
        return replace(self.sweep, matrix=replace(self.sweep.matrix, complete=complete))

    def _entry(
        self,
        sweep: Sweep,
        task: str,
        parts: Sequence[Part],
        *,
        held_out: str | None = None,
        beside: Sequence[Entry] = (),
    ) -> tuple[Entry, list[Calibration]]:
        return given_entry(
            sweep,
            task,
            [Given(part.outputs[task], part.fit.stop) for part in parts],
            head=HEAD,
            blocks=blocks_of(parts[0].fitted.network),
            identity=self._identity(sweep, task, held_out or sweep.role),
            seconds=sum(part.fitted.seconds for part in parts) / len(sweep.task_names),
            about={"run": self.folder.name, "settings": self.settings.given(), "stop": _stop_score(sweep, task, parts)},
            held_out=held_out,
            beside=beside,
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
            rows=kept.fit.train,
            calibrations=calibrations,
            entries={entry["task"]: entry for entry, _ in scored},
            about={
                "split_fingerprint": sweep.split.fingerprint,
                "seed": sweep.seed,
                "versions": versions(),
                UNSEEN: sweep.dataset.ids[kept.fit.stop if is_whole else asked_rows(kept.fit)].tolist(),
                **_drawn(sweep),
            },
            is_whole=is_whole,
            device=self.device,
        )

    def _calibration(self, sweep: Sweep, task: str, part: Part) -> Calibration:
        plan = sweep.plan(task, [sweep.split.whole(sweep.dataset.ids)])
        return calibration_of(plan, Given(part.outputs[task], part.fit.stop), 0, seed=sweep.seed)

    def _identity(self, sweep: Sweep, task: str, role: str) -> str:
        """Return a digest of all that decides an entry's numbers."""
        target = sweep.dataset.tasks[task]
        labels = hashlib.sha256(target.y.tobytes() + target.applies.tobytes() + sweep.matrix.complete.tobytes())
        settings, spec = self.settings.model_dump(mode="json"), sweep.dataset.spec
        seen = spec.model_dump(mode="json", include=INPUTS)
        learned = {name: spec.tasks[name].model_dump(mode="json") for name in sweep.task_names}
        parts = [HEAD, task, role, settings, seen, learned, sweep.seed, sweep.split.fingerprint, labels.hexdigest()]
        return json_key([*parts, sweep.dataset.ids.tolist()])


def _drawn(sweep: Sweep) -> dict[str, list[str]]:
    """Return the ids of the rows that are not held out, where they are not all that the split has."""
    drawn = sweep.dataset.ids[sweep.split.fitting(sweep.dataset.ids)].tolist()
    return {SUBSET: drawn} if len(drawn) < sum(map(is_fitting, sweep.split.roles.values())) else {}


def asked_rows(fit: Fit) -> Rows:
    """Return the rows that a network is asked about: none that it is trained on."""
    return np.sort(np.concatenate([fit.stop, fit.score]))


def _stop_score(sweep: Sweep, task: str, parts: Sequence[Part]) -> float | None:
    """Return the task's main metric on the stop rows at the best epochs: what settings may be chosen by."""
    name = f"{task}_{HEADLINE[sweep.dataset.tasks[task].kind]}"
    found = [part.fitted.history[part.fitted.best_epoch - 1].get(name) for part in parts]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def blocks_of(network: MultimodalNetwork) -> tuple[str, ...]:
    """Return what a network reads, as entries name it: ``image:bf@efficientnet_b0``, ``metadata``."""
    found = set()
    for plan in network.blueprint.branches:
        if plan.kind == "metadata":
            found.add("metadata")
        else:
            found |= {f"{plan.kind}:{block}@{plan.encoder}" for block in plan.blocks}
    return tuple(sorted(found))
