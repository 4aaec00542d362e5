"""What is wrong with a spec, in words: pydantic's errors, misspelt keys with the nearest right one."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from store.errors import did_you_mean


def spec_problems(error: ValidationError, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return one sentence per problem.

    Args:
        error: What validating `whole` raised.
        whole: The model.
        parts: Its keys that are models themselves, or tables of them by name.
    """
    return [_describe(one, whole, parts) for one in error.errors()]


def _describe(error: ErrorDetails, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> str:
    *where, key = [str(part) for part in error["loc"] if part not in ("str", "int")] or [""]
    if error["type"] == "extra_forbidden":
        fields = (parts[where[0]] if where else whole).model_fields
        hint = did_you_mean(key, fields) or f" Known keys: {', '.join(fields)}."
        return f"unknown key '{'.'.join([*where, key])}'.{hint}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        message += did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"])).rstrip("?")
    shown = "" if error["type"] in ("missing", "value_error") else f" (got {error['input']!r})"
    return f"{'.'.join([*where, key])}: {message}{shown}".removeprefix(": ")
