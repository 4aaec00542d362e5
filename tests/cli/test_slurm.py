"""`slurm`: scripts are written only for words that their jobs would take."""

import sys
from pathlib import Path

import pytest

from tests.cli.commands import Make, run, run_json

ROOT = Path(__file__).resolve().parents[2]


def test_a_slurm_script_is_written_only_for_words_the_command_takes(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    monkeypatch.chdir(spec.parent)
    for words, message in (
        (["extract", "--bakbone", "texture"], "No such option: --bakbone"),
        (["extract", "--partion", "gpu"], "No such option: --partion"),
        (["extract", "--batch-size", "many"], "Invalid value for '--batch-size'"),
        (["extract", "--task", "kind"], "No such option: --task"),
        (["heads", "--task", "knid"], "Did you mean 'kind'"),
        (["heads", "--array", "2", "--save"], "leave --save out"),
        (["extract", "--backbone", "resnet81"], "unknown backbone 'resnet81'. Did you mean"),
        (["extract", "--backbone", "ngrams"], "'ngrams' takes texts, but the dataset has no [texts.…] block"),
        (["extract", "--convert", "lgo"], "Did you mean 'log'?"),
        (["extract", "--shard", "3/2"], "expected I/N"),
        (["extract", "--time", "2h"], "--time '2h' is no time that SLURM reads"),
        (["heads", "--backbone", "textur"], "Did you mean 'texture'"),
        (["heads", "--head", "liner"], "Did you mean 'linear'?"),
        (["extract", "--data", "nowhere.toml"], "no such file"),
        (["predict"], "'predict' is not one of"),
    ):
        result = run("slurm", *words, "--submit", code=2)
        assert message in result.stderr and not list(spec.parent.glob("slurm-*")), words
    shown = run("slurm", "heads", "--head", "linear", "--array", 2, "--cpus", 3, "--out", "job.sh").stdout
    assert shown == "job.sh: an array of 2 jobs; run: sbatch job.sh\n"
    text = Path("job.sh").read_text()
    assert "1) set -- --task kind ;;\n2) set -- --task size ;;" in text and "#SBATCH --cpus-per-task=3\n" in text
    assert text.endswith(f'exec {sys.executable} {ROOT / "cli.py"} heads --head linear "$@"\n')
    for words, message in (
        (["--grid", "lr=1e-3,1e-4", "--sett", "x=1"], "No such option: --sett"),
        (["--array", "2"], "comes from --grid"),
        (["--grid", "lr=1e-3,no"], "lr: needs a number (got 'no')"),
        (["--preset", "garbage"], "preset 'garbage' needs 1 text block"),
        (["--set", "backbone=resnet81"], "unknown backbone 'resnet81'. Did you mean"),
        (["--set", "branches.bf.encoder=texture"], "'texture' has no weights to train"),
        (["--grid", "best_by=mean,knid"], "Did you mean 'kind'?"),
    ):
        assert message in run("slurm", "finetune", *words, code=2).stderr and not Path("slurm-finetune.sh").exists()
    assert run_json("slurm", "finetune", "--grid", "lr=1e-3,1e-4", "--set", "max_epochs=2")["jobs"] == 2
    text = Path("slurm-finetune.sh").read_text()
    assert "1) set -- --set lr=1e-3 --name finetune-1 ;;" in text and 'finetune --set max_epochs=2 "$@" ||' in text
    assert run_json("slurm", "heads", "--task", "size") == {"script": "slurm-heads.sh", "jobs": 1, "job_id": None}
    assert Path("slurm-heads.sh").read_text().endswith('heads --task size "$@"\n')
