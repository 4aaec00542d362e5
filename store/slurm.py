"""A SLURM batch script for one command: alone, or as an array whose jobs differ in some words."""

import itertools
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from store.errors import InputError

SIGNAL_SECONDS = 90  # before the time limit; Lightning saves a checkpoint and requeues the job when it gets USR1

TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|infinite|unlimited", re.IGNORECASE)  # sbatch(1), --time
MEMORY = re.compile(r"\d+[KMGT]?B?", re.IGNORECASE)  # sbatch(1), --mem

SlurmCommand = Literal["extract", "heads", "finetune"]


@dataclass(frozen=True)
class SlurmJob:
    """What SLURM is asked for; None leaves it to the cluster.

    Attributes:
        command: What runs.
        folder: Where it runs, and where its log goes.
        partition: SLURM's ``--partition``.
        time: SLURM's ``--time``, such as ``02:00:00``.
        cpus: Cores of one job; also its threads.
        gpus: GPUs of one job; fine-tuning runs a process for each.
        memory: SLURM's ``--mem``, such as ``16G``.
        extra: Other options of sbatch, such as ``--account=x``.
    """

    command: SlurmCommand
    folder: Path
    partition: str | None = None
    time: str | None = None
    cpus: int | None = None
    gpus: int = 0
    memory: str | None = None
    extra: Sequence[str] | None = None


_REQUEUE = (  # 138: ended by USR1, as nobody was training who would have saved and requeued
    'if [ "${status:=0}" -eq 138 ] && [ "$SECONDS" -lt 60 ]; then',
    '  echo "the time limit leaves no time to train: give a longer --time" >&2',
    'elif [ "$status" -eq 138 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
    'exit "$status"',
)


def batch_script(job: SlurmJob, program: Sequence[str], parts: Sequence[Sequence[str]] = ()) -> str:
    """Return the text of a bash script for sbatch.

    Args:
        job: What SLURM is asked for.
        program: The interpreter, ``cli.py``, the command and its words.
        parts: For an array, the words that each of its n jobs adds; the first is index 1.

    Raises:
        InputError: A time or memory that sbatch would not read, or an extra option that is none.
    """
    _check(job)
    directives = _directives(job, len(parts))
    if broken := [line for line in directives if "\n" in line or not line.startswith("--")]:
        raise InputError(f"{broken[0]!r} is no option of sbatch: expected one line such as --account=x")
    lines = ["#!/bin/bash", *(f"#SBATCH {line}" for line in directives), "set -euo pipefail"]
    lines.append('export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"')
    if parts:
        lines += ["case $SLURM_ARRAY_TASK_ID in", *_cases(parts), "esac"]
    words = f'{shlex.join(program)} "$@"'
    if job.command != "finetune":
        return "\n".join([*lines, f"exec {words}", ""])
    lines.append('if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume; fi')
    return "\n".join([*lines, f'srun --cpus-per-task="$OMP_NUM_THREADS" {words} || status=$?', *_REQUEUE, ""])


def array_words(
    command: SlurmCommand,
    n_jobs: int | None,
    *,
    tasks: Sequence[str] = (),
    grid: Sequence[str] = (),
    params: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[str]]:
    """Return the words that tell the jobs of an array apart; none where no array was asked for.

    Args:
        command: ``extract`` is cut into `n_jobs` shards, the tasks of ``heads`` are dealt out to at most `n_jobs` jobs,
            and ``finetune`` has one job per combination of its grid.
        n_jobs: The array's size.
        tasks: What ``heads`` is to do.
        grid: ``key=value,value,…`` each.
        params: What else the command is given, by the names of its options.

    Raises:
        InputError: The command has no such array, or its jobs would get in each other's way.
    """
    if grid and command != "finetune":
        raise InputError(f"--grid is for finetune; for {command} give --array N")
    if command == "finetune":
        if n_jobs is not None:
            raise InputError("--array is for extract and heads; an array of finetune comes from --grid key=value,value")
        combinations = itertools.product(*map(_grid_line, grid)) if grid else []
        return [[*itertools.chain(*chosen), "--name", f"finetune-{i}"] for i, chosen in enumerate(combinations, 1)]
    if n_jobs is None:
        return []
    if params.get("shard"):
        raise InputError("--array gives each job its own --shard: leave --shard out")
    if params.get("save"):
        raise InputError("with --array every job would save the same bundle: leave --save out, then run heads --save")
    if command == "extract":
        return [["--shard", f"{i}/{n_jobs}"] for i in range(1, n_jobs + 1)]
    n_jobs = min(n_jobs, len(tasks))
    return [[word for task in tasks[i::n_jobs] for word in ("--task", task)] for i in range(n_jobs)]


def write_script(path: Path, text: str) -> None:
    """Write a script. Raises InputError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}. Choose another --out") from error


def submit_script(path: Path) -> str:
    """Hand a script to sbatch and return the job's id.

    Raises:
        InputError: There is no sbatch, or it refuses the script.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(f"there is no sbatch on this machine: run `sbatch {path}` where SLURM is") from None
    if done.returncode:
        raise InputError(f"sbatch refused {path}: {' '.join(done.stderr.split())}. Correct the options and run again")
    return done.stdout.strip().partition(";")[0]  # on a federated cluster its name follows


def _check(job: SlurmJob) -> None:
    for name, value, known, expected in (
        ("time", job.time, TIME, "minutes, hours:minutes:seconds or days-hours, such as 90, 02:00:00 or 1-12"),
        ("memory", job.memory, MEMORY, "a whole number with K, M, G or T, such as 16G"),
    ):
        if value is not None and not known.fullmatch(value):
            raise InputError(f"--{name} {value!r} is no {name} that SLURM reads: expected {expected}")


def _directives(job: SlurmJob, n_parts: int) -> list[str]:
    asked = {
        "job-name": job.command,
        "chdir": str(job.folder),
        "output": f"slurm-{job.command}-{'%A_%a' if n_parts else '%j'}.log",
        "partition": job.partition,
        "time": job.time,
        "cpus-per-task": job.cpus,
        "gpus-per-node": job.gpus or None,
        "mem": job.memory,
        "array": f"1-{n_parts}" if n_parts else None,
    }
    lines = [f"--{name}={shlex.quote(str(value))}" for name, value in asked.items() if value is not None]
    if job.command == "finetune":  # the signal goes to what srun started: there Lightning waits for it
        lines += [f"--nodes=1 --ntasks-per-node={max(1, job.gpus)}"]
        lines += ["--requeue", "--open-mode=append", f"--signal=USR1@{SIGNAL_SECONDS}"]
    return lines + list(job.extra or ())


def _cases(parts: Sequence[Sequence[str]]) -> list[str]:
    return [f"{i}) set -- {shlex.join(words)} ;;" for i, words in enumerate(parts, 1)]


def _grid_line(text: str) -> list[list[str]]:
    """Return the words for each value of ``key=value,value``; a value in brackets keeps its commas."""
    key, _, values = text.partition("=")
    found = re.split(r",(?![^\[]*\])", values)
    if not key or not all(found):
        raise InputError(f"--grid {text!r}: expected key=value,value, such as lr=1e-3,1e-4")
    return [["--set", f"{key}={value}"] for value in found]
