import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import cli
from extract import load_backbone
from finetune.verdict import summary
from heads import WHOLE, Leaderboard, Predictions
from store import FeatureStore
from tests.finetune.trained import make_images

ROOT = Path(__file__).parents[2]
QUICK = ["--backbone", "test_resnet", "--weights", "random", "--device", "cpu", "--set", "input_px=32",
         "--set", "max_epochs=2", "--set", "batch_size=8"]  # fmt: skip


def finetune(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.app, ["finetune", "--data", str(folder / "dataset.toml"), *QUICK, *options])


def document(folder: Path, *options: str) -> dict[str, Any]:
    result = finetune(folder, *options, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def one_fold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("one")
    make_images(folder)
    return folder, document(folder, "--final")


def test_heads_and_network_are_scored_on_the_same_rows(one_fold: tuple[Path, dict[str, Any]]) -> None:
    folder, found = one_fold
    assert {"bundle", "space", "entries", "epochs", "best_epoch", "seconds"} <= found.keys()
    assert found["epochs"] == 2 and 1 <= found["best_epoch"] <= 2 and found["seconds"] > 0
    own = [entry for entry in found["entries"] if entry["head"] == "finetune"]
    assert [(e["task"], e["split"]) for e in own] == [
        ("kind", "fold-0"), ("level", "fold-0"), ("kind", "test"), ("level", "test")
    ]  # fmt: skip
    assert {tuple(entry["blocks"]) for entry in own} == {("image:bf@test_resnet",)}
    assert {entry["run"] for entry in own} == {"finetune"}
    assert own[0]["settings"] == {
        "backbone": "test_resnet", "weights": "random", "input_px": 32, "max_epochs": 2, "batch_size": 8
    }  # fmt: skip
    with (folder / "runs" / "finetune" / "fold-0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    of_best = max(rows, key=lambda row: float(row["score"]))  # of the network that fold 0 was scored by
    assert own[0]["stop"] == pytest.approx(float(of_best["kind_accuracy"]))
    assert own[1]["stop"] == pytest.approx(float(of_best["level_mae"]))
    heads = [e for e in found["entries"] if e["head"] not in ("finetune", "prior")]
    assert {e["split"] for e in heads} == {"fold-0", "test"}
    assert {e["n_rows"] for e in found["entries"] if e["split"] == "test"} == {6}
    looks = [e["n_earlier"] for e in found["entries"] if e["split"] == "test" and e["head"] != "prior"]
    assert looks == [0] * 4  # head and network, both for the first time
    board = Leaderboard(folder / "runs" / "leaderboard.jsonl").known()
    predictions = Predictions(folder / "runs" / "predictions")
    for entry in own:
        assert board[entry["identity"]]["metrics"] == entry["metrics"]
        rows = predictions.of(entry).row
        baseline = next(
            e for e in found["entries"]
            if e["head"] == "prior" and (e["task"], e["split"]) == (entry["task"], entry["split"])
        )  # fmt: skip
        assert entry["split"] == "test" or rows.tolist() == predictions.of(baseline).row.tolist()
        assert entry["difference"]["value"] is not None


def test_the_comparison_is_paired_and_said_in_words(one_fold: tuple[Path, dict[str, Any]]) -> None:
    _, found = one_fold
    pairs = [(one["task"], one["split"]) for one in found["comparisons"]]
    assert pairs == [("kind", "fold-0"), ("level", "fold-0"), ("kind", "test"), ("level", "test")]
    chosen = {one["task"]: (one["head"], one["blocks"]) for one in found["comparisons"][:2]}
    for one in found["comparisons"]:
        assert (one["head"], one["blocks"]) == chosen[one["task"]]  # nothing is chosen by held-out rows
        same = [e for e in found["entries"] if (e["task"], e["split"]) == (one["task"], one["split"])]
        [own] = [e for e in same if e["head"] == "finetune"]
        [head] = [e for e in same if (e["head"], e["blocks"]) == (one["head"], one["blocks"])]
        sign = 1 if one["metric"] == "accuracy" else -1
        gap = sign * (own["metrics"][one["metric"]]["value"] - head["metrics"][one["metric"]]["value"])
        assert one["value"] == pytest.approx(gap)
        where = "test: " if one["split"] == "test" else ""
        assert one["words"].startswith(f"{where}fine-tuned beside {one['head']} on ")
    scored = [e["task"] for e in found["entries"] if e["split"] == "fold-0" and e["head"] != "prior"]
    chosen_from = {one["task"]: one["n_entries"] for one in found["selection"]}
    assert chosen_from == {task: scored.count(task) for task in ("kind", "level")}, "the network among them"
    assert found["summary"].startswith("Fine-tuning was") and "On held-out test: fine-tuning was" in found["summary"]


def test_files_of_a_run_lie_in_its_folder(one_fold: tuple[Path, dict[str, Any]]) -> None:
    folder, found = one_fold
    run = folder / "runs" / "finetune"
    assert Path(found["bundle"]).resolve() == run.resolve()
    for part in (run, run / "fold-0"):
        assert (part / "checkpoints" / "last.ckpt").exists() and (part / "curves.png").exists()
        with (part / "metrics.csv").open() as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_an_encoder_says_when_it_has_learned_from_all_that_is_not_held_out(
    one_fold: tuple[Path, dict[str, Any]],
) -> None:
    _, found = one_fold
    [space], entry = found["space"], found["entries"][0]
    tuned_on = load_backbone(space["folder"]).tuned_on
    assert tuned_on == f"{entry['split_fingerprint']}{WHOLE}"


def test_what_is_printed_for_people(tmp_path: Path) -> None:
    make_images(tmp_path)
    result = finetune(tmp_path, "--task", "kind", "--name", "mine", "--init", "heads")
    assert result.exit_code == 0
    assert " entries on the same rows is flattered" in result.stdout
    assert "fine-tuned beside" in result.stdout and "Fine-tuning was" in result.stdout
    assert "image:bf@test_resnet" in result.stdout and "level" not in result.stdout
    assert "best epoch" in result.stdout and "model: " in result.stdout
    assert "epoch 1 of 2: loss" in result.stderr and "epoch" not in result.stdout.split("best epoch")[0]
    assert "task heads start from the linear solution of" in result.stderr
    assert "GPU" not in result.stderr and "Lightning" not in result.stderr and "Tip" not in result.stderr
    again = finetune(tmp_path, "--task", "kind", "--name", "mine", "--init", "heads", "--resume")
    assert "epoch 1 of 2" not in again.stderr
    assert "mine: was complete after 2 epochs, of which" in again.stderr
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "best.ckpt").exists()


def test_each_output_of_the_network_is_shown_where_a_head_is_best(tmp_path: Path) -> None:
    spec = make_images(tmp_path)
    words = spec.read_text().replace('column = "level"', 'columns = ["level", "id_number"]\nweights = [3, 1]')
    spec.write_text(words + "[columns.id_number]\npattern = '(\\d+)[.]png'\n")
    still = ("--set", "lr=1e-9", "--set", "head_lr=1e-9", "--set", "init=backbone")
    shown = finetune(tmp_path, "--task", "level", *still).stdout
    title = "level, each output: image:bf@test_resnet, finetune"
    assert shown.index("level, each output: ") < shown.index(title) < shown.index("Fine-tuning was")
    own = shown[shown.index(title) :]
    assert all(f"  {name} " in own for name in ("level", "id_number", "mean", "mean, weighted"))
    first = document(tmp_path, "--task", "level", *still)["entries"][-1]
    spec.write_text(spec.read_text().replace("[3, 1]", "[1, 3]"))
    other = document(tmp_path, "--task", "level", *still)["entries"][-1]
    assert first["identity"] != other["identity"]  # otherwise one's predictions would take the place of the other's
    assert first["metrics"]["mae"]["value"] != other["metrics"]["mae"]["value"]


def test_the_first_step_starts_from_the_linear_solution(tmp_path: Path) -> None:
    make_images(tmp_path)
    still = ("--set", "lr=1e-12", "--set", "head_lr=1e-12", "--set", "max_epochs=1", "--task", "kind")
    begun, random = (
        document(tmp_path, *still, "--name", init, "--init", init)["history"][0] for init in ("heads", "backbone")
    )
    assert begun["train_loss"] < 0.5 * random["train_loss"]  # a solution of these rows, in training mode too


def test_features_at_a_size_of_the_runs_own_stay_in_its_folder(tmp_path: Path) -> None:
    make_images(tmp_path)
    shortest = ("--set", "max_epochs=1", "--task", "kind", "--init", "heads")
    for _ in range(2):
        found = document(tmp_path, *shortest)
        assert {b for e in found["entries"] for b in e["blocks"]} == {"image:bf@test_resnet", "image:bf@texture"}
    usual = {s.encoder: s.preprocess.get("input_px") for s in FeatureStore(tmp_path / "features.zarr").spaces()}
    [own] = FeatureStore(tmp_path / "runs" / "finetune" / "features.zarr").spaces()
    assert own.preprocess["input_px"] == [32, 32] != usual["test_resnet"] and sorted(usual) == [
        "test_resnet",
        "texture",
    ]


def test_all_folds_are_scored_and_one_more_network_is_kept(tmp_path: Path) -> None:
    make_images(tmp_path, n_groups=6)
    run = tmp_path / "runs" / "finetune"
    for name in ("fold-7/checkpoints/last.ckpt", "fold-7/metrics.csv", "fold-8/mine.txt", "fold-8/curves.png"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("of an earlier run")
    found = document(tmp_path, "--folds", "all", "--set", "max_epochs=1", "--set", "init=backbone", "--task", "kind")
    own = [entry for entry in found["entries"] if entry["head"] == "finetune"]
    assert [(e["split"], e["n_rows"], e["n_folds"]) for e in own] == [("cv", 18, 5)]
    assert sorted(path.name for path in run.glob("fold-*")) == [*(f"fold-{i}" for i in range(5)), "fold-8"]
    assert [path.name for path in (run / "fold-8").iterdir()] == ["mine.txt"]  # which no run has written
    assert (run / "checkpoints" / "best.ckpt").exists()


def test_a_subset_trains_on_so_many_rows(tmp_path: Path) -> None:
    make_images(tmp_path)
    found = document(tmp_path, "--subset", "12", "--set", "init=backbone")
    own = [entry for entry in found["entries"] if entry["head"] == "finetune"]
    assert [entry["task"] for entry in own] == ["kind", "level"] and all(1 <= entry["n_rows"] <= 4 for entry in own)
    store = FeatureStore(tmp_path / "runs" / "finetune" / "subset.zarr")
    assert {store.info(space)["rows"] for space in store.spaces()} == {12}  # no test rows: nothing asks for them
    assert not (tmp_path / "features.zarr").exists()
    drawn = json.loads((tmp_path / "runs" / "finetune" / "bundle.json").read_text())["subset"]
    assert len(drawn) == 12 and not set(drawn) & {f"r{i}" for i in range(18, 24)}


def test_another_subset_of_the_same_run_embeds_its_own_rows(tmp_path: Path) -> None:
    make_images(tmp_path)
    for n_rows in (12, 16):
        words = ("--subset", str(n_rows), "--task", "kind", "--init", "heads", "--set", "max_epochs=1")
        found = document(tmp_path, *words)
        assert {b for e in found["entries"] for b in e["blocks"]} == {"image:bf@test_resnet", "image:bf@texture"}
        store = FeatureStore(tmp_path / "runs" / "finetune" / "subset.zarr")
        assert [store.info(space)["rows"] for space in store.spaces()] == [n_rows] * 2


def test_unreadable_images_are_left_out_with_exit_code_3(tmp_path: Path) -> None:
    make_images(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"nothing")
    result = finetune(tmp_path, "--json", "--set", "init=backbone", "--set", "max_epochs=1")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert {entry["n_left_out"] for entry in found["entries"]} == {1}
    assert list(found["left_out"]) == ["r3"] and "is no tif, png" in found["left_out"]["r3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "a/b"], "--name 'a/b': give the plain name of a folder"),
        (["--preset", "powder"], "preset 'powder' needs 1 metadata block"),
        (["--set", "freeze=layr1"], "'layr1' is the start of no layer's name. Did you mean 'layer1'"),
        (["--set", "lrr=1"], "unknown key 'lrr'. Did you mean 'lr'?"),
        (["--task", "knd"], "there is no task 'knd'"),
        (["--set", "batch_size=1"], "batch_size = 1 gives batches of one"),
        (["--set", "best_by=x"], "best_by = 'x': there is no such task"),
        (
            ["--subset", "1"],
            "or more rows, with 3 of every class to learn from, where",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    one_fold: tuple[Path, dict[str, Any]], options: list[str], message: str
) -> None:
    result = finetune(one_fold[0], "--name", "bad", *options)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1] and result.stdout == ""


def test_a_class_that_the_training_rows_lack_is_refused(tmp_path: Path) -> None:
    make_images(tmp_path)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    lines[-1] = lines[-1].replace("light", "rare")  # a test row
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    result = finetune(tmp_path)
    assert result.exit_code == 2
    assert "task 'kind': no training row is of class 'rare', so it cannot be learnt" in result.stderr


def test_words_of_the_summary() -> None:
    def of(**verdicts: str) -> str:
        return summary([{"task": task, "verdict": verdict} for task, verdict in verdicts.items()])

    assert of(a="helps") == "Fine-tuning was worth it for a."
    assert of(a="helps", b="hurts", c="not told apart") == (
        "Fine-tuning was worth it for a; not told apart for c; worse for b. Keep the heads where it was not."
    )
    assert of(a="not told apart", b="hurts") == (
        "Fine-tuning was not worth it here: nothing is sure to be better than the best head; it is worse for b. "
        "Keep the heads."
    )


@pytest.mark.slow
def test_two_processes_train_one_network_and_one_of_them_reports(tmp_path: Path) -> None:
    make_images(tmp_path)
    command = [sys.executable, str(ROOT / "cli.py"), "finetune", "--data", str(tmp_path / "dataset.toml"), *QUICK]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--set", "devices=2", "--set", "max_epochs=1", "--set", "init=backbone", "--json"],
        env=environment, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)  # one document: the other process prints nothing
    assert found["epochs"] == 1
    assert done.stderr.count("epoch 1 of 1") == 1
