"""A single-node SLURM of its own: munged, slurmctld and slurmd in a temporary folder, on free ports."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
START_SECONDS = 20
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1
JobRequeue=0
KillWait=2
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def why_not() -> str | None:
    """Return why no SLURM can be started here, None if one can."""
    absent = [name for name in PROGRAMS if _find(name) is None]
    if absent:
        return f"needs SLURM (apt-get install slurm-wlm munge): no {', '.join(absent)}"
    return None if os.geteuid() == 0 else "slurmd is started as root, which this user is not"


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons and yield the environment in which sbatch finds them; end them after."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    ports = dict(zip(("controller", "node"), _free_ports(2), strict=True))
    config.write_text(CONFIG.format(folder=folder, host=host, user="root", **ports))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    own = [f"--{name}={folder / file}" for name, file in OWN_FILES.items()]
    environment = os.environ | {"SLURM_CONF": str(config)}
    with ExitStack() as stack:
        stack.enter_context(_daemon(["munged", "--foreground", "--force", *own], environment, folder))
        stack.enter_context(_daemon(["slurmctld", "-D", "-i", "-f", str(config)], environment, folder))
        stack.enter_context(_daemon(["slurmd", "-D", "-N", host, "-f", str(config)], environment, folder))
        _wait_for_node(environment, folder)
        yield environment


OWN_FILES = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munged.seed",
}


def wait(job: str, environment: dict[str, str], *, seconds: float = 120) -> list[tuple[str, str]]:
    """Return (state, exit code) of each job of an array, in the order of their indices, once all have ended."""
    deadline = time.monotonic() + seconds
    while True:
        shown = _ask(["scontrol", "show", "job", "-o", job], environment)
        states = re.findall(r"JobState=(\w+)", shown)
        if states and not set(states) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}:
            rows = [line for line in shown.splitlines() if line]
            rows.sort(key=lambda line: int((re.search(r"ArrayTaskId=(\d+)", line) or [0, 0])[1]))
            return [(re.findall(r"JobState=(\w+)", row)[0], re.findall(r" ExitCode=(\d+)", row)[0]) for row in rows]
        if time.monotonic() > deadline:
            raise TimeoutError(shown)
        time.sleep(0.2)


def start_again(job: str, environment: dict[str, str], *, seconds: float = 90) -> None:
    """Wait until a job was requeued, and spare it the two minutes that SLURM would let pass."""
    deadline = time.monotonic() + seconds
    show = ["scontrol", "show", "job", "-o", job]
    while not re.search(r"Reason=BeginTime .* Restarts=1 ", shown := _ask(show, environment)):
        if time.monotonic() > deadline:
            raise TimeoutError(shown)
        time.sleep(0.2)
    while "not permitted" in _ask(["scontrol", "update", f"JobId={job}", "StartTime=now+3seconds"], environment):
        time.sleep(0.2)


def wait_for(log: Path, words: str, *, seconds: float = 90) -> None:
    """Wait until a job has said something."""
    deadline = time.monotonic() + seconds
    while not log.exists() or words not in log.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text() if log.exists() else f"no {log}")
        time.sleep(0.05)


@contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    program = _find(command[0])
    assert program is not None
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen([program, *command[1:]], env=environment, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "State=IDLE" not in (shown := _ask(["scontrol", "show", "node", "-o"], environment)):
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
            raise TimeoutError(f"{shown}\n{logs}")
        time.sleep(0.2)


def _ask(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in opened]
