import os
import signal

import numpy as np
import pytest

from heads.leaderboard import Leaderboard
from heads.predictions import Predictions
from heads.sweep import Sweep
from heads.workers import worker_processes
from store import InputError, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def a_sweep(**options):
    X, y, _ = planted(90, 8)
    data = dataset(classes(y), numbers(X[:, 0]), n=90)
    other = np.random.default_rng(1).normal(size=(90, 4))
    return Sweep(data, matrix(data, image__bf_at_a=X, metadata=other), make_split(data, n_folds=3), **options)


def without_time(entry):
    return {key: value for key, value in entry.items() if key not in ("seconds", "time", "is_reused", "schema_version")}


def test_two_processes_give_the_entries_of_one_in_the_same_order(tmp_path):
    board, predictions = Leaderboard(tmp_path / "leaderboard.jsonl"), Predictions(tmp_path / "predictions")
    seen = []
    found = a_sweep().run(board, predictions=predictions, n_jobs=2, on_entry=seen.append)
    assert [without_time(e) for e in found] == [without_time(e) for e in a_sweep().run()]
    assert [without_time(e) for e in board.entries()] == [without_time(e) for e in found]
    assert seen == found and all(predictions.find(entry["identity"]) for entry in found)
    again = a_sweep().run(board, predictions=Predictions(tmp_path / "predictions"), n_jobs=2)
    assert all(entry["is_reused"] for entry in again) and len(board.entries()) == len(found)
    some = a_sweep(blocks=["image"]).run(board, predictions=predictions, n_jobs=2)
    assert [e["is_reused"] for e in some if e.get("is_reference")] == [True] * 4, "two heads of two tasks"


def _fail(text):
    raise InputError(text)


def test_what_goes_wrong_in_a_process_is_told_as_it_was():
    with pytest.raises(InputError, match="nothing to see"), worker_processes(_fail, 2) as submit:
        submit("nothing to see").result()


def _cores():
    return sorted(os.sched_getaffinity(0)), [one["num_threads"] for one in _libraries()]


def _libraries():
    from threadpoolctl import threadpool_info

    return threadpool_info()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be assigned on this system")
def test_processes_share_the_cores_and_no_thread_is_too_many():
    mine = sorted(os.sched_getaffinity(0))
    with worker_processes(_cores, 64) as submit:
        found = [future.result() for future in [submit() for _ in range(8)]]
    assert all(len(cores) == 1 and set(cores) <= set(mine) for cores, _ in found)
    assert all(n_threads == 1 for _, libraries in found for n_threads in libraries)
    with worker_processes(_cores, 1) as submit:
        assert submit().result()[0] == mine


def _blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked on this system")
def test_ctrl_c_never_reaches_a_process_even_one_that_is_starting():
    with worker_processes(_blocked, 2) as submit:
        assert signal.SIGINT in submit().result()
    assert signal.SIGINT not in _blocked(), "the first process can still be stopped"


def test_no_process_is_an_input_error():
    with pytest.raises(InputError, match="--jobs 0: use 1 or more"):
        a_sweep().run(n_jobs=0)
