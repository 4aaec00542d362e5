import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from extract.ngrams import DIM, SIZES, NgramEncoder

TEXTS = [
    "Graphene oxide, 200 kV",
    "steel powder",
    "ångström Ω",
    "",
    "a",
    "日本語 テキスト",
    "🙂 emoji",
    "naïve   spacing\tand\nlines",
    "x" * 3000,
]


def encode(*texts: str) -> np.ndarray:
    encoder = NgramEncoder()
    return encoder.encode([encoder.prepare(text) for text in texts])


def slow_reference(text: str) -> np.ndarray:
    """One gram after the other, with Python's integers."""
    vector = np.zeros(DIM)
    for word in unicodedata.normalize("NFKC", text).lower().split():
        padded = f" {word} "
        for size in SIZES:
            for start in range(len(padded) - size + 1):
                hashed = 0xCBF29CE484222325
                for character in padded[start : start + size]:
                    hashed = (hashed ^ ord(character)) * 0x100000001B3 % 2**64
                for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
                    hashed = (hashed ^ hashed >> 33) * factor % 2**64
                hashed ^= hashed >> 33
                vector[hashed % DIM] += 1 if hashed >> 63 else -1
    damped = np.sign(vector) * np.log1p(np.abs(vector))
    return damped / (np.linalg.norm(damped) or 1)


def test_vectors_are_those_of_a_slow_reference() -> None:
    np.testing.assert_allclose(encode(*TEXTS), [slow_reference(text) for text in TEXTS], atol=1e-6)


def test_golden_vector_is_unchanged() -> None:
    """If this fails on purpose, raise ALGORITHM: stored vectors are no longer comparable."""
    vector = encode("Steel")[0]
    positive = [10, 107, 196, 197, 305, 341, 893, 917]
    negative = [333, 450, 459, 464, 690, 699, 763, 798, 896, 901]
    assert np.flatnonzero(vector > 0).tolist() == positive
    assert np.flatnonzero(vector < 0).tolist() == negative


def test_encoding_does_not_depend_on_the_batch_or_the_order() -> None:
    whole = encode(*TEXTS)
    assert whole.dtype == np.float32
    assert whole.shape == (len(TEXTS), NgramEncoder().space.dim)
    np.testing.assert_array_equal(whole, np.concatenate([encode(text) for text in TEXTS]))
    np.testing.assert_array_equal(whole[::-1], encode(*TEXTS[::-1]))
    assert NgramEncoder().encode([]).shape == (0, DIM)


def test_vectors_have_length_one_and_a_text_without_words_is_zero() -> None:
    lengths = np.linalg.norm(encode(*TEXTS, " \t\n"), axis=1)
    assert lengths == pytest.approx([float(bool(text)) for text in [*TEXTS, ""]], abs=1e-6)


@pytest.mark.parametrize("other", ["STEEL Powder", " steel\tpowder\n", "ｓｔｅｅｌ powder", "steel\u00a0powder"])
def test_case_width_and_white_space_do_not_matter(other: str) -> None:
    np.testing.assert_array_equal(encode(other), encode("steel powder"))


def test_word_boundaries_count_but_word_order_does_not() -> None:
    np.testing.assert_array_equal(encode("steel powder"), encode("powder steel"))
    assert not np.array_equal(encode("steelpowder"), encode("steel powder"))


def test_inflected_words_are_near_and_other_words_far() -> None:
    plain, plural, other = encode("steel powder", "steel powders", "ceramic sheet")
    assert plain @ plural > 0.8
    assert abs(plain @ other) < 0.2


def test_hashing_is_spread_over_all_slots_and_both_signs() -> None:
    vectors = encode(*(f"{i:x} {i * 7919:x}" for i in range(5000)))
    assert (vectors != 0).any(axis=0).all()
    assert np.sign(vectors).sum() / np.count_nonzero(vectors) == pytest.approx(0, abs=0.05)


def test_other_processes_give_the_same_bytes() -> None:
    script = (
        "from extract.ngrams import NgramEncoder; e = NgramEncoder(); import sys;"
        "sys.stdout.write(e.encode([e.prepare('Graphene oxide, 200 kV')]).tobytes().hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == encode(TEXTS[0]).tobytes().hex()


def test_a_planted_word_is_found() -> None:
    rng = np.random.default_rng(0)
    syllables = ["ra", "to", "mi", "lek", "son", "dur"]
    texts = [" ".join("".join(rng.choice(syllables, 3)) for _ in range(6)) for _ in range(200)]
    marked = rng.random(200) < 0.5
    X = encode(*(f"{text} nanotube" if m else text for text, m in zip(texts, marked, strict=True)))
    scores = X @ encode("nanotube")[0]
    assert scores[marked].min() > scores[~marked].max()


def test_space_is_one_of_text() -> None:
    space = NgramEncoder().space
    assert (space.name, space.modality, space.convert) == ("text@ngrams", "text", None)
    assert space.fingerprint == NgramEncoder().space.fingerprint
