from collections import Counter

import numpy as np
import pytest

from store import load_dataset, write_sample
from store.samples.garbage import BINS, PAIRS, PAPER, TEXTS, VAGUE, VAGUE_TEXTS, WRONG, make_items
from store.samples.litter_picture import draw_litter
from store.samples.litter_shapes import LOOKS

NOUNS = [text for looks in TEXTS.values() for texts in looks.values() for text in texts]


@pytest.mark.parametrize("n_rows", [300, 3000])
def test_shares_are_met_at_any_number_of_rows(n_rows):
    items = list(make_items(1, n_rows))
    parts, bins = Counter(item.part for item in items), Counter(item.bin for item in items)
    assert {part: round(n / n_rows, 1) for part, n in parts.items()} == {"Train": 0.6, "Val": 0.2, "Test": 0.2}
    assert all(bins[name] / n_rows == pytest.approx(share, abs=0.02) for name, share in BINS.items())
    assert np.mean([item.folder != item.bin for item in items]) == pytest.approx(WRONG, abs=0.01)
    assert np.mean([item.text in VAGUE_TEXTS for item in items]) == pytest.approx(VAGUE, abs=0.01)
    assert len({item.path for item in items}) == n_rows
    assert all(item.folder == PAIRS[item.bin] for item in items if item.folder != item.bin)


def test_the_text_tells_black_from_ttr_and_nothing_about_blue_and_green():
    words: dict[str, Counter[str]] = {name: Counter() for name in BINS}
    for item in make_items(0, 4000):
        if item.text not in VAGUE_TEXTS:
            words[item.bin][next(text for text in NOUNS if item.text.endswith(text))] += 1
    assert not set(words["Black"]) & set(words["TTR"])
    assert not {*words["Black"], *words["TTR"]} & {*words["Blue"], *words["Green"]}
    blue, green = (np.array([words[name][word] for word in words["Blue"]]) for name in ("Blue", "Green"))
    assert np.abs(blue / blue.sum() - green / green.sum()).max() < 0.03


def test_the_picture_tells_blue_from_green_and_nothing_about_black_and_ttr():
    looks = {name: Counter(item.look for item in make_items(0, 4000) if item.bin == name) for name in BINS}
    assert set(looks["Black"]) == set(looks["TTR"]) == set(TEXTS["TTR"])
    assert set(looks["Blue"]) == set(looks["Green"]) == set(PAPER)
    assert set(LOOKS) == {*PAPER, *TEXTS["TTR"]}
    black, ttr = (np.array([looks[name][look] for look in TEXTS["TTR"]]) for name in ("Black", "TTR"))
    assert np.abs(black / black.sum() - ttr / ttr.sum()).max() < 0.03


@pytest.mark.parametrize("look", LOOKS)
def test_photos_vary_and_food_shows(look):
    clean, soiled = (draw_litter(np.random.default_rng(4), look, soiled=soiled) for soiled in (False, True))
    assert clean.shape == (128, 128, 3) and clean.dtype == np.uint8 and clean.std() > 10
    assert clean.tobytes() == draw_litter(np.random.default_rng(4), look, soiled=False).tobytes()
    again = draw_litter(np.random.default_rng(5), look, soiled=False)
    assert np.abs(clean.astype(int) - again).mean() > 5
    assert 0.02 < (np.abs(clean.astype(int) - soiled).max(axis=-1) > 25).mean() < 0.5


def test_rows_are_the_same_however_many_there_are(tmp_path):
    few, more = list(make_items(2, 30)), list(make_items(2, 90))
    assert more[:30] == few
    dataset = load_dataset(write_sample("garbage", tmp_path, n_rows=30))
    planted = {item.path.removeprefix("CVPR-like/"): item for item in make_items(0, 30)}
    assert set(dataset.ids.tolist()) == set(planted)
    task = dataset.tasks["bin"]
    for row, id_ in enumerate(dataset.ids.tolist()):
        assert task.classes[task.y[row]] == planted[id_].folder
        assert dataset.texts["name"].texts[row] == planted[id_].text
        assert dataset.given_split[row] == planted[id_].part.lower()


def test_what_lies_in_the_wrong_folder_is_named(tmp_path):
    folder = write_sample("garbage", tmp_path, n_rows=60).parent
    wrong = [f"{item.path},{item.bin}" for item in make_items(0, 60) if item.folder != item.bin]
    assert (folder / "misfiled.csv").read_text().splitlines() == ["file,bin", *wrong] and wrong
