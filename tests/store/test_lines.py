import pytest

from store import broken


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("short", ["short"]),
        ("image:sem@shufflenet_v2_x1_0", ["image:sem", "@shufflenet_", "v2_x1_0"]),
        ("Train/Black/candle_12.png", ["Train/Black/", "candle_", "12.png"]),
        ("gaussian_noise:0.25", ["gaussian_", "noise:0.25"]),
        ("an old plastic bottle", ["an old", "plastic", "bottle"]),
        ("x" * 30, ["x" * 12, "x" * 12, "x" * 6]),
    ],
)
def test_a_name_is_broken_where_it_has_joints(text: str, lines: list[str]) -> None:
    assert broken(text, lambda line: len(line) <= 12) == lines


def test_no_letter_is_lost_where_not_one_fits() -> None:
    assert broken("abc", lambda line: not line) == ["a", "b", "c"]
