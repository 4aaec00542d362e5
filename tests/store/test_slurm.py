"""The text of batch scripts, and what tells the jobs of an array apart; tests/test_slurm.py runs them."""

import shlex
import subprocess
from pathlib import Path

import pytest

from store import InputError
from store.slurm import SlurmJob, array_words, batch_script, submit_script, write_script

PROGRAM = ["/env/my python", "/code/cli.py", "extract", "--data", "it's $HOME; rm -rf.toml"]
"""Whose words have to survive bash."""


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def started(text: str, folder: Path, **environment: str) -> list[str]:
    """What the script would start: run by bash, with a program in place of python and srun that prints its words."""
    show = folder / "show"
    show.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"; echo threads=$OMP_NUM_THREADS\n")
    show.chmod(0o755)
    text = text.replace(shlex.quote(PROGRAM[0]), str(show)).replace("srun ", f"{show} ")
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_what_is_asked_for_stands_in_directives() -> None:
    job = SlurmJob("extract", Path("/data/a b"), "gpu", "02:00:00", 4, 2, "16G", ["--account=x"])
    assert directives(batch_script(job, PROGRAM)) == [
        "--job-name=extract",
        "--chdir='/data/a b'",
        "--output=slurm-extract-%j.log",
        "--partition=gpu",
        "--time=02:00:00",
        "--cpus-per-task=4",
        "--gpus-per-node=2",
        "--mem=16G",
        "--account=x",
    ]


def test_what_is_not_asked_for_is_left_to_the_cluster() -> None:
    assert directives(batch_script(SlurmJob("heads", Path("/data")), PROGRAM)) == [
        "--job-name=heads",
        "--chdir=/data",
        "--output=slurm-heads-%j.log",
    ]


def test_every_word_reaches_the_command_as_it_was_given(tmp_path: Path) -> None:
    text = batch_script(SlurmJob("extract", tmp_path), PROGRAM)
    assert started(text, tmp_path) == [*PROGRAM[1:], "threads=1"]
    assert started(text, tmp_path, SLURM_CPUS_PER_TASK="3")[-1] == "threads=3"


def test_each_index_of_an_array_adds_its_own_words(tmp_path: Path) -> None:
    text = batch_script(SlurmJob("extract", tmp_path), PROGRAM, [["--task", "a b"], ["--task", "$c"]])
    assert "--array=1-2" in directives(text) and "--output=slurm-extract-%A_%a.log" in directives(text)
    assert started(text, tmp_path, SLURM_ARRAY_TASK_ID="1") == [*PROGRAM[1:], "--task", "a b", "threads=1"]
    assert started(text, tmp_path, SLURM_ARRAY_TASK_ID="2") == [*PROGRAM[1:], "--task", "$c", "threads=1"]


def test_fine_tuning_is_signalled_requeued_and_resumed(tmp_path: Path) -> None:
    text = batch_script(SlurmJob("finetune", tmp_path, cpus=4, gpus=2), PROGRAM)
    assert directives(text)[-4:] == [
        "--nodes=1 --ntasks-per-node=2",
        "--requeue",
        "--open-mode=append",
        "--signal=USR1@90",
    ]
    words = started(text, tmp_path, SLURM_CPUS_PER_TASK="4")
    assert words[0] == "--cpus-per-task=4" and words[-2:] == [PROGRAM[-1], "threads=4"]
    again = started(text, tmp_path, SLURM_RESTART_COUNT="1")
    assert again[-2:] == ["--resume", "threads=1"]


