"""The `store` commands."""

from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from cli import app
from tests.cli.commands import Make, cut_in_half, run, run_json


def test_vectors_are_exported_in_dataset_order_and_come_back(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.npz"
    name = run_json("extract", "--data", spec)["spaces"][0]["name"]
    fingerprint = run_json("store", "ls", "--data", spec)["spaces"][0]["fingerprint"]
    for space in (name, "image@texture", fingerprint[:10]):
        found = run_json("store", "export", space, "--data", spec, "--to", "npz", "--out", out)
        assert (found["name"], found["rows"], found["left_out"]) == (name, 24, [])
    with np.load(out) as arrays:
        assert arrays["ids"].tolist() == pd.read_csv(spec.parent / "labels.csv")["sample"].tolist()
        assert arrays["X"].shape[0] == len(set(arrays["keys"])) == 24 and arrays["X"].dtype == np.float32
    other = ["--store", tmp_path / "other.zarr"]
    found = run_json("store", "import", out, *other)
    place = {"name": "image@texture", "fingerprint": fingerprint}
    assert found == place | {"rows": 24, "present": 0, "repeated": 0}
    assert run_json("extract", "--data", spec, *other)["spaces"][0]["embedded"] == 0
    told = run("store", "import", out, *other).stdout
    assert told == f"0 vectors stored in image@texture ({fingerprint[:12]}), 24 there already\n"
    with np.load(out) as arrays:
        doubled = {"keys": np.tile(arrays["keys"], 2), "X": np.tile(arrays["X"], (2, 1))}
    np.savez(out, **doubled)
    words = ["store", "import", out, "--space", fingerprint, *other]
    assert run(*words).stdout.endswith(", 24 there already, 24 repeated in the file\n")
    np.savez(out, keys=doubled["keys"][:24], X=doubled["X"][:24] * 1.01)
    assert "24 of its keys (" in run(*words, code=2).stderr


def test_an_export_says_which_rows_it_lacks(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.csv"
    cut_in_half(spec.parent / "images" / "s_400X_05.tif")
    run("extract", "--data", spec, code=3)
    words = ["store", "export", "image:bf@texture", "--data", spec, "--out", out]
    assert run_json(*words, "--to", "csv", code=3)["left_out"] == ["r05"]
    assert "23 rows of image:bf@texture, 1 without a vector" in run(*words, "--to", "csv", code=3).stdout
    assert "Did you mean 'parquet'" in run(*words, "--to", "parket", code=2).stderr
    assert "Did you mean 'image:bf@texture'" in run("store", "export", "image:bf@textur", *words[3:], code=2).stderr
    assert "say which space to write, such as image:bf@texture" in run("store", "export", *words[3:], code=2).stderr
    old = run_json("store", "export", *words[3:], "--space", "image:bf@texture", code=3)  # what scripts rely on
    assert old["rows"] == 23


def test_every_command_works_on_a_store_in_a_bucket(make_dataset: Make, bucket: str, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "x.npz"
    words = ["--data", spec, "--store", f"{bucket}/features.zarr"]
    assert run_json("extract", *words)["spaces"][0]["embedded"] == 24
    assert run_json("extract", *words)["spaces"][0]["embedded"] == 0
    assert run_json("heads", *words, "--head", "linear")["entries"]
    assert run_json("store", "ls", *words)["spaces"][0]["rows"] == 24
    assert run_json("store", "verify", *words) == {"ok": True, "damaged": []} == run_json("store", "repair", *words)
    assert run_json("store", "export", "image@texture", *words, "--out", out)["rows"] == 24
    assert run_json("store", "gc", *words, "--drop", "image@texture")["dropped"] == ["image@texture"]
    assert run_json("store", "import", out, *words)["rows"] == 24
    assert not (spec.parent / "features.zarr").exists()
    result = run("extract", "--data", spec, "--store", f"{bucket}-absent/features.zarr", code=2)
    assert "Make the bucket" in result.stderr and len(result.stderr.splitlines()) == 1 and not result.stdout


def test_every_store_command_takes_a_space_by_each_of_its_names(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.npz"
    report = run_json("extract", "--data", spec)["spaces"][0]
    fingerprint = report["fingerprint"]
    plain = tmp_path / "plain.npz"
    for name in (report["name"], "image@texture", f"{report['name']}#{fingerprint[:8]}", fingerprint[:10]):
        assert run_json("store", "info", name, "--data", spec)["fingerprint"] == fingerprint
        assert run_json("store", "export", name, "--out", out, "--data", spec)["rows"] == 24
        with np.load(out) as arrays:
            np.savez(plain, keys=arrays["keys"], X=arrays["X"])
        assert run_json("store", "gc", "--drop", name, "--data", spec)["dropped"] == ["image@texture"]
        run("store", "import", out, "--data", spec)
        assert run_json("store", "import", plain, "--space", name, "--data", spec)["rows"] == 0
    wrong = f"image@texture#{'0' if fingerprint[0] != '0' else '1'}"
    assert f"has no space '{wrong}'" in run("store", "info", wrong, "--data", spec, code=2).stderr
    for words in (["info"], ["gc"], ["export"], ["import"]):
        shown = " ".join(run("store", *words, "--help").stdout.split())
        assert "image:bf@texture as extract names it, image@texture or image.log@texture as store ls does" in shown


def test_a_space_that_cannot_say_what_it_is_is_named(make_dataset: Make) -> None:
    spec = make_dataset()
    lost = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    run("extract", "--convert", "log", "--data", spec)
    (spec.parent / "features.zarr" / lost / "zarr.json").write_text("{")
    result = run("store", "ls", "--data", spec)
    assert f"warning: the space {lost} has no sound description and is left out; run store repair" in result.stderr
    assert "image.log@texture" in result.stdout


def test_damage_leads_from_extract_to_repair_and_back(make_dataset: Make) -> None:
    spec = make_dataset()
    fingerprint = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    folder = spec.parent / "features.zarr"
    (folder / fingerprint / "vectors" / "c.0.0").unlink()
    problem = "chunk vectors/c.0.0 is missing; `store repair` mends that, then `extract` brings back what is lost"
    assert problem in run("extract", "--data", spec, code=2).stderr
    where = f"image@texture ({fingerprint[:12]}), vectors/c.0.0: is missing"
    assert run("store", "verify", "--data", spec, code=3).stdout == f"{where}\n1 damaged; store repair mends that\n"
    told = run("store", "repair", "--data", spec, code=3).stdout
    assert told == f"{where}: dropped\n1 damaged; the next extract brings back what was dropped\n"
    assert run("store", "repair", "--data", spec).stdout == "nothing is damaged\n"
    assert run_json("extract", "--data", spec)["spaces"][0]["embedded"] == 24
    for name in ("zarr.json", f"{fingerprint}/zarr.json"):
        (folder / name).unlink()
    assert "zarr.json is missing; `store repair` mends that" in run("extract", "--data", spec, code=2).stderr
    damaged = run_json("store", "repair", "--data", spec, code=3)["damaged"]
    assert damaged == [
        {"space": space, "fingerprint": at, "chunk": "zarr.json", "reason": "is missing", "done": "written again"}
        for space, at in (("the store", ""), ("image@texture", fingerprint))
    ]
    assert run_json("extract", "--data", spec)["spaces"][0]["present"] == 24


def test_a_store_whose_only_space_is_lost_is_not_called_empty(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset()
    lost = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    (spec.parent / "features.zarr" / lost / "zarr.json").unlink()
    assert "holds no sound feature space; run store repair" in run("store", "ls", "--data", spec, code=2).stderr
    export = ["store", "export", "image@texture", "--data", spec, "--out", tmp_path / "x.npz"]
    gc = ["store", "gc", "--drop", "image@texture", "--data", spec]
    for words in (export, gc):
        assert f"the space {lost} has no sound description" in run(*words, code=2).stderr


def test_a_mistyped_store_is_not_called_sound(tmp_path: Path) -> None:
    told = {
        "ls": "nowhere.zarr: holds no feature space",
        "verify": "nowhere.zarr: holds no feature space",
        "repair": "nowhere.zarr: holds no feature space",
        "gc": "no feature store at",
    }
    for command, problem in told.items():
        result = CliRunner().invoke(app, ["store", command, "--store", str(tmp_path / "nowhere.zarr")])
        assert result.exit_code == 2
        assert problem in result.stderr
    for command in told:
        result = CliRunner().invoke(app, ["store", command, "--data", str(tmp_path / "nowhere")])
        assert result.exit_code == 2
        assert "nowhere: there is no such file or folder; give --data a dataset.toml, or --store" in result.stderr


def test_the_keys_of_extract_and_store_are_written_down(make_dataset: Make, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    spec, out = make_dataset(), tmp_path / "x.npz"
    cut_in_half(spec.parent / "images" / "s_400X_05.tif")
    found = {"extract": run_json("extract", "--data", spec, code=3)}
    (next((spec.parent / "features.zarr").glob("*/vectors/c.0.0"))).unlink()
    for command, words, code in (
        ("store verify", [], 3),
        ("store repair", [], 3),
        ("store ls", [], 0),
        ("store info", ["image@texture"], 0),
        ("store gc", [], 0),
    ):
        found[command] = run_json(*command.split(), *words, "--data", spec, code=code)
    run("extract", "--data", spec, code=3)
    found["store export"] = run_json("store", "export", "image@texture", "--out", out, "--data", spec, code=3)
    found["store import"] = run_json("store", "import", out, "--data", spec)
    for command, document in found.items():
        told = "".join(line for line in page.splitlines() if line.startswith(f"| `{command}` |"))
        if command in ("store info", "store repair"):  # "as" another one
            told += "".join(line for line in page.splitlines() if line.startswith(("| `store ls`", "| `store verify`")))
        lists = [value for value in document.values() if isinstance(value, list)]
        rows = [row for value in lists for row in value if isinstance(row, dict)]
        failures = [row for value in rows for row in value.get("failures", [])]
        for key in {key for row in (document, *rows, *failures) for key in row}:
            assert f"`{key}`" in told, (command, key)
