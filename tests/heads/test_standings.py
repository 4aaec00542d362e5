from dataclasses import replace

import numpy as np
import pytest

from heads.standings import standings
from heads.stored import Wanted
from store import InputError
from tests.heads.made import matrix
from tests.heads.test_stored import ALL, a_sweep, beside, better, keep


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three linear heads and the prior for each of two tasks, and two runs of a grid that predict as the best head."""
    made = beside(a_sweep(), tmp_path_factory.mktemp("runs"))
    entries = made.run()
    best = next(e for e in entries if (e["task"], e["blocks"]) == ("kind", ["image:bf@a"]))
    for name, settings, by in (
        ("one", {"lr": 0.1, "branches": {"bf": {"norm": "group"}}}, -0.5),
        ("two", {"lr": 0.1}, 0.0),
    ):
        about = {"head": "finetune", "run": name, "settings": settings | {"blocks": [name]}, "stop": 0.25}
        keep(made, better(best, by, identity=name, **about), like=best)
    return made


def test_results_are_ranked_with_their_runs_beside_the_best_of_the_same_rows(runs):
    rows = standings(runs.stored(), ["kind"], ALL)
    assert len(rows) == 6 and {row["task"] for row in rows} == {"kind"}
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[0]["to_best"] is None
    assert all(row["to_best"]["value"] <= 0 for row in rows[1:] if row["run"] is None)
    [prior] = [row for row in rows if row["head"] == "prior"]
    assert prior["to_best"]["value"] == pytest.approx(prior["value"] - values[0])
    assert prior["to_best"]["verdict"] == "hurts" and prior["to_best"]["high"] < 0


def test_settings_are_those_in_which_the_runs_differ(runs):
    rows = {row["run"]: row for row in standings(runs.stored(), ["kind"], Wanted(heads=["finetune"]))}
    assert rows["one"]["settings"] == {"branches.bf.norm": "group"}
    assert rows["two"]["settings"] == {} and rows["two"]["stop"] == 0.25
    assert rows.keys() == {"one", "two", None}, "the prior stands beside them"


def test_all_tasks_come_in_the_order_of_the_dataset(runs):
    rows = standings(runs.stored(), [], Wanted(blocks=["image"]))
    assert list(dict.fromkeys(row["task"] for row in rows)) == ["kind", "size"]
    assert {row["blocks"] for row in rows} == {"image:bf@a", "(no features)"}


def test_metadata_alone_stand_beside_the_blocks_that_are_wanted(tmp_path):
    sweep = a_sweep(tasks=("kind",))
    alone = replace(
        sweep, matrix=matrix(sweep.dataset, image__bf_at_a=sweep.matrix.X[:, :8], metadata=np.eye(60)[:, :2])
    )
    own = beside(alone, tmp_path)
    best = max(own.run(), key=lambda e: e["metrics"]["accuracy"]["value"])
    rows = standings(own.stored(), [], Wanted(blocks=["image"]))
    assert sorted((row["blocks"], row["is_reference"]) for row in rows) == [
        ("(no features)", False),
        ("image:bf@a", False),
        ("metadata (reference)", True),
    ]
    keep(own, better(next(e for e in own.board.entries() if e["blocks"] == ["metadata"]), 1, identity="x"), like=best)
    first, second, _, _ = standings(own.stored(), [], Wanted(blocks=["image"]))
    assert first["is_reference"] and (second["blocks"], second["to_best"]) == ("image:bf@a", None)
    assert not any(row["is_reference"] for row in standings(own.stored(), [], Wanted(blocks=["metadata"])))
    assert not any(row["is_reference"] for row in standings(own.stored(), [], ALL))


def test_other_rows_have_no_difference(runs, tmp_path):
    sweep = a_sweep(tasks=("kind",))
    own = beside(sweep, tmp_path)
    entries = own.run()
    best = max((e for e in entries if e["blocks"]), key=lambda e: e["metrics"]["accuracy"]["value"])
    scored = own.predictions.of(best)
    own.predictions.keep("fewer", scored.take(np.arange(1, 60)))
    own.board.append(better(best, -0.5, identity="fewer", head="finetune", run="fewer", n_left_out=1))
    [fewer] = [row for row in standings(own.stored(), [], ALL) if row["run"] == "fewer"]
    assert fewer["to_best"] is None


def test_nothing_to_rank_is_one_line(runs):
    with pytest.raises(InputError, match=r"leaderboard\.jsonl: no result as asked for; run heads or finetune first"):
        standings(runs.stored(), [], Wanted(heads=["fusion"]))
    with pytest.raises(InputError, match="there is no task 'knd'"):
        standings(runs.stored(), ["knd"], ALL)
