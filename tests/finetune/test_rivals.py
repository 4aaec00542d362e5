"""What a network is compared with."""

from dataclasses import replace
from pathlib import Path

from finetune.rivals import rivals
from heads import WHOLE, Leaderboard, Sweep
from store import Split, make_split
from tests.heads.made import classes, dataset, matrix, planted, space

OWN = ("image:bf@resnet18", "metadata")


def sweep_of() -> Sweep:
    X, y, _ = planted(n=40, d=4, n_classes=2)
    data = dataset(classes(y), n=40)
    blocks = {"image__bf_at_resnet18": X[:, 2:], "image__bf_at_texture": X[:, 2:], "image__bf_at_dinov2": X,
              "image__bf_at_convnext": X[:, 3:], "metadata": X[:, 3:]}  # fmt: skip
    return Sweep(data, matrix(data, **blocks), make_split(data), heads=["linear"])


def names(sweep: Sweep) -> list[str]:
    assert set(sweep.matrix.spaces) <= set(sweep.matrix.blocks)
    return [name.removeprefix("image:bf@") for name in sweep.matrix.blocks]


def test_without_a_stored_result_all_that_is_stored_is_tried(tmp_path: Path) -> None:
    found = rivals(sweep_of(), OWN, Leaderboard(tmp_path / "board"))
    assert names(found) == ["resnet18", "texture", "dinov2", "convnext", "metadata"]


def test_own_and_built_in_encoders_stay_and_what_the_best_stored_result_reads(tmp_path: Path) -> None:
    sweep, board = sweep_of(), Leaderboard(tmp_path / "board")
    replace(sweep, blocks=["image:bf@dinov2", "image:bf@convnext"]).run(board)
    found = rivals(sweep, OWN, board)
    assert names(found) == ["resnet18", "texture", "dinov2", "metadata"]
    one, all_ = (replace(s, fold=0).run() for s in (found, sweep))  # the winner among all is among them
    assert max(e["metrics"]["accuracy"]["value"] for e in one) == max(e["metrics"]["accuracy"]["value"] for e in all_)
    other = replace(sweep, split=make_split(sweep.dataset, seed=1))
    assert names(rivals(other, OWN, board)) == names(sweep)  # of another split nothing is known
    changed = {**sweep.matrix.spaces, "image:bf@dinov2": space("dinov2", 4, weights_digest="v2")}
    assert names(rivals(replace(sweep, matrix=replace(sweep.matrix, spaces=changed)), OWN, board)) == [
        *("resnet18", "texture", "convnext", "metadata")
    ]


def test_features_that_have_learned_from_the_rows_to_score_are_no_rival(tmp_path: Path) -> None:
    sweep = sweep_of()
    known = {"image:bf@resnet18": {"tuned_on": sweep.split.fingerprint}, "image:bf@dinov2": {"tuned_on": "another"}}
    flattered = replace(sweep, matrix=replace(sweep.matrix, provenance=known))
    board = Leaderboard(tmp_path / "board")
    assert names(rivals(flattered, OWN, board)) == ["texture", "dinov2", "convnext", "metadata"]
    roles = {row: "val" if i % 5 == 0 else "train" for i, row in enumerate(sweep.dataset.ids.tolist())}
    split = Split.of(roles, seed=0, n_folds=0)
    known = {
        "image:bf@resnet18": {"tuned_on": split.fingerprint},
        "image:bf@dinov2": {"tuned_on": split.fingerprint + WHOLE},
    }
    final = replace(sweep, split=split, matrix=replace(sweep.matrix, provenance=known))
    assert names(rivals(final, OWN, board)) == [
        "resnet18",
        "texture",
        "convnext",
        "metadata",
    ]  # --final learns from val