@pytest.mark.parametrize(("seconds", "said"), [("61", "requeue 17\n"), ("5", "the time limit leaves no time to train")])
def test_fine_tuning_that_is_signalled_while_it_does_not_train_is_requeued_too(
    tmp_path: Path, seconds: str, said: str
) -> None:
    for name, text in (("srun", "kill -USR1 $$"), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    text = batch_script(SlurmJob("finetune", tmp_path), PROGRAM)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SECONDS": seconds}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 138 and said in done.stdout + done.stderr


@pytest.mark.parametrize("extra", ["account=x", "--account=x\nrm -rf ."])
def test_an_extra_option_that_is_none_is_refused(extra: str) -> None:
    with pytest.raises(InputError, match=r"is no option of sbatch: expected one line such as --account=x"):
        batch_script(SlurmJob("heads", Path("/"), extra=[extra]), PROGRAM)


@pytest.mark.parametrize("time", ["90", "90:00", "02:00:00", "1-12", "1-12:30", "1-12:30:00", "UNLIMITED"])
def test_every_time_that_sbatch_reads_is_taken(time: str) -> None:
    assert f"--time={time}" in directives(batch_script(SlurmJob("heads", Path("/"), time=time), PROGRAM))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"time": "2h"}, r"--time '2h' is no time that SLURM reads: expected minutes, .* such as 90, 02:00:00 or 1-12"),
        ({"time": "1:2:3:4"}, "--time '1:2:3:4' is no time"),
        ({"memory": "16 GB"}, r"--memory '16 GB' is no memory that SLURM reads: expected a whole .* such as 16G"),
    ],
)
def test_a_time_or_memory_that_sbatch_would_not_read_is_refused(asked: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        batch_script(SlurmJob("heads", Path("/"), **asked), PROGRAM)  # type: ignore[arg-type]


def test_extraction_is_cut_into_shards_and_tasks_are_dealt_out() -> None:
    assert array_words("extract", 3) == [["--shard", "1/3"], ["--shard", "2/3"], ["--shard", "3/3"]]
    assert array_words("extract", None) == [] == array_words("heads", None, tasks=["a"])
    assert array_words("heads", 2, tasks=["a", "b", "c"]) == [["--task", "a", "--task", "c"], ["--task", "b"]]
    assert array_words("heads", 99, tasks=["a", "b"]) == [["--task", "a"], ["--task", "b"]]


def test_a_grid_becomes_every_combination() -> None:
    found = array_words("finetune", None, grid=["lr=1e-3,1e-4", "fusion=[64,32],[8]"])
    assert [words[1::2] for words in found] == [
        ["lr=1e-3", "fusion=[64,32]", "finetune-1"],
        ["lr=1e-3", "fusion=[8]", "finetune-2"],
        ["lr=1e-4", "fusion=[64,32]", "finetune-3"],
        ["lr=1e-4", "fusion=[8]", "finetune-4"],
    ]
    assert found[0][::2] == ["--set", "--set", "--name"]
    assert array_words("finetune", None) == []


def test_an_array_that_makes_no_sense_is_refused() -> None:
    for message, command, n_jobs, more in (
        ("--grid is for finetune; for heads give --array N", "heads", 2, {"grid": ["a=1,2"]}),
        ("comes from --grid key=value,value", "finetune", 2, {}),
        (r"expected key=value,value, such as lr=1e-3,1e-4", "finetune", None, {"grid": ["lr"]}),
        (r"--grid 'lr=1,': expected", "finetune", None, {"grid": ["lr=1,"]}),
        ("leave --shard out", "extract", 2, {"params": {"shard": "1/2"}}),
        ("leave --save out, then run heads --save", "heads", 2, {"params": {"save": True}}),
    ):
        with pytest.raises(InputError, match=message):
            array_words(command, n_jobs, **more)  # type: ignore[arg-type]


def test_what_sbatch_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, sbatch = tmp_path / "job.sh", tmp_path / "sbatch"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=rf"there is no sbatch on this machine: run `sbatch {script}` where SLURM is"):
        submit_script(script)
    sbatch.write_text('#!/bin/sh\n[ "$1" = --parsable ] && echo "17;cluster"\n')
    sbatch.chmod(0o755)
    assert submit_script(script) == "17"
    sbatch.write_text("#!/bin/sh\necho 'invalid partition' >&2; echo 'no job' >&2; exit 1\n")
    with pytest.raises(InputError, match=rf"sbatch refused {script}: invalid partition no job\. Correct the options"):
        submit_script(script)


def test_a_script_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*no/job\.sh: No such file.*Choose another --out"):
        write_script(tmp_path / "no" / "job.sh", "")
