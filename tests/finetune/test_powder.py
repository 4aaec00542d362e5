"""The study's network on the ``powder`` sample, from the command to what it predicts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cli import app
from finetune.bundle import load_bundle
from heads import Predictions
from store import write_sample

QUICK = ("backbone=test_resnet", "weights=random", "input_px=32", "batch_size=16", "max_epochs=1")


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One tile of each of 24 fields, so of 24 powders."""
    folder = tmp_path_factory.mktemp("powder")
    spec = write_sample("powder", folder, n_rows=96)
    table = pd.read_csv(folder / "all_data.csv")
    table[table["image_path"].str.endswith("_t0.tif")].to_csv(folder / "all_data.csv", index=False)
    words = [word for setting in QUICK for word in ("--set", setting)]
    return folder, json.loads(run("finetune", "--data", spec, "--preset", "powder", *words, "--json"))


def test_flow_rate_is_scored_only_where_a_powder_flows(tuned: tuple[Path, dict[str, Any]]) -> None:
    folder, document = tuned
    entries = {entry["task"]: entry for entry in document["entries"] if entry["head"] == "finetune"}
    assert list(entries) == ["AOR", "HR", "CI", "flowable", "Flow_rate"]
    stored = Predictions(folder / "runs" / "predictions")
    scored = {task: set(stored.of(entry).row.tolist()) for task, entry in entries.items()}
    flowing = set(np.flatnonzero(pd.read_csv(folder / "all_data.csv")["Flow_rate"].notna()).tolist())
    assert scored["AOR"] == scored["HR"] == scored["CI"] == scored["flowable"]
    assert scored["Flow_rate"] == scored["flowable"] & flowing
    assert 0 < len(scored["Flow_rate"]) < len(scored["flowable"])


def test_its_network_is_the_studys_and_predicts_where_no_flow_rate_is_known(
    tuned: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = tuned
    blueprint = load_bundle(folder / "runs" / "finetune").network.blueprint
    metadata = next(plan for plan in blueprint.branches if plan.kind == "metadata")
    assert (metadata.dim, metadata.settings.hidden, metadata.settings.width) == (1, (32,), 16)
    assert blueprint.fusion.widths == (256, 128)
    run("predict", folder / "runs" / "finetune", folder / "all_data.csv", "--out", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert len(found) == 24 and found["Flow_rate"].notna().all()
    assert found["Flow_rate_p_applies"].between(0, 1).all()
