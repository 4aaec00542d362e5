import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "timm", "torchvision", "transformers", "openvino"}
FORBIDDEN = {
    "store": {"extract", "heads", "finetune", "cli", "sklearn", "lightgbm", "typer"} | HEAVY,
    "extract": {"heads", "finetune", "cli", "zarr", "lightgbm", "typer"},
    "heads": {"extract", "finetune", "cli", "zarr", "typer"} | HEAVY,
    "finetune": {"cli", "zarr", "typer"},
}
LIGHT = {"typer", "click", "rich"}
"""The only packages `cli.py` imports at module level, besides the standard library's."""


def imports(tree: ast.AST) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append((node.module or "", [alias.name for alias in node.names]))
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_layer_imports_only_what_lies_below(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name, _ in imports(ast.parse(path.read_text()))
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert modules(package) and not wrong


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_sibling_is_used_only_through_what_it_exports(package: str) -> None:
    for path in [*modules(package), ROOT / "cli.py"]:
        for name, names in imports(ast.parse(path.read_text())):
            sibling = name.split(".")[0]
            if sibling in FORBIDDEN and sibling != path.relative_to(ROOT).parts[0]:
                assert name == sibling, f"{path}: import from {sibling}, not from {name}"
                exported = ast.parse((ROOT / sibling / "__init__.py").read_text())
                public = next(
                    ast.literal_eval(node.value)
                    for node in exported.body
                    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
                )
                assert set(names) <= set(public), f"{path}: {set(names) - set(public)} not in {sibling}.__all__"


def test_zarr_lives_in_the_store_alone() -> None:
    users = [p for package in FORBIDDEN for p in modules(package) if "zarr" in dict(imports(ast.parse(p.read_text())))]
    assert users and all(path.relative_to(ROOT).parts[0] == "store" for path in users)


def test_the_command_line_starts_light() -> None:
    tree = ast.parse((ROOT / "cli.py").read_text())
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    names = {name.split(".")[0] for name, _ in imports(top)}
    third_party = {name for name in names if name not in __import__("sys").stdlib_module_names}
    assert third_party <= LIGHT


def test_only_the_command_line_prints() -> None:
    for package in FORBIDDEN:
        for path in modules(package):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not any(getattr(call.func, "id", "") == "print" for call in calls), path
