"""Errors of others, in a line."""

from store import first_line, one_line


def test_an_error_is_one_line() -> None:
    error = ValueError("\n  first  words\n\n  and more\n" + "x" * 900)
    assert first_line(error) == "first  words"
    assert one_line(error).startswith("first words and more xxx") and len(one_line(error)) == 300
    assert len(first_line(ValueError("y" * 900))) == 200
    assert (first_line(KeyboardInterrupt()), one_line(ValueError(" "))) == ("KeyboardInterrupt", "ValueError")
