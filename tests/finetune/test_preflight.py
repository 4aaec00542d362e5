"""What is wrong with a run is one line, before anything is embedded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cli
from finetune import Ready, check_run
from finetune.fit import fit_fold
from finetune.network import make_network
from finetune.settings import read_settings
from store import Dataset, InputError, load_dataset, make_split, write_sample
from tests.finetune.trained import QUICK, a_training, make_images

TABLE = "id,file,kind,level,specimen,part"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(make_images(tmp_path_factory.mktemp("made")))


def ready(dataset: Dataset, *assignments: str, **how: Any) -> Ready:
    settings = read_settings({}, [*QUICK, *assignments])
    split = make_split(dataset, n_folds=4)
    return check_run(dataset, split, settings, **{"folder": Path("none"), "fold": 0, "device": "cpu", **how})


def test_a_run_that_can_begin_says_what_it_starts_from(dataset: Dataset) -> None:
    assert ready(dataset) == Ready([("test_resnet", "random")], [])
    assert ready(dataset, "branches.bf.encoder=residual").encoders == []  # from scratch: its features say little
    assert ready(dataset, fold=None, final=True).encoders == [("test_resnet", "random")]


def test_a_shared_encoder_is_started_from_by_its_name_once(tmp_path: Path) -> None:
    spec = make_images(tmp_path)
    spec.write_text(spec.read_text() + '[images.fl]\ncolumn = "file"\nview = "blur:2"\n')
    both = load_dataset(spec)
    assert ready(both, "modalities=shared").encoders == [("test_resnet", "random")]
    assert ready(both, "modalities=shared", "backbone=residual").encoders == []
    widths = ("branches.bf.width=8", "branches.fl.width=4")  # what is not of the encoder stays each branch's own
    settings = read_settings({}, [*QUICK, "modalities=shared", *widths])
    plans = make_network(both, settings, rows=np.arange(18), seed=0).blueprint.branches
    assert [(p.shares, p.settings.encoder, p.settings.width) for p in plans] == [
        *((None, "test_resnet", 8), ("bf", "test_resnet", 4))
    ]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["freeze=layr4"], r"'layr4' is the start of no layer's name\. Did you mean 'layer4'"),
        (
            ["train_only=stages.3"],
            r"'stages\.3' is the start of no layer's name.* There is backbone, bn1, conv1, layer1",
        ),
        (['freeze=["backbone", "heads"]'], "everything is frozen"),
        (["batch_size=1"], "batch_size = 1 gives batches of one, of which batch norm learns nothing"),
        (["weights=none.safetensors"], "weights 'none.safetensors': expected a file or a folder"),
        (["preset=garbage"], r"preset 'garbage' needs 1 text block, and there is none: add \[texts.NAME\]"),
        (["best_by=knd"], r"best_by = 'knd': there is no such task\. Did you mean 'kind'"),
        (["task_weights={knd=1}"], "task_weights names 'knd'"),
        (
            ["sampling=level"],
            r"sampling = 'level': there is no classification of that name\..* Expected uniform, balanced",
        ),
        (
            ["best_by=knd", "sampling=knid"],
            r"best_by = 'knd': there is no such task\. Did you mean 'kind'\? Or give mean, or loss; "
            r"sampling = 'knid': there is no classification of that name\. Did you mean 'kind'\?",
        ),
        (["init=heads", "fusion=8"], "init = 'heads' is for a network whose task heads see the encoders' features"),
        (["precision=float16"], "precision = float16 needs a GPU"),
    ],
)
def test_settings_that_cannot_work_are_refused(dataset: Dataset, assignments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready(dataset, *assignments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="--device cuda: there is no GPU"):
        ready(dataset, device="cuda")


def test_test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    spec = make_images(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(",test\n", ",train\n"))
    with pytest.raises(InputError, match="no row is held out"):
        ready(load_dataset(spec), final=True)


def test_tiles_and_mixing_that_have_no_meaning_are_refused(tmp_path: Path) -> None:
    spec = make_images(tmp_path)
    plain = spec.read_text()
    spec.write_text(plain.replace('column = "file"\n', 'column = "file"\ntiles = "2x2"\n'))
    with pytest.raises(InputError, match=r"\[images.bf\] has tiles or turns, and finetune trains on whole images"):
        ready(load_dataset(spec))
    spec.write_text(plain.replace('column = "file"\n', 'column = "file"\nview = "fourier"\n'))
    with pytest.raises(InputError, match=r"augment\.mixup and augment.cutmix do not go with branch 'bf'"):
        ready(load_dataset(spec), "augment.mixup=0.5")


def test_a_class_that_some_training_part_lacks_is_refused(tmp_path: Path) -> None:
    """Only row r3 is torn: the fold that holds it has nothing to learn that class from."""
    spec = make_images(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("r3,3.png,light", "r3,3.png,torn"))
    with pytest.raises(InputError, match="task 'kind': no training row is of class 'torn', so it cannot be learnt"):
        ready(load_dataset(spec), fold=None)
    assert ready(load_dataset(spec), fold=None, tasks=["level"]).encoders  # the task is left out


def test_weights_of_another_architecture_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"weights '.*other.pth' do not fit 'test_resnet'"):
        ready(dataset, f"weights={tmp_path / 'other.pth'}")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    training = a_training(tmp_path, "max_epochs=1", dataset=dataset)
    fit_fold(training)
    for changed, message in {
        "lr=0.5": "was made with lr = 0.001, not 0.5",
        "max_epochs=1": "was made from other rows or labels",
    }.items():
        with pytest.raises(InputError, match=rf"last\.ckpt: {message}"):
            ready(dataset, "max_epochs=1", changed, folder=training.folder, resume=True)
    assert ready(dataset, "max_epochs=1", folder=training.folder).encoders  # it would be replaced


def test_a_sample_out_of_the_hubs_reach_trains_from_random_weights_and_without_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    write_sample("garbage", tmp_path, n_rows=40, seed=0)
    sample = load_dataset(tmp_path / "dataset.toml")
    settings = read_settings({}, ["backbone=resnet10t", "text_backbone=nobody/nothing", "input_px=32"])
    found = check_run(sample, make_split(sample), settings, folder=tmp_path / "run", fold=0, device="cpu", seed=3)
    assert found.encoders == [("resnet10t", "random")]
    random, text = found.notes
    assert random.startswith("random weights instead of pretrained ones, seed 3: the pretrained weights of 'resnet10t'")
    assert text.startswith("text:") and "is left out: the pretrained weights of 'nobody/nothing'" in text
    study = read_settings({}, ["preset=garbage", "backbone=resnet10t", "text_backbone=nobody/nothing", "input_px=32"])
    with pytest.raises(InputError, match=r"preset 'garbage' reads texts, and .* give --set text_backbone=FOLDER"):
        check_run(sample, make_split(sample), study, folder=tmp_path / "run", fold=0, device="cpu", seed=3)


@pytest.mark.parametrize(
    "options", [["--set", "freeze=layr4"], ["--set", "batch_size=1"], ["--preset", "garbage"], ["--final"]]
)
def test_nothing_is_embedded_for_a_run_that_cannot_begin(tmp_path: Path, options: list[str]) -> None:
    spec = make_images(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(",test\n", ",train\n"))
    words = ["finetune", "--data", str(spec), "--backbone", "test_resnet", "--weights", "random", *options]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "features.zarr").exists() and not (tmp_path / "runs").exists()
