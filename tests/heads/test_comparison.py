import numpy as np
import pytest

from heads.comparison import compare_blocks, comparison_lines
from heads.leaderboard import Leaderboard
from heads.predictions import Predictions
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def compared(task, n, *, head="linear", board=None, predictions=None, groups=None, **blocks):
    data = dataset(task, n=n, groups=groups)
    sweep = Sweep(data, matrix(data, **blocks), make_split(data, n_folds=4), heads=[head])
    predictions = predictions or Predictions()
    return compare_blocks(sweep.run(board, predictions=predictions), predictions)


def mains(found):
    return {line["block"]: line for line in found if line["is_main"]}


def halves(n=150, seed=0):
    """Two blocks that each tell one of two bits, and a third that tells nothing; four classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4)
    bits = np.stack([y % 2, y // 2], 1) * 4.0
    noise = rng.normal(size=(n, 3, 5))
    noise[:, :2, 0] += bits
    return y, {"image__bf_at_a": noise[:, 0], "text__note_at_n": noise[:, 1], "metadata": noise[:, 2]}


def test_a_block_that_helps_is_said_to_help_and_noise_is_not():
    y, blocks = halves()
    found = mains(compared(classes(y), 150, **blocks))
    assert set(found) == {"image:bf@a", "text:note@n", "metadata"}
    assert found["image:bf@a"]["verdict"] == found["text:note@n"]["verdict"] == "helps"
    assert found["image:bf@a"]["beside"] == ["text:note@n"] or "metadata" in found["image:bf@a"]["beside"]
    assert found["image:bf@a"]["low"] > 0.2
    assert found["metadata"]["verdict"] == "not told apart"
    assert found["metadata"]["beside"] == ["image:bf@a", "text:note@n"]  # beside the best that goes without it


def test_the_words_name_the_block_the_gain_and_the_metric():
    y, blocks = halves()
    line = mains(compared(classes(y), 150, **blocks))["image:bf@a"]
    gain = f"{line['value']:+.3g} [{line['low']:+.3g}, {line['high']:+.3g}] accuracy"
    assert line["words"] == f"image:bf@a beside {' + '.join(line['beside'])}, linear: {gain}: helps"


def test_the_words_begin_with_what_helps_and_sum_up_what_is_not_told_apart():
    def line(block, value, verdict, **more):
        gap = {"value": value, "low": value - 0.125, "high": value + 0.25}
        return {"block": block, "metric": "accuracy", "verdict": verdict, "words": f"{block} {verdict}"} | gap | more

    same = [line("a", -0.0625, "not told apart"), line("b", 0.125, "not told apart")]
    found = [same[0], line("c", 0.25, "helps"), line("d", -0.5, "hurts"), same[1], line("e", 0.75, "helps")]
    told = ["e helps", "c helps", "d hurts"]
    assert comparison_lines(found) == [*told, "b not told apart", "a not told apart"]
    more = [*found, line("f", 0.0, "not told apart")]
    alike = "not told apart, each beside the best without it: b, f, a; intervals within [-0.188, +0.375] accuracy"
    assert comparison_lines(more) == [*told, alike]
    less = comparison_lines([one | {"metric": "mae"} for one in more])[-1]
    assert less.endswith("mae (+ is less, so better)")
    none = line("g", 0.0, "no interval") | {"value": None, "low": None, "high": None}
    assert comparison_lines([none]) == ["g no interval"] and comparison_lines([]) == []


def test_every_pair_of_combinations_is_compared_once():
    y, blocks = halves()
    found = compared(classes(y), 150, **blocks)
    pairs = [(line["block"], tuple(line["beside"])) for line in found]
    assert len(pairs) == len(set(pairs)) == 9  # three blocks, each beside one of two others or both


def test_two_blocks_of_a_modality_are_also_compared_as_one():
    y, blocks = halves()
    blocks = {"image__bf_at_a": blocks["image__bf_at_a"], "image__fl_at_a": blocks["text__note_at_n"]}
    found = mains(compared(classes(y), 150, metadata=np.ones((150, 1)), **blocks))
    assert found["image"]["beside"] == ["metadata"] and found["image"]["verdict"] == "helps"


def test_a_smaller_error_is_a_gain():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 120, 4))
    found = mains(compared(numbers(a[:, 0] + 2 * b[:, 0]), 120, image__bf_at_a=a, metadata=b))
    assert found["metadata"]["verdict"] == "helps" and found["metadata"]["value"] > 0.5
    assert "mae (+ is less, so better): helps" in found["metadata"]["words"]


def test_shuffled_labels_are_helped_by_nothing_more_often_than_chance():
    verdicts = []
    for seed in range(10):
        y, blocks = halves(seed=seed)
        y = np.random.default_rng(seed + 50).permutation(y)
        verdicts += [line["verdict"] for line in mains(compared(classes(y), 150, **blocks)).values()]
    assert len(verdicts) == 30 and verdicts.count("helps") <= 4


def test_copies_in_a_group_do_not_narrow_the_interval():
    X, y, _ = planted(40, 6, n_classes=2, strength=1.0)
    other = np.random.default_rng(1).normal(size=(40, 6))
    blocks = {"image__bf_at_a": X, "metadata": other}
    once = mains(compared(classes(y), 40, groups=np.arange(40), **blocks))["image:bf@a"]
    many = {name: np.repeat(part, 5, axis=0) for name, part in blocks.items()}
    five = mains(compared(classes(np.repeat(y, 5)), 200, groups=np.repeat(np.arange(40), 5), **many))["image:bf@a"]
    assert five["high"] - five["low"] > 0.6 * (once["high"] - once["low"])


def test_reused_entries_are_compared_as_fresh_ones(tmp_path):
    y, blocks = halves()
    board, folder = Leaderboard(tmp_path / "leaderboard.jsonl"), tmp_path / "predictions"
    first = compared(classes(y), 150, board=board, predictions=Predictions(folder), **blocks)
    n_entries = len(board.entries())
    again = compared(classes(y), 150, board=board, predictions=Predictions(folder), **blocks)
    assert again == first and len(board.entries()) == n_entries == len(list(folder.iterdir()))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK no archive")])
def test_an_entry_whose_predictions_are_gone_is_computed_again(tmp_path, damage):
    y, blocks = halves()
    board, folder = Leaderboard(tmp_path / "leaderboard.jsonl"), tmp_path / "predictions"
    first = compared(classes(y), 150, board=board, predictions=Predictions(folder), **blocks)
    n_entries = len(board.entries())
    damage(folder / f"{board.entries()[3]['identity']}.npz")
    assert compared(classes(y), 150, board=board, predictions=Predictions(folder), **blocks) == first
    assert len(board.entries()) == n_entries + 1


def test_one_block_alone_has_nothing_to_be_compared_with():
    X, y, _ = planted(60, 6)
    assert compared(classes(y), 60, image__bf_at_a=X) == []
