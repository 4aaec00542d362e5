from pathlib import Path

import pytest

from heads.places import found_provenance, plain_name, portable_provenance, portable_spec
from store import parse_spec


def a_spec(**more):
    return parse_spec({"name": "made", "table": "t.csv"} | more, "made")


@pytest.fixture
def home(tmp_path) -> Path:
    for folder in ("data/runs/finetune/bf", "data/pictures", "elsewhere/net"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("data/runs/finetune/bf", "elsewhere/net"):
        (tmp_path / folder / "config.json").write_text("{}")
    return tmp_path / "data"


def test_absolute_paths_of_a_spec_become_relative_or_names(home):
    spec = portable_spec(a_spec(root=str(home / "pictures"), table=str(home / "t.csv")), home)
    assert (spec.root, spec.table) == ("pictures", "t.csv")
    outside = str(home.parent / "elsewhere")  # new tables name files in it
    assert portable_spec(a_spec(root=outside), home).root == outside
    kept = a_spec(root="../pictures", table="sheets/t.csv")
    assert portable_spec(kept, home) == kept
    parts = a_spec(table=None, tables={"train": str(home / "a.csv"), "test": "b.csv"})
    assert portable_spec(parts, home).tables.given == {"train": "a.csv", "test": "b.csv"}


def test_weights_in_the_dataset_s_folder_move_along_with_the_bundle(home, monkeypatch):
    monkeypatch.chdir(home.parent)
    bundle = home / "runs" / "heads"
    for name in ("data/runs/finetune/bf", "local-dir:data/runs/finetune/bf", str(home / "runs/finetune/bf")):
        kept = portable_provenance({"name": name, "weights": "pretrained", "seed": 0}, home, bundle)
        prefix = "local-dir:" * name.startswith("local-dir:")
        assert kept == {"name": f"{prefix}../finetune/bf", "weights": "pretrained", "seed": 0}
        assert found_provenance(kept, Path("/new/runs/heads"))["name"] == f"{prefix}/new/runs/finetune/bf"


def test_weights_outside_stay_where_they_are_and_their_source_is_a_name(home, monkeypatch):
    monkeypatch.chdir(home)
    weights, net = home.parent / "elsewhere" / "net" / "config.json", str(home.parent / "elsewhere" / "net")
    given = {"name": "../elsewhere/net", "weights": str(weights), "source": str(weights)}
    kept = portable_provenance(given, home, home / "runs" / "heads")
    assert kept == {"name": net, "weights": str(weights), "source": "config.json"}
    assert found_provenance(kept, Path("/new")) == kept


def test_words_that_are_no_paths_stay(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "test_resnet").mkdir()  # no encoder lies in it, so the network is meant
    (home / "random").mkdir()
    given = {"name": "test_resnet", "weights": "random", "seed": 3, "source": "random, seed 3"}
    assert portable_provenance(given, home, home / "runs" / "heads") == given
    assert plain_name("timm/test_resnet.r160_in1k") == "timm/test_resnet.r160_in1k"
    assert portable_provenance({}, home, home / "runs") == {}
