import re

import pytest

from store import InputError, parse_spec
from store.view import PERTURBATIONS, check_tiles, check_view, parse_view, perturbation_views

SPEC = {"name": "x", "table": "t.csv"}


def images(**blocks: dict[str, object]) -> dict[str, object]:
    return SPEC | {"images": {name: {"column": "file"} | keys for name, keys in blocks.items()}}


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("plain", "plain"),
        ("fourier", "fourier"),
        ("gaussian_noise:0.10", "gaussian_noise:0.1"),
        ("jpeg:90.0", "jpeg:90"),
    ],
)
def test_a_view_has_one_spelling(text: str, spelt: str) -> None:
    assert check_view(text) == spelt == check_view(spelt)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_ends_of_a_range_belong_to_it_and_what_is_beyond_is_refused(kind: str) -> None:
    found = PERTURBATIONS[kind]
    for strength in (found.low, found.high, found.neutral or found.low):
        assert parse_view(check_view(f"{kind}:{strength:g}")) == (kind, strength)
    for strength in (found.low - 0.01, found.high + 1, float("nan")):
        with pytest.raises(ValueError, match=re.escape(f"from {found.low:g} to {found.high:g}: {found.meaning}")):
            check_view(f"{kind}:{strength:g}")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"view": "fourir"}, "images.bf.view: there is no view 'fourir'. Did you mean 'fourier'?"),
        ({"view": "gausian_noise:0.1"}, "Did you mean 'gaussian_noise'?"),
        ({"view": "blur"}, "view 'blur' needs a strength, as in 'blur:0.5', from 0 to 100"),
        ({"view": "jpeg:50.5"}, "the strength of view 'jpeg:50.5' is to be whole, from 1 to 100"),
        ({"tiles": "2x"}, "tiles '2x' is to be rows x columns, such as '2x2'"),
        ({"tiles": "0x2"}, "tiles '0x2' is to be"),
        ({"turns": "flip"}, "images.bf.turns: needs 'none', 'flips' or 'd4' (got 'flip'). Did you mean 'flips'?"),
        ({"tiles": "2x2", "tile_px": 64}, "images.bf: tiles and tile_px both say how it is cut"),
        ({"pool": "max"}, "images.bf: pool is for tiles or tile_px"),
        ({"pool": "maks", "tiles": "2x2"}, "'mean' or 'max'"),
        ({"stack": ["bf", "fl"]}, "images.bf: needs either column or stack"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_spec(images(bf=keys, fl={}), "spec")


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"stack": ["bf", "fll"]}, "[images.both] stacks image block 'fll', which is not there. Did you mean 'fl'?"),
        ({"stack": ["bf"]}, "images.both.stack: needs 2 or more values (got ['bf'])"),
        (
            {"stack": ["bf", "fl"], "view": "fourier"},
            "images.both: a stack has only tiles, pool and turns; set view on",
        ),
        (
            {"stack": ["bf", "fl"], "convert": "log"},
            "images.both: a stack has only tiles, pool and turns; set convert on",
        ),
        ({"stack": ["bf", "both"]}, "stacks 'both', which is a stack itself"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(stack: dict[str, object], message: str) -> None:
    spec = images(bf={}, fl={})
    spec["images"]["both"] = stack  # type: ignore[index]
    with pytest.raises(InputError, match=re.escape(message)):
        parse_spec(spec, "spec")


def test_tiles_have_one_spelling() -> None:
    assert [check_tiles(text) for text in ("2x3", "02x03", "2 x 3", "2×3")] == ["2x3"] * 4


def test_perturbations_are_asked_for_whole_or_by_strength() -> None:
    assert perturbation_views(["blur:2", "png", "blur"]) == ["blur:2", "png:8", "blur:0.5", "blur:1", "blur:4"]
    every = perturbation_views([])
    assert {view.partition(":")[0] for view in every} == set(PERTURBATIONS)
    assert every == [check_view(view) for view in every]
    with pytest.raises(InputError, match=r"'blurr:2' is no perturbation\. Did you mean 'blur'"):
        perturbation_views(["blurr:2"])
    with pytest.raises(InputError, match="'fourier' is no perturbation"):
        perturbation_views(["fourier"])
    with pytest.raises(InputError, match="the strength of view 'jpeg:300' is to be whole, from 1 to 100"):
        perturbation_views(["jpeg:300"])


def test_an_unknown_conversion_gets_the_nearest() -> None:
    values = {"name": "n", "table": "t.csv", "images": {"bf": {"column": "file", "convert": "linaer"}}}
    with pytest.raises(InputError, match=r"convert 'linaer' is not one of none, fixed, .* Did you mean 'linear'\?"):
        parse_spec(values, "dataset.toml")
