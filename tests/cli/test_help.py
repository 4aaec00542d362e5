"""Help, mistakes in what is typed, and what every command has in common."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heads import HEADS
from store import SAMPLES, write_sample
from tests.cli.commands import Make, run, run_json

ROOT = Path(__file__).resolve().parents[2]


def test_help_answers_quickly_and_ends_with_an_example() -> None:
    commands = ["sample", "check", "explore", "extract", "heads", "predict", "demo", "slurm", "finetune"]
    for command in commands:
        assert "Example: python cli.py" in run(command, "--help").stdout.strip().splitlines()[-1]
    before = os.times()
    words = [sys.executable, "-X", "importtime", ROOT / "cli.py", "--help"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    after = os.times()
    assert all(command in done.stdout for command in commands)
    assert not re.search(r"\| +(torch|numpy|pandas|pydantic|zarr|store|extract|heads|finetune)$", done.stderr, re.M)
    assert re.search(r"\| +typer$", done.stderr, re.M)
    assert after.children_user - before.children_user < 1  # seconds of a processor; a quarter on a quiet machine


def test_help_of_a_sweep_names_every_head() -> None:
    [line] = [line for line in run("heads", "--help").stdout.splitlines() if line.strip().startswith("--head ")]
    assert all(name in line for name in HEADS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extrct"], "No such command 'extrct'. Did you mean 'extract'"),
        (["extract", "--backbon", "texture"], "--backbone"),
        (["extract", "--precision", "bfloat"], "'bfloat' is not one of 'float32', 'bfloat16', 'float16'. Did you mean"),
        (["slurm", "extrat"], "Did you mean 'extract'?"),
        (["slurm", "heads", "--hed", "linear"], "Try 'cli.py heads --help'"),
        (["qqq"], "No such command 'qqq'. There is sample, check, explore, extract, heads, "),
        (["store", "qqq"], "No such command 'qqq'. There is ls, info, verify, repair, gc, export, import."),
        (["store", "lss"], "No such command 'lss'. Did you mean 'ls'"),
        (["heads", "--seed", "abc"], "Invalid value for '--seed': expected a whole number"),
        (["heads", "--jobs", "0"], "Invalid value for '--jobs': expected a number from 1 on"),
    ],
)
def test_a_mistyped_word_gets_the_nearest(words: list[str], message: str) -> None:
    result = run(*words, code=2)
    assert message in result.stderr and "Value error" not in result.stderr and "Input should" not in result.stderr


def test_help_of_sample_lists_the_registry() -> None:
    shown = run("sample", "--help").stdout
    assert all(f"  {name} " in shown and f"{sample.n_rows} rows" in shown for name, sample in SAMPLES.items())


def test_json_prints_one_document_and_nothing_else(make_dataset: Make) -> None:
    spec = make_dataset()
    for words in (["extract"], ["check"], ["heads"], ["store", "ls"], ["store", "verify"]):
        document = run_json(*words, "--data", spec)
        assert isinstance(document, dict)


BAD = {
    "a mistyped option": (["extract", "--bakbone", "texture"], "No such option: --bakbone"),
    "a mistyped command": (["extrakt"], "No such command 'extrakt'"),
    "an unknown backbone": (["extract", "--backbone", "efficientnetb0"], "Did you mean 'efficientnet_b0'"),
    "a missing spec": (["check", "--data", "nowhere.toml"], "no such file"),
    "an unknown task": (["heads", "--task", "knid"], "Did you mean 'kind'"),
    "an unknown head": (["heads", "--head", "linaer"], "Did you mean 'linear'"),
    "weights that are not there": (
        ["extract", "--backbone", "resnet18", "--weights", "nowhere.safetensors"],
        "nowhere.safetensors",
    ),
    "no bundle": (["predict", ".", "images"], "is no bundle"),
    "a mistyped setting": (["finetune", "--set", "max_epoch=2"], "max_epochs"),
    "an unknown sample": (["sample", "temm"], "Did you mean 'tem'"),
    "a sample over other files": (["sample", "tem", "images"], "is not empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(make_dataset: Make, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    spec = make_dataset()
    monkeypatch.chdir(spec.parent)
    words, message = BAD[case]
    before = sorted(path.name for path in spec.parent.iterdir())
    result = run(*words, code=2)
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stdout == ""
    left = {path.name for path in spec.parent.iterdir()} - set(before)
    assert not left - {"splits.json", "features.zarr"}


def test_a_folder_without_a_dataset_gets_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.write", lambda name, folder: write_sample(name, folder, n_rows=40))
    result = run("heads", "--task", "particle_count", "--head", "linear")
    assert "making the built-in sample in ./tem" in result.stderr and "using the built-in encoders" in result.stderr
    assert "particle_count" in result.stdout and (tmp_path / "tem" / "runs" / "leaderboard.jsonl").exists()
