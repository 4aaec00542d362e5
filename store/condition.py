"""The small language of a task's ``when``: comparisons of columns with constants, joined by and, or, not."""

import ast
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.errors import InputError, did_you_mean
from store.table import missing_cells, to_number

SHOWN = 10  # values of a column that a message names
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def evaluate(condition: str, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return where `condition` holds, bool ``(n,)``; a comparison with a missing cell does not hold.

    Column names that are no identifiers stand in backticks, as in ``pandas.DataFrame.query``.

    Raises:
        InputError: It is no condition, or names a column that the table lacks.
    """
    tree, names = _parse(condition)
    return _Evaluator(condition, table, names).holds(tree)


def check_condition(condition: str) -> str:
    """Return a condition as it is; ValueError where it is none, whatever the table has."""
    try:
        _parse(condition)
    except InputError as error:
        raise ValueError(str(error)) from None
    return condition


def is_known(condition: str, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return where no column that `condition` reads is missing, bool ``(n,)``: elsewhere nobody knows if it holds.

    Raises:
        InputError: As `evaluate`.
    """
    return np.asarray(~np.logical_or.reduce([missing_cells(cells) for cells in _columns(condition, table)]))


def values_words(condition: str, table: pd.DataFrame) -> str:
    """Return what the columns that `condition` reads hold: ``phase is 'G1', 'S', …``."""
    lists = []
    for cells in _columns(condition, table):
        found = sorted(set(cells[~missing_cells(cells)].astype(str)))
        lists.append(f"{cells.name} is {', '.join(map(repr, found[:SHOWN]))}" + (", …" if len(found) > SHOWN else ""))
    return "; ".join(dict.fromkeys(lists))


def _columns(condition: str, table: pd.DataFrame) -> list[pd.Series]:
    """Return the columns that `condition` reads."""
    tree, names = _parse(condition)
    evaluator = _Evaluator(condition, table, names)
    return [evaluator.column(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _parse(condition: str) -> tuple[ast.expr, dict[str, str]]:
    """Return the expression, and the columns that stood in backticks by their place-holders."""
    quoted: list[str] = []

    def hide(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"__quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(re.sub(r"`([^`]+)`", hide, condition), mode="eval")
    except SyntaxError:
        raise InputError(f"when = {condition!r} is no condition; expected one like \"flowable == 'yes'\"") from None
    return tree.body, {f"__quoted_{i}": name for i, name in enumerate(quoted)}


class _Evaluator:
    def __init__(self, condition: str, table: pd.DataFrame, names: dict[str, str]) -> None:
        self.condition, self.table, self.names = condition, table, names

    def holds(self, node: ast.expr) -> NDArray[np.bool_]:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return np.asarray(np.logical_and.reduce([self.holds(value) for value in values]))
            case ast.BoolOp(op=ast.Or(), values=values):
                return np.asarray(np.logical_or.reduce([self.holds(value) for value in values]))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.holds(operand)
            case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
                return self.compare(self.column(name), op, right)
        raise self.error(node)

    def compare(self, cells: pd.Series, op: ast.cmpop, right: ast.expr) -> NDArray[np.bool_]:
        try:
            value = ast.literal_eval(right)
        except ValueError:
            raise self.error(right) from None
        present = ~missing_cells(cells)
        if isinstance(op, ast.In | ast.NotIn) and isinstance(value, Sequence) and not isinstance(value, str):
            found = np.logical_or.reduce([self.equal(cells, one, operator.eq) for one in value])
            return np.asarray(present & (found if isinstance(op, ast.In) else ~found))
        if type(op) not in _COMPARE:
            raise self.error(right)
        return present & self.equal(cells, value, _COMPARE[type(op)])

    def equal(self, cells: pd.Series, value: Any, compare: Callable[[Any, Any], Any]) -> NDArray[np.bool_]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return np.asarray(compare(to_number(cells), value), dtype=bool)
        return np.asarray(compare(cells.astype(str), str(value)), dtype=bool)

    def column(self, name: str) -> pd.Series:
        name = self.names.get(name, name)
        if name not in self.table:
            raise InputError(
                f"when = {self.condition!r} names column {name!r}, which the table lacks."
                + did_you_mean(name, map(str, self.table.columns))
            )
        return self.table[name]

    def error(self, node: ast.expr) -> InputError:
        return InputError(
            f"when = {self.condition!r}: cannot read {ast.unparse(node)!r}; a condition compares a column with a "
            "constant (== != < <= > >= in), joined by and, or, not"
        )
