import csv
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extract import resolve_device
from finetune import callbacks, fit
from finetune.checkpoint import read_checkpoint
from finetune.fit import Fitted, Training, fit_fold
from finetune.listener import Listener
from finetune.module import FinetuneModule
from finetune.trainer import Stopped, make_trainer, quiet
from store import InputError, load_dataset
from tests.finetune.trained import a_training, make_images

ROOT = Path(__file__).parents[2]
LOSSES = ("train_loss", "stop_loss", "score", "lr")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Fitted, list[str]]:
    """A run of three epochs with everything random switched on, and what it said."""
    training = a_training(tmp_path_factory.mktemp("unbroken"), *RANDOM)
    lines: list[str] = []
    return training, fit_fold(training, listener=Listener(each_epoch=lines.append)), lines


RANDOM = ("max_epochs=3", "augment.hflip=0.5", "augment.noise=0.1", "fusion=8", "fusion_dropout=0.3", "ema=0.9",
          "task_weights=uncertainty")  # fmt: skip


def losses(history: list[dict[str, float]]) -> list[list[float]]:
    return [[row[name] for name in LOSSES] for row in history]


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return dict(fitted.network.state_dict())


def test_training_learns_and_the_best_epoch_is_what_comes_back(tmp_path: Path) -> None:
    training = a_training(tmp_path, "max_epochs=6", "lr=3e-3", "head_lr=1e-2", "schedule=constant")
    fitted = fit_fold(training)
    assert fitted.history[-1]["train_loss"] < 0.7 * fitted.history[0]["train_loss"]
    scores = [row["score"] for row in fitted.history]
    assert fitted.best_epoch == 1 + int(np.argmax(scores)) and not fitted.network.training
    best = read_checkpoint(training.folder / "checkpoints" / "best.ckpt")["state_dict"]
    last = read_checkpoint(training.last)["state_dict"]
    mine = weights(fitted)
    assert all(mine[name].equal(best[f"network.{name}"]) for name in mine)
    assert fitted.best_epoch == 6 or any(not mine[name].equal(last[f"network.{name}"]) for name in mine)


def test_the_same_seed_gives_the_same_run_and_the_global_state_stays(
    tmp_path: Path, unbroken: tuple[Training, Fitted, list[str]]
) -> None:
    training, fitted, _ = unbroken
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index] # noqa: NPY002
    torch.rand(1)  # what was drawn before has no say
    again = fit_fold(replace(training, folder=tmp_path / "again"))
    assert losses(again.history) == losses(fitted.history)
    other = fit_fold(replace(training, folder=tmp_path / "other", seed=1))
    assert losses(other.history) != losses(fitted.history)
    after = np.random.get_state()[1]  # type: ignore[index] # noqa: NPY002
    assert (after == before[1]).all() and random.getstate() == before[2]
    torch.set_rng_state(before[0])
    torch.rand(1)


@pytest.mark.parametrize(
    ("n_batches", "where"),
    [(1, "1 of 3, after 1 of its batches"), (2, "2 of 3"), (4, "3 of 3"), (5, "3 of 3, after 1 of its batches")],
)
def test_a_run_broken_off_after_any_batch_goes_on_to_the_same_losses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unbroken: tuple[Training, Fitted, list[str]],
    n_batches: int,
    where: str,
) -> None:
    training, fitted, _ = unbroken
    broken = replace(training, folder=tmp_path / "run")
    monkeypatch.setattr(callbacks, "SAVE_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(FinetuneModule, "training_step", failing(FinetuneModule.training_step, n_batches))
        fit_fold(broken)
    said: list[str] = []
    resumed = fit_fold(broken, resume=True, listener=Listener(say=said.append))
    assert said == [f"{broken.folder}: resuming at epoch {where}"]
    np.testing.assert_allclose(losses(resumed.history), losses(fitted.history), rtol=1e-5)
    mine, theirs = weights(resumed), weights(fitted)
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-6)
    assert resumed.best_epoch == fitted.best_epoch


def failing(step: Any, n_batches: int) -> Any:
    done = []

    def step_or_fail(self: Any, *batch: Any) -> Any:
        done.append(None)
        if len(done) > n_batches:
            raise ZeroDivisionError
        return step(self, *batch)

    return step_or_fail


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from finetune import callbacks
from finetune.fit import fit_fold
from tests.finetune.trained import a_training

