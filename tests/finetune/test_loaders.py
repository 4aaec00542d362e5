from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.loaders import Loaders, make_loaders, score_loader
from finetune.settings import FinetuneSettings
from store import InputError
from tests.finetune.small import image_branch, make_dataset, network, text_branch, tokenizer

BF = '[images.bf]\ncolumn = "file"\n'
FOURIER = BF + '[images.spectrum]\ncolumn = "file"\nview = "fourier"\n'
TRAIN, STOP = np.arange(9), np.arange(9, 12)
AUGMENT = {"hflip": 0.5, "rotate_deg": 20.0, "noise": 0.1, "brightness": 0.2}


def made(folder: Path, given: Any = None, *, blocks: str = BF, batch_size: int = 4, **how: Any) -> Loaders:
    train, workers = how.pop("train", TRAIN), how.pop("workers", 0)
    return make_loaders(
        make_dataset(folder, blocks, depth=how.pop("depth", "uint8")),
        given or network(image_branch("bf")),
        FinetuneSettings.model_validate(how),
        train=train,
        stop=STOP,
        seed=7,
        batch_size=batch_size,
        workers=workers,
    )


def images_by_row(loader: Any, epoch: int) -> dict[int, torch.Tensor]:
    loader.batch_sampler.set_epoch(epoch)
    return {int(row): pixels for batch in loader for row, pixels in zip(batch.rows, batch.inputs["bf"], strict=True)}


def test_inputs_depend_on_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    one = made(tmp_path, augment=AUGMENT)
    two = made(tmp_path, augment=AUGMENT, batch_size=3, workers=2)
    for epoch in (0, 1, 0):  # worker processes live on, and see each epoch
        first, second = images_by_row(one.train, epoch), images_by_row(two.train, epoch)
        assert first.keys() == second.keys() == set(range(9))
        assert all(torch.equal(first[row], second[row]) for row in first)
    assert not torch.equal(images_by_row(one.train, 0)[3], images_by_row(one.train, 1)[3])


def test_a_resumed_epoch_gives_the_batches_that_were_left(tmp_path: Path) -> None:
    loader = made(tmp_path, augment=AUGMENT | {"mixup": 0.5}).train
    sampler: Any = loader.batch_sampler
    sampler.set_epoch(3)
    whole = list(loader)
    late = made(tmp_path, augment=AUGMENT | {"mixup": 0.5}).train
    sampler = late.batch_sampler
    sampler.set_epoch(3)
    sampler.skip(2)
    [last] = list(late)
    assert torch.equal(last.rows, whole[2].rows)
    assert torch.equal(last.inputs["bf"], whole[2].inputs["bf"])  # type: ignore[arg-type]


def test_stop_and_scored_rows_see_no_augmentation(tmp_path: Path) -> None:
    plain = made(tmp_path, depth="uint16")
    changed = made(
        tmp_path,
        depth="uint16",
        augment=AUGMENT | {"crop_scale": 0.3, "blur": 2.0, "cutmix": 1.0, "mixup": 1.0},
        convert="random",
        sampling="kind",
    )
    for epoch in (0, 5):
        first, second = images_by_row(plain.stop, 0), images_by_row(changed.stop, epoch)
        assert list(second) == [9, 10, 11]
        assert all(torch.equal(first[row], second[row]) for row in first)
    scored = score_loader(make_dataset(tmp_path, BF, depth="uint16"), network(image_branch("bf")), STOP, batch_size=2)
    assert all(torch.equal(images_by_row(scored.loader, 1)[row], first[row]) for row in first)


def test_weighted_sampling_reaches_the_loader(tmp_path: Path) -> None:
    loader = made(tmp_path, sampling="kind").train
    found: list[int] = []
    for epoch in range(100):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        found += [int(y) for batch in loader for y in batch.targets["kind"] if y >= 0]
    assert abs(np.mean(found) - 0.5) < 0.06  # 2 of 8 are of class b


def test_batch_norm_never_gets_a_single_row(tmp_path: Path) -> None:
    norms = [torch.nn.BatchNorm2d(3)]
    assert [len(batch) for batch in made(tmp_path, network(image_branch("bf"), norms=norms)).train] == [4, 5]
    assert [len(batch) for batch in made(tmp_path).train] == [4, 4, 1]
    with pytest.raises(InputError, match=r"batch_size = 1 gives batches of one.*set batch_size to 2 or more"):
        made(tmp_path, network(image_branch("bf"), norms=norms), batch_size=1)
    with pytest.raises(InputError, match="one training row gives batches of one"):
        made(tmp_path, network(image_branch("bf"), norms=norms), train=np.array([2]))
    assert [len(batch) for batch in made(tmp_path, batch_size=1).train] == [1] * 9


def test_mixing_is_refused_where_it_has_no_meaning(tmp_path: Path) -> None:
    texts = BF + '[texts.notes]\ncolumn = "notes"\n'
    with pytest.raises(InputError, match=r"augment.cutmix do not go with branch 'notes': texts cannot be blended"):
        given = network(image_branch("bf"), text_branch("notes"), notes=tokenizer())
        made(tmp_path, given, blocks=texts, augment={"mixup": 0.2})
    with pytest.raises(InputError, match="branch 'spectrum': a spectrum cannot be cut or blended"):
        given = network(image_branch("bf"), image_branch("spectrum"))
        made(tmp_path, given, blocks=FOURIER, augment={"cutmix": 0.2})
    with pytest.raises(InputError, match="branch 'stack': a spectrum"):
        made(tmp_path, network(image_branch("stack", "bf", "spectrum")), blocks=FOURIER, augment={"cutmix": 0.2})


def test_unreadable_rows_are_named_and_none_left_is_an_error(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF)
    for name in ("2.png", "10.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    given, settings = network(image_branch("bf")), FinetuneSettings()
    loaders = make_loaders(dataset, given, settings, train=TRAIN, stop=STOP, seed=0, batch_size=4)
    assert loaders.left_out.keys() == {"r2", "r10"}
    assert len(loaders.train) == 2
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no training row can be used"):
        make_loaders(dataset, given, settings, train=TRAIN, stop=STOP, seed=0, batch_size=4)
