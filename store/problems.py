"""What is wrong with a spec, in words: wrong values with what was expected, misspelt keys with the nearest one."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from store.errors import did_you_mean

EXPECTED = {
    "string_type": "needs a word or text in quotes",
    "int_type": "needs a whole number",
    "int_from_float": "needs a whole number",
    "float_type": "needs a number",
    "bool_type": "needs true or false",
    "tuple_type": "needs a list in brackets",
    "dict_type": "needs a section for each name, [{place}.NAME]",
    "model_type": "needs keys of its own",
    "too_short": "needs {min_length} or more values",
    "greater_than_equal": "needs to be at least {ge:g}",
    "greater_than": "needs to be more than {gt:g}",
    "less_than_equal": "needs to be at most {le:g}",
    "less_than": "needs to be less than {lt:g}",
    "literal_error": "needs {expected}",
    "string_pattern_mismatch": "a name begins with a letter, and goes on with letters, digits, _ or -",
}
"""By type of pydantic's errors (https://docs.pydantic.dev/latest/errors/validation_errors), what was expected."""
COLUMN = "needs a column's name in quotes, or its position counted from 0"
UNION = {"str": "string_type", "int": "int_type"}  # how pydantic names the ways to give a column, and what each lacks


def spec_problems(error: ValidationError, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return one sentence per problem.

    Args:
        error: What validating `whole` raised.
        whole: The model.
        parts: Its keys that are models themselves, or tables of them by name.
    """
    found = [_describe(one, whole, parts) for one in error.errors() if not _follows(one)]
    return list(dict.fromkeys(found))


def _describe(error: ErrorDetails, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> str:
    loc = [str(part) for part in error["loc"] if part != "[key]"]
    is_column = bool(loc) and UNION.get(loc[-1]) == error["type"]
    *where, key = (loc[:-1] if is_column else loc) or [""]
    place = ".".join([*where, key])
    match error["type"]:
        case "extra_forbidden":
            fields = (parts[where[0]] if where else whole).model_fields
            known = f" Known keys: {', '.join(fields)}."
            return f"unknown key '{place}'.{did_you_mean(key, fields) or known}"
        case "missing":
            return f"key '{place}' is missing"
        case "value_error":
            return f"{place}: {error['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    kind = "model_type" if error["type"] == "dict_type" and place not in parts else error["type"]
    expected = COLUMN if is_column else EXPECTED.get(kind, error["msg"])
    words = expected.format(place=place, **error.get("ctx", {}))
    near = did_you_mean(str(error["input"]), re.findall("'([^']*)'", words)) if error["type"] == "literal_error" else ""
    return f"{place}: {words} (got {error['input']!r}){near and f'.{near}'}"


def _follows(error: ErrorDetails) -> bool:
    """Whether it is there only because of another: a list counted without its wrong values."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]
