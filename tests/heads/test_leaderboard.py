import errno
import json
import os

import pytest

from heads.leaderboard import Leaderboard, best, ranked, table
from store import InputError, StoreError


def entry(task="a", value=0.5, *, head="linear", blocks=("x",), metric="accuracy", identity="1", split="cv"):
    return {
        "task": task,
        "blocks": list(blocks),
        "head": head,
        "headline": metric,
        "metrics": {metric: {"value": value, "low": None, "high": None}},
        "baseline": {metric: 0.1},
        "difference": {"value": 0.1, "low": None, "high": None},
        "beats_baseline": True,
        "verdict": "words",
        "split": split,
        "seconds": 0.1,
        "identity": identity,
    }


def test_lines_are_appended(tmp_path):
    board = Leaderboard(tmp_path / "runs" / "leaderboard.jsonl")
    assert board.entries() == []
    board.append(entry(value=0.1))
    board.append(entry(value=0.2, identity="2"))
    assert [e["metrics"]["accuracy"]["value"] for e in board.entries()] == [0.1, 0.2]
    assert set(board.known()) == {"1", "2"}
    assert all(json.loads(line)["schema_version"] == 1 for line in board.path.read_text().splitlines())


def test_a_torn_last_line_is_passed_over_and_never_joined_to_the_next(tmp_path):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    board.append(entry(identity="1"))
    board.append(entry(identity="2"))
    whole = board.path.read_bytes()
    board.path.write_bytes(whole[:-40])
    assert set(board.known()) == {"1"}
    board.append(entry(identity="3"))
    assert set(board.known()) == {"1", "3"}


def test_another_schema_version_is_refused(tmp_path):
    path = tmp_path / "leaderboard.jsonl"
    path.write_text('{"schema_version": 99}\n')
    with pytest.raises(StoreError, match="schema version 99, expected 1"):
        Leaderboard(path).entries()


def test_a_full_disk_is_a_store_error(tmp_path, monkeypatch):
    def full(handle, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="disk is full"):
        Leaderboard(tmp_path / "leaderboard.jsonl").append(entry())


def test_a_line_cut_by_a_full_disk_is_a_store_error(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    with pytest.raises(StoreError, match="disk is full"):
        board.append(entry())
    monkeypatch.undo()
    board.append(entry(identity="2"))
    assert set(board.known()) == {"2"}


def test_a_file_in_the_way_is_an_input_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Leaderboard(tmp_path / "runs" / "leaderboard.jsonl").append(entry())


def test_best_first_in_the_metric_s_own_direction():
    entries = [
        entry("a", 0.2),
        entry("b", 3.0, metric="mae"),
        entry("a", 0.9),
        entry("b", 1.0, metric="mae"),
        entry("a", None),
    ]
    found = [(e["task"], e["metrics"][e["headline"]]["value"]) for e in ranked(entries)]
    assert found == [("a", 0.9), ("a", 0.2), ("a", None), ("b", 1.0), ("b", 3.0)]


def test_best_is_never_the_prior_and_ties_go_to_fewer_blocks():
    entries = [
        entry(value=0.9, head="prior", blocks=()),
        entry(value=0.8, blocks=("x", "y")),
        entry(value=0.8, blocks=("x",)),
    ]
    assert best(entries)["a"]["blocks"] == ["x"]


def test_table_has_the_headline_beside_the_baseline():
    [row] = table([entry(value=0.4)])
    assert row["value"] == 0.4 and row["baseline"] == 0.1 and row["blocks"] == "x" and row["metric"] == "accuracy"


def test_nothing_is_chosen_by_held_out_rows():
    entries = [entry(value=0.9, split="test", blocks=("x", "y")), entry(value=0.3), entry(value=0.4, blocks=("y",))]
    assert best(entries)["a"]["blocks"] == ["y"]
    assert [e["split"] for e in ranked(entries)] == ["cv", "cv", "test"]
