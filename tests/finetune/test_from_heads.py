from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from extract import Runtime
from extract.decode import read_image
from extract.resize import resize_rgb
from extract.view import render
from finetune.from_heads import begin_from_heads, is_linear, why_not
from finetune.network import MultimodalNetwork, make_network
from finetune.settings import read_settings
from heads import FeatureMatrix, Sweep, load_matrix, metadata_columns
from store import Dataset, FeatureStore, InputError, load_dataset, make_split, view_settings, write_sample
from tests.finetune.made import data, image, network, text_folder

RUNTIME = Runtime("cpu", "torch")
HERE = {"weights": "random", "backbone": "test_resnet", "init": "heads"}


def inputs(dataset: Dataset, made: MultimodalNetwork) -> dict:
    """What the network takes of every row, through extraction's pixel code."""
    found: dict = {}
    for plan in made.blueprint.branches:
        if plan.kind == "image":
            blocks = [dataset.images[name] for name in plan.blocks]
            rows = [[resize_rgb(render([read_image(b.refs[row].path)], view_settings(b)), plan.preprocess)
                     for b in blocks] for row in range(dataset.n_rows)]  # fmt: skip
            found[plan.name] = torch.from_numpy(np.stack([np.concatenate(row, axis=2) for row in rows]))
        elif plan.kind == "text":
            tokens = made.branches[plan.name].tokenizer(
                list(dataset.texts[plan.name].texts), padding=True, return_tensors="pt"
            )
            found[plan.name] = (tokens["input_ids"], tokens["attention_mask"])
        else:
            columns = metadata_columns(dataset.metadata, made.blueprint.columns)
            found["metadata"] = torch.from_numpy(np.stack(list(columns.values()), axis=1))
    return found


def start(
    dataset: Dataset,
    rows: np.ndarray,
    *,
    matrix: FeatureMatrix | None = None,
    store: FeatureStore | None = None,
    **table: object,
) -> MultimodalNetwork:
    """A network begun from the heads."""
    settings = read_settings({**HERE, **table})
    made = make_network(dataset, settings, rows=rows, seed=0)
    n = dataset.n_rows
    nothing = FeatureMatrix(dataset.ids, np.empty((n, 0), np.float32), {}, (), np.ones(n, bool), {}, {})
    sweep = Sweep(dataset, matrix or nothing, make_split(dataset, seed=0))
    line = begin_from_heads(made, sweep, store or stored(dataset), settings, rows=rows, runtime=RUNTIME)
    assert line == f"task heads start from the linear solution of {len(rows)} training rows"
    return made.eval()


def outputs_of(made: MultimodalNetwork, dataset: Dataset) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return made(inputs(dataset, made))


def stored(dataset: Dataset) -> FeatureStore:
    return FeatureStore(str(dataset.folder / "features.zarr"))


def check_equal_to_the_sweep(dataset: Dataset, rows: np.ndarray, outputs: dict) -> None:
    """The heads' own way: load what is stored, fit, predict."""
    matrix = load_matrix(dataset, stored(dataset))
    sweep = Sweep(dataset, matrix, make_split(dataset, seed=0))
    for name, task in dataset.tasks.items():
        plan = sweep.plan(name, [(rows, rows[:0])])
        [[head]] = sweep.fit([plan], tuple(sorted(matrix.blocks)), "linear")
        X = sweep.columns(tuple(sorted(matrix.blocks)), np.arange(dataset.n_rows))
        if task.kind == "regression":
            scale = task.y[rows].std(axis=0)
            assert np.abs(outputs[name].numpy() - head.head.predict(X)).max() < 1e-4 * scale.max()
        else:
            assert np.abs(torch.softmax(outputs[name], 1).numpy() - head.head.predict_proba(X)).max() < 1e-4


def test_before_the_first_step_the_outputs_are_the_linear_heads(tmp_path: Path) -> None:
    write_sample("tem", tmp_path, n_rows=40, seed=0)
    dataset = load_dataset(tmp_path / "dataset.toml")
    gaps = dataset.metadata["magnification"].values.copy()
    gaps[[2, 7, 11]] = np.nan
    dataset = replace(dataset, metadata={"magnification": replace(dataset.metadata["magnification"], values=gaps)})
    rows = np.setdiff1d(np.arange(40), [5, 23, 31])
    made = start(dataset, rows)
    outputs = outputs_of(made, dataset)
    assert {plan.name for plan in made.blueprint.branches} == {"tem", "metadata"} and len(outputs) == 5
    assert made.blueprint.columns == ("magnification", "magnification:missing")
    assert max(float(made.heads[name].weight.detach().abs().max()) for name in outputs) > 0.1
    check_equal_to_the_sweep(dataset, rows, outputs)


