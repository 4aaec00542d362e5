"""Batch scripts, run by a real SLURM of one node that the test starts."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from store import FeatureStore, SlurmJob, batch_script, load_dataset
from tests.cluster import slurm, start_again, wait, wait_for, why_not
from tests.finetune.trained import make_images

ROOT = Path(__file__).resolve().parents[1]
Make = Callable[..., Path]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]  # one node for all of them


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch finds a SLURM."""
    if reason := why_not():
        pytest.skip(reason)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def folder(make_dataset: Make, tmp_path: Path) -> Path:
    """A dataset in a folder whose name needs quotes, with two tasks."""
    folder = tmp_path / "it's a folder"
    make_dataset('[tasks.size]\ncolumn = "size"\n', folder=folder)
    return folder


def cli(*words: object, folder: Path, environment: dict[str, str] | None = None, code: int = 0) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, words), "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    found: dict[str, object] = json.loads(done.stdout) if done.stdout else {}
    return found


def test_an_array_of_shards_fills_the_store_as_one_run_does(folder: Path, cluster: dict[str, str]) -> None:
    words = ["slurm", "extract", "--backbone", "texture", "--array", 3, "--cpus", 1, "--time", "00:05:00", "--submit"]
    document = cli(*words, "--memory", "600M", "--sbatch=--comment=test", folder=folder, environment=cluster)
    assert (document["script"], document["jobs"]) == ("slurm-extract.sh", 3)
    assert wait(str(document["job_id"]), cluster) == [("COMPLETED", "0")] * 3
    logs = [path.read_text() for path in sorted(folder.glob("slurm-extract-*_*.log"))]
    assert len(logs) == 3 and sum(int(log.split("image:bf@texture: ")[1].split(" embedded")[0]) for log in logs) == 24
    [report] = cli("extract", "--backbone", "texture", folder=folder)["spaces"]  # type: ignore[misc]
    assert (report["embedded"], report["present"]) == (0, 24)
    cli("extract", "--backbone", "texture", "--store", "one.zarr", folder=folder)
    block = load_dataset(folder / "dataset.toml").images["bf"]
    keys = list(filter(None, block.keys()))
    many, one = FeatureStore(folder / "features.zarr"), FeatureStore(folder / "one.zarr")
    [space] = one.spaces()
    np.testing.assert_array_equal(many.read(space, keys), one.read(space, keys))
    assert many.verify() == []


def test_an_array_of_tasks_writes_one_leaderboard(folder: Path, cluster: dict[str, str]) -> None:
    cli("extract", "--backbone", "texture", folder=folder)
    words = ["slurm", "heads", "--head", "linear", "--array", 9, "--submit"]
    document = cli(*words, folder=folder, environment=cluster)
    assert document["jobs"] == 2
    assert wait(str(document["job_id"]), cluster) == [("COMPLETED", "0")] * 2
    lines = [json.loads(line) for line in (folder / "runs" / "leaderboard.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == {"kind", "size"}
    before = len(lines)
    cli("heads", "--head", "linear", folder=folder)
    assert len((folder / "runs" / "leaderboard.jsonl").read_text().splitlines()) == before, "nothing was left to do"


def test_a_job_with_rows_left_out_says_so_by_its_exit_code(folder: Path, cluster: dict[str, str]) -> None:
    (folder / "images" / "s_200X_00.tif").write_text("no image")
    document = cli("slurm", "extract", "--backbone", "texture", "--submit", folder=folder, environment=cluster)
    assert wait(str(document["job_id"]), cluster) == [("FAILED", "3")]


def test_what_sbatch_refuses_is_one_line(folder: Path, cluster: dict[str, str]) -> None:
    words = [sys.executable, str(ROOT / "cli.py"), "slurm", "extract", "--partition", "nowhere", "--submit"]
    done = subprocess.run(words, cwd=folder, env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "invalid partition specified: nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1


QUICK = ["--backbone", "test_resnet", "--weights", "random", "--device", "cpu", "--init", "backbone",
         "--set", "input_px=32", "--set", "batch_size=8", "--set", "workers=0", "--task", "kind"]  # fmt: skip


def test_a_grid_of_settings_is_trained_by_an_array_and_ranked(tmp_path: Path, cluster: dict[str, str]) -> None:
    make_images(tmp_path)
    words = ["slurm", "finetune", "--grid", "lr=1e-2,1e-5", "--set", "max_epochs=2", *QUICK, "--cpus", 1, "--submit"]
    document = cli(*words, folder=tmp_path, environment=cluster)
    assert document["jobs"] == 2
    assert wait(str(document["job_id"]), cluster) == [("COMPLETED", "0")] * 2
    rows = cli("leaderboard", "--head", "finetune", folder=tmp_path)["entries"]
    assert isinstance(rows, list)
    assert {row["run"]: row["settings"] for row in rows if row["run"]} == {
        "finetune-1": {"lr": 0.01}, "finetune-2": {"lr": 1e-5}
    }  # fmt: skip
    assert all((tmp_path / "runs" / f"finetune-{i}" / "bundle.json").exists() for i in (1, 2))


def test_fine_tuning_that_slurm_signals_is_requeued_and_reaches_the_same_losses(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    make_images(tmp_path)
    training = [*QUICK, "--set", "max_epochs=40", "--set", "patience=40"]
    cli("finetune", *training, "--name", "whole", folder=tmp_path, environment=cluster)
    job = str(cli("slurm", "finetune", *training, "--submit", folder=tmp_path, environment=cluster)["job_id"])
    log = tmp_path / f"slurm-finetune-{job}.log"
    wait_for(log, "epoch 3 of 40")
    subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)  # as SLURM does when time is up
    start_again(job, cluster)
    assert wait(job, cluster) == [("COMPLETED", "0")]
    text = log.read_text()
    assert text.count("epoch 1 of 40") == 1 and text.count("epoch 40 of 40") == 1
    losses = [pd.read_csv(tmp_path / "runs" / name / "metrics.csv")["train_loss"] for name in ("whole", "finetune")]
    assert len(losses[0]) == 40
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


TRAINING = """
import os, signal, subprocess, sys, time
def save_and_requeue(*_):  # as Lightning does it
    open("checkpoint", "w").close()
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
print(sys.argv[1:], os.environ["SLURM_NTASKS"], os.environ["SLURM_PROCID"], flush=True)
if "--resume" in sys.argv:
    print("went on" if os.path.exists("checkpoint") else "began anew", flush=True)
else:
    signal.signal(signal.SIGUSR1, save_and_requeue)
    while True:
        time.sleep(0.1)
"""


def test_fine_tuning_is_requeued_before_its_time_is_up_and_goes_on(tmp_path: Path, cluster: dict[str, str]) -> None:
    (tmp_path / "train.py").write_text(TRAINING)
    job = SlurmJob("finetune", tmp_path, time="00:01:00")  # less than the 90 s of warning: the signal comes at once
    script = tmp_path / "job.sh"
    script.write_text(batch_script(job, [sys.executable, str(tmp_path / "train.py"), "--set", "lr=1 e-3"]))
    sbatch = subprocess.run(["sbatch", "--parsable", script], env=cluster, capture_output=True, text=True, check=True)
    start_again(sbatch.stdout.strip(), cluster)
    assert wait(sbatch.stdout.strip(), cluster) == [("COMPLETED", "0")]
    [log] = [path.read_text() for path in tmp_path.glob("slurm-finetune-*.log")]
    assert "['--set', 'lr=1 e-3'] 1 0\n" in log and "['--set', 'lr=1 e-3', '--resume'] 1 0\n" in log
    assert log.rstrip().endswith("went on")