callbacks.SAVE_EVERY_SECONDS = 0.05
draw = random.Random(0)
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, None):
    if (child := os.fork()) == 0:  # nothing of torch has run yet in this process
        fit_fold(a_training(Path(sys.argv[1]), *sys.argv[2:]), resume=True)
        os._exit(0)
    if number is not None:
        time.sleep(draw.uniform(0.2, 1.2))
        os.kill(child, number)
    _, status = os.waitpid(child, 0)
print("exit", os.waitstatus_to_exitcode(status))
"""


def test_a_run_killed_at_random_moments_reaches_the_same_losses(
    tmp_path: Path, unbroken: tuple[Training, Fitted, list[str]]
) -> None:
    _, fitted, _ = unbroken
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path), *RANDOM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "exit 0\n"
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    np.testing.assert_allclose(losses(rows), losses(fitted.history), rtol=1e-5)


def test_sigterm_ends_training_after_the_batch_and_saves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[Training, Fitted, list[str]]
) -> None:
    training, fitted, _ = unbroken
    stopped = replace(training, folder=tmp_path / "run")
    step, done = FinetuneModule.training_step, []

    def step_and_ask_to_end(self: Any, *batch: Any) -> Any:
        done.append(None)
        if len(done) == 3:  # the first batch of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *batch)

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            Stopped,
            match=r"run: stopped after 1 of 3 epochs; the same command with --resume goes on from the last checkpoint",
        ) as ended,
    ):
        patch.setattr(FinetuneModule, "training_step", step_and_ask_to_end)
        fit_fold(stopped)
    assert len(done) == 3 and read_checkpoint(stopped.last)["next"] == [1, 1]
    assert ended.value.status == 128 + 15
    resumed = fit_fold(stopped, resume=True)
    np.testing.assert_allclose(losses(resumed.history), losses(fitted.history), rtol=1e-5)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    training = a_training(tmp_path, "max_epochs=30", "patience=1", "lr=1e-9", "head_lr=1e-9")
    lines: list[str] = []
    said: list[str] = []
    listener = Listener(each_epoch=lines.append, say=said.append)
    first = fit_fold(training, resume=True, listener=listener)
    n_epochs = len(first.history)
    assert n_epochs == len(lines) < 30  # patience ran out
    again = fit_fold(training, resume=True, listener=listener)
    assert again.history == first.history and len(lines) == n_epochs
    fit_fold(training, listener=listener)  # without --resume it begins anew
    assert len(lines) == 2 * n_epochs
    assert said == [
        f"{training.folder}: there is no checkpoint to resume from: beginning at epoch 1",
        f"{training.folder}: was complete after {n_epochs} epochs, of which {n_epochs - 1} is the best: not trained on",
        f"{training.folder}: replacing an earlier run's checkpoints and curves (--resume would go on from them)",
    ]


def test_what_an_epoch_says_is_said_drawn_and_written(unbroken: tuple[Training, Fitted, list[str]]) -> None:
    training, fitted, lines = unbroken
    assert len(lines) == 3
    pattern = (
        r"epoch 1 of 3: loss \d\.\d{4}, on the stop rows \d\.\d{4}, kind_accuracy \d\.\d{3}, level_mae \d+\.\d{3}; .* s"
    )
    assert re.fullmatch(pattern, lines[0])
    with (training.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["stop_loss"]) for row in rows] == [row["stop_loss"] for row in fitted.history]
    assert list(rows[0]) == ["epoch", "train_loss", "stop_loss", "kind_accuracy", "level_mae", "score", "lr", "seconds"]
    with Image.open(training.folder / "curves.png") as picture:
        assert picture.width <= 850 and picture.height > 200  # panels are wrapped, so that letters stay readable
    assert any(training.folder.glob("tensorboard/events.*"))


def test_stop_metrics_are_those_of_the_network(tmp_path: Path) -> None:
    from finetune.outputs import predict_rows

    training = a_training(tmp_path, "max_epochs=1")
    fitted = fit_fold(training)
    outputs, left_out = predict_rows(fitted.network, training.dataset, training.stop, batch_size=5, device="cpu")
    kind, level = (training.dataset.tasks[name].y[training.stop] for name in ("kind", "level"))
    row = fitted.history[0]
    assert row["kind_accuracy"] == pytest.approx((outputs["kind"][training.stop].argmax(axis=1) == kind).mean())
    assert row["level_mae"] == pytest.approx(np.abs(outputs["level"][training.stop] - level).mean(), rel=1e-4)
    assert left_out == {} and np.isnan(outputs["kind"][training.train]).all()
    np.testing.assert_allclose(outputs["kind"][training.stop].sum(axis=1), 1)
    y = training.dataset.tasks["level"].y[training.train]
    skill = 1 - row["level_mae"] / np.abs(y - np.median(y)).mean()
    assert row["score"] == pytest.approx((row["kind_accuracy"] + skill) / 2, abs=1e-4)


def norms_at_step(monkeypatch: pytest.MonkeyPatch, training: Training) -> list[float]:
    found: list[float] = []

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = configure(self, *args, **kwargs)
        gradients = [p for group in made["optimizer"].param_groups for p in group["params"]]

        def note(*_: Any) -> None:
            squares = [float(p.grad.norm()) ** 2 for p in gradients if p.grad is not None]
            found.append(sum(squares) ** 0.5)

        made["optimizer"].register_step_post_hook(note)  # Lightning computes gradients inside the step
        return made

    configure = FinetuneModule.configure_optimizers
    monkeypatch.setattr(FinetuneModule, "configure_optimizers", spy)
    fit_fold(training)
    return found


def test_gradients_are_clipped_before_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        free = norms_at_step(patch, a_training(tmp_path / "a", "clip_norm=none"))
    with monkeypatch.context() as patch:
        clipped = norms_at_step(patch, a_training(tmp_path / "b", "clip_norm=0.01"))
    assert min(free) > 0.1 and len(free) == len(clipped) == 4
    assert clipped == pytest.approx([0.01] * 4, rel=1e-3)


def test_accumulation_steps_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(norms_at_step(monkeypatch, a_training(tmp_path, "accumulate=2", "batch_size=4"))) == 2 * 2


def test_a_loss_that_is_no_number_names_the_rows(tmp_path: Path) -> None:
    training = a_training(tmp_path, "lr=1e18", "head_lr=1e18", "clip_norm=none", "warmup_epochs=0", "max_epochs=5")
    with pytest.raises(InputError, match=r"epoch \d: the loss of .*is not a number\. Look at these rows, or take a"):
        fit_fold(training)
    odd = load_dataset(make_images(tmp_path / "stop"))
    odd.tasks["level"].y[training.stop[0]] = 1e39
    with pytest.raises(
        InputError, match=f"epoch 1: the loss of the batch of stop rows .*'r{training.stop[0]}'.* is no"
    ):
        fit_fold(replace(a_training(tmp_path / "c"), dataset=odd))
    weird = load_dataset(make_images(tmp_path / "nan"))
    weird.tasks["level"].y[training.train[3]] = 1e39
    with pytest.raises(InputError, match=f"'r{training.train[3]}'"):
        fit_fold(replace(a_training(tmp_path / "b", "batch_size=4"), dataset=weird))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": ("head_lr=0.5",)}, "was made with head_lr = 0.001, not 0.5. Give what it was begun with, or"),
        ({"seed": 7}, "was made with seed = 0, not 7"),
        ({"settings": ("fusion=8",)}, "was made with fusion = \\[\\], not \\[8\\]"),
        ({"train": np.arange(5)}, "was made from other rows or labels"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    training = a_training(tmp_path, "max_epochs=1")
    fit_fold(training)
    if "settings" in changed:
        changed["settings"] = a_training(tmp_path, "max_epochs=1", *changed["settings"]).settings
    with pytest.raises(InputError, match=f"last.ckpt: {message}"):
        fit_fold(replace(training, **changed), resume=True)
    fit_fold(replace(training, settings=training.settings.model_copy(update={"workers": 0})), resume=True)


def test_a_checkpoint_of_another_architecture_or_of_none_is_refused(tmp_path: Path) -> None:
    training = a_training(tmp_path, "max_epochs=1")
    fit_fold(training)
    saved = read_checkpoint(training.last)
    saved["about"]["architecture"] = "x"
    torch.save(saved, training.last)
    with pytest.raises(InputError, match=r"last\.ckpt: is of another architecture\. Give what it was begun with"):
        fit_fold(training, resume=True)
    torch.save({"a": 1}, training.last)
    with pytest.raises(InputError, match="is no checkpoint of finetune"):
        fit_fold(training, resume=True)
    training.last.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"last\.ckpt: cannot be read"):
        fit_fold(training, resume=True)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"about": Evil()}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "pwned").exists()


def test_the_automatic_batch_is_halved_until_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = FinetuneModule.training_step
    sizes = []

    def small_memory(self: Any, batch: Any, number: int) -> Any:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError
        return step(self, batch, number)

    monkeypatch.setattr(FinetuneModule, "training_step", small_memory)
    monkeypatch.setattr(fit, "CPU_BATCH", 16)
    lines: list[str] = []
    fitted = fit_fold(a_training(tmp_path, "batch_size=auto", "max_epochs=1"), listener=Listener(say=lines.append))
    assert fitted.batch_size == 4 and lines[:2] == [
        "batches of 16 do not fit into the GPU's memory: trying 8",
        "batches of 8 do not fit into the GPU's memory: trying 4",
    ]
    assert max(sizes[2:]) <= 5  # the last may be one larger
    with pytest.raises(InputError, match="batch_size = 8 does not fit into the GPU's memory: set a smaller batch_size"):
        fit_fold(a_training(tmp_path / "b"))


def test_patience_and_what_is_best_by(tmp_path: Path) -> None:
    by_loss = fit_fold(a_training(tmp_path / "a", "best_by=loss", "max_epochs=3"))
    assert [row["score"] for row in by_loss.history] == [-row["stop_loss"] for row in by_loss.history]
    by_task = fit_fold(a_training(tmp_path / "b", "best_by=kind", "max_epochs=1"))
    assert by_task.history[0]["score"] == pytest.approx(by_task.history[0]["kind_accuracy"], abs=1e-4)
    with pytest.raises(InputError, match=r"best_by = 'knd': there is no such task\. Did you mean 'kind'\?"):
        fit_fold(a_training(tmp_path / "c", "best_by=knd"))


def test_a_task_that_no_stop_row_has_a_label_for_cannot_choose_the_epoch(tmp_path: Path) -> None:
    training = a_training(tmp_path, "best_by=kind")
    task = training.dataset.tasks["kind"]
    y = task.y.copy()
    y[training.stop] = -1
    dataset = replace(training.dataset, tasks={**training.dataset.tasks, "kind": replace(task, y=y)})
    with pytest.raises(InputError, match="best_by = 'kind', but no row kept out of training has a label for it"):
        fit_fold(replace(training, dataset=dataset))


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(FinetuneModule, "validation_step", stop)
    with pytest.raises(
        Stopped, match="stopped after 0 of 2 epochs; the same command begins anew: no epoch was complete"
    ) as ended:
        fit_fold(a_training(tmp_path))
    assert ended.value.status == 128 + 2
    assert signal.getsignal(signal.SIGINT) is before


def test_devices_and_precisions_that_are_not_there(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda: there is no GPU that torch can use here"):
            resolve_device("cuda")
    with pytest.raises(InputError, match="precision = float16 needs a GPU"):
        fit_fold(a_training(tmp_path, "precision=float16"))


def test_bfloat16_trains(tmp_path: Path) -> None:
    fitted = fit_fold(a_training(tmp_path, "precision=bfloat16", "max_epochs=1"))
    assert np.isfinite(losses(fitted.history)).all()
    assert all(value.dtype != torch.bfloat16 for value in weights(fitted).values())


def test_a_batch_of_one_with_batch_norm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size = 1 gives batches of one, of which batch norm learns nothing"):
        fit_fold(a_training(tmp_path, "batch_size=1"))


def test_lightning_keeps_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit_fold(a_training(tmp_path, "max_epochs=1"))
    assert capfd.readouterr() == ("", "")
    with quiet():
        trainer = make_trainer(a_training(tmp_path).settings, tmp_path, [], device="cpu")
    assert trainer.num_devices == 1


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    training = a_training(tmp_path)
    (tmp_path / "images" / f"{training.train[0]}.png").write_bytes(b"nothing")
    fitted = fit_fold(training)
    assert list(fitted.left_out) == [f"r{training.train[0]}"]