def test_texts_and_regressions_start_from_the_linear_solution_too(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    extra = '[texts.notes]\ncolumn = "note"\n'
    extra += '[tasks.size]\ncolumn = "size"\nkind = "regression"\n[tasks.pair]\ncolumns = ["size", "magnification"]\n'
    dataset = load_dataset(make_dataset(extra))
    rows = np.arange(2, 24)
    folder = text_folder(tmp_path / "text")
    made = start(dataset, rows, text_backbone=str(folder))
    outputs = outputs_of(made, dataset)
    assert [plan.name for plan in made.blueprint.branches] == ["bf", "notes", "metadata"] and len(outputs) == 3
    check_equal_to_the_sweep(dataset, rows, outputs)


def test_what_the_sweep_has_is_not_embedded_again(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    dataset = load_dataset(make_dataset('[texts.notes]\ncolumn = "note"\n'))
    rows, folder = np.arange(2, 24), str(text_folder(tmp_path / "text"))
    first = start(dataset, rows, text_backbone=folder)
    own = FeatureStore(tmp_path / "runs" / "features.zarr")
    for backbones, embedded in ((None, []), (["test_resnet"], ["text"])):
        matrix = load_matrix(dataset, stored(dataset), backbones=backbones)
        again = start(dataset, rows, matrix=matrix, store=own, text_backbone=folder)
        assert [space.modality for space in own.spaces()] == embedded
        assert torch.allclose(again.heads["kind"].weight, first.heads["kind"].weight, atol=1e-5)
    start(dataset, rows, matrix=load_matrix(dataset, stored(dataset)), store=own, text_backbone=folder, input_px=32)
    assert [space.modality for space in own.spaces()] == ["image", "text"]
    assert [space.modality for space in stored(dataset).spaces()] == ["image", "text"]


def test_blocks_stacked_by_the_network_are_embedded_as_one(make_dataset: Callable[..., Path]) -> None:
    dataset = load_dataset(make_dataset('[images.fl]\ncolumn = "file"\n'))
    rows = np.arange(24)
    made = start(dataset, rows, modalities="stacked", blocks=["image:bf", "image:fl"])
    outputs = outputs_of(made, dataset)
    assert [plan.name for plan in made.blueprint.branches] == ["stack"]
    assert [len(space.stack) for space in stored(dataset).spaces()] == [2]
    assert (outputs["kind"].argmax(dim=1).numpy() == dataset.tasks["kind"].y).mean() == 1.0


def test_a_class_that_only_rows_without_a_vector_have_is_next_to_impossible(make_dataset: Callable[..., Path]) -> None:
    dataset = load_dataset(make_dataset())
    y = dataset.tasks["kind"].y.copy()
    y[0] = 2
    task = replace(dataset.tasks["kind"], y=y, classes=("plain", "striped", "torn"))
    block = dataset.images["bf"]
    whole = replace(dataset, tasks={"kind": task})
    torn = replace(whole, images={"bf": replace(block, refs=(None, *block.refs[1:]))})
    p = torch.softmax(outputs_of(start(torn, np.arange(24)), whole)["kind"], dim=1)
    assert 0 < float(p[:, 2].max()) < 1e-5 and float(p[:, 0].max()) > 0.9


@pytest.mark.parametrize(
    "table", [{"fusion": [8]}, {"branches": {"bf": {"width": 8}}}, {"branches": {"image": {"layer_norm": True}}}]
)
def test_layers_in_between_are_told_and_refused_where_heads_were_asked_for(table: dict) -> None:
    made = network(data(image("bf")), **table)
    assert not is_linear(made)
    before = made.heads["kind"].weight.clone()
    arguments = {"sweep": None, "store": None, "rows": np.arange(12)}
    line = begin_from_heads(made, settings=read_settings(table), **arguments)  # type: ignore[arg-type]
    assert line.startswith("task heads start from random numbers: between encoders and heads are layers")
    assert torch.equal(made.heads["kind"].weight, before)
    with pytest.raises(InputError, match="init = 'heads' is for a network whose task heads see the encoders' features"):
        begin_from_heads(made, settings=read_settings({**table, "init": "heads"}), **arguments)  # type: ignore[arg-type]


def test_untrained_encoders_do_not_start_from_the_heads_unless_asked() -> None:
    made = network(data(image("bf")))
    assert why_not(made, read_settings({})) == "an encoder was never trained"
    assert why_not(made, read_settings({"init": "heads"})) is None


def test_dropout_is_no_layer_in_between_and_backbone_starts_at_random() -> None:
    made = network(data(image("bf")), branches={"bf": {"dropout": 0.5}})
    assert is_linear(made)
    line = begin_from_heads(made, None, None, read_settings({"init": "backbone"}), rows=np.arange(12))  # type: ignore[arg-type]
    assert line == "task heads start from random numbers: init = backbone"
