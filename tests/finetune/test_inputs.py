import math
from pathlib import Path

import numpy as np
import pytest
import torch

from extract import prepare_image, read_image
from finetune import inputs
from finetune.inputs import RowDataset
from finetune.pictures import Change
from finetune.settings import AugmentSettings
from store import InputError
from tests.finetune.small import N_ROWS, PREPROCESS, image_branch, make_dataset, network, text_branch, tokenizer

BF = '[images.bf]\ncolumn = "file"\n'
MORE = BF + '[texts.notes]\ncolumn = "notes"\n[metadata.magnification]\ntransform = "log"\n'
ALL = np.arange(N_ROWS)
FLIPS = AugmentSettings(hflip=0.5, rotate_deg=20, noise=0.1)


def pixels(folder: Path, row: int) -> torch.Tensor:
    return torch.from_numpy(prepare_image(read_image(folder / "images" / f"{row}.png"), PREPROCESS))


def test_a_batch_holds_what_the_network_takes(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, MORE)
    given = network(
        image_branch("bf"), text_branch("notes"), columns=("magnification", "magnification:missing"), notes=tokenizer()
    )
    rows = RowDataset(dataset, given, ALL)
    batch = rows.__getitems__([(0, 3), (0, 7)])
    assert (len(batch), batch.rows.tolist(), batch.other) == (2, [3, 7], None)
    assert torch.equal(batch.inputs["bf"], torch.stack([pixels(tmp_path, 3), pixels(tmp_path, 7)]))
    metadata = batch.inputs["metadata"]
    assert isinstance(metadata, torch.Tensor) and metadata.dtype == torch.float32
    assert metadata[0].isnan().tolist() == [True, False] and metadata[0, 1] == 1
    assert metadata[1].tolist() == pytest.approx([math.log(8), 0])
    ids, mask = batch.inputs["notes"]
    want = tokenizer()(["note 3", "note 7"])["input_ids"]
    assert ids.tolist() == want and mask.tolist() == [[1] * len(want[0])] * 2


def test_texts_are_padded_and_cut(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, MORE)
    object.__setattr__(dataset.texts["notes"], "texts", ("note", "note 1 2 3 4 5 6", *["note 2"] * (N_ROWS - 2)))
    rows = RowDataset(dataset, network(text_branch("notes", max_tokens=5), notes=tokenizer()), ALL)
    ids, mask = rows.__getitems__([(0, 0), (0, 1)]).inputs["notes"]
    assert ids.shape == (2, 5)
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert ids[0, 3:].tolist() == [tokenizer().pad_token_id] * 2
    assert ids[1, -1] == tokenizer().sep_token_id


def test_what_is_missing_or_does_not_apply_is_no_target(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF)
    rows = RowDataset(dataset, network(image_branch("bf"), tasks=("kind", "size", "flow")), ALL)
    batch = rows.__getitems__([(0, row) for row in range(4)])
    assert batch.targets["kind"].tolist() == [-1, 1, 0, 0]
    assert batch.targets["kind"].dtype == torch.int64
    size, flow = batch.targets["size"], batch.targets["flow"]
    assert size.dtype == flow.dtype == torch.float32
    assert size[3].tolist() == [3.5, 1.5] and size[2, 0] == 2.5 and size[2, 1].isnan()
    assert flow.isnan()[:, 0].tolist() == [True, True, False, False]
    assert batch.weights["size"].tolist() == [1, 2, 3, 4]


def test_only_the_networks_tasks_are_targets_and_new_files_have_none(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF)
    rows = RowDataset(next(dataset.parts(5)), network(image_branch("bf"), tasks=("kind",)), np.arange(5))
    assert rows[0, 1].targets == {}
    assert list(RowDataset(dataset, network(image_branch("bf")), ALL)[0, 1].targets) == ["kind"]


def test_a_row_is_the_same_in_every_batch_and_whether_it_is_kept_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, change = make_dataset(tmp_path, BF), Change(FLIPS, seed=3)
    kept = RowDataset(dataset, network(image_branch("bf")), ALL, change=change)
    monkeypatch.setattr(inputs, "CACHE_BYTES", 40 * 50 * 3 * 4)  # four rows
    read = RowDataset(dataset, network(image_branch("bf")), ALL[::-1].copy(), change=change)
    assert (len(kept._kept), len(read._kept)) == (N_ROWS, 4)
    whole = kept.__getitems__([(2, row) for row in range(N_ROWS)]).inputs["bf"]
    for row in range(N_ROWS):
        assert torch.equal(read[2, N_ROWS - 1 - row].inputs["bf"][0], whole[row])
    assert not torch.equal(kept[3, 5].inputs["bf"][0], whole[5])


def test_kept_images_are_not_read_again(tmp_path: Path) -> None:
    rows = RowDataset(make_dataset(tmp_path, BF), network(image_branch("bf")), ALL)
    want = pixels(tmp_path, 4)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    assert torch.equal(rows[1, 4].inputs["bf"][0], want)


def test_rows_that_cannot_be_used_are_left_out_with_their_reason(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, MORE)
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    (tmp_path / "images" / "6.png").unlink()
    object.__setattr__(dataset.texts["notes"], "texts", (*["note"] * 8, None, *["note"] * 3))
    seen = []
    given = network(image_branch("bf"), text_branch("notes"), notes=tokenizer())
    rows = RowDataset(dataset, given, ALL, progress=lambda done, total: seen.append((done, total)))
    assert rows.left_out.keys() == {"r4", "r6", "r8"}
    assert "is no tif, png" in rows.left_out["r4"]
    assert rows.left_out["r8"] == "has no text for [texts.notes]"
    assert rows.rows.tolist() == [0, 1, 2, 3, 5, 7, 9, 10, 11] and len(rows) == 9
    assert seen == [(i + 1, N_ROWS) for i in range(N_ROWS)]
    assert rows[0, 4].rows.tolist() == [5]


def test_an_image_that_is_lost_later_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CACHE_BYTES", 0)
    rows = RowDataset(make_dataset(tmp_path, BF), network(image_branch("bf")), ALL)
    (tmp_path / "images" / "4.png").unlink()
    with pytest.raises(InputError, match="row 'r4' could be read before and cannot now: does not exist"):
        rows[0, 4]


def test_a_mixed_batch_names_its_partners(tmp_path: Path) -> None:
    change = Change(AugmentSettings(mixup=1.0), seed=5)
    dataset = make_dataset(tmp_path, BF)
    given = network(image_branch("bf"))
    plain, mixed = (
        RowDataset(dataset, given, ALL, change=c).__getitems__([(1, r) for r in range(4)]) for c in (None, change)
    )
    assert mixed.other is not None
    assert mixed.other.partner.tolist() == [3, 0, 1, 2]
    lam, images = mixed.other.lam, plain.inputs["bf"].float()
    want = lam * images + (1 - lam) * images[mixed.other.partner]
    assert (mixed.inputs["bf"].float() - want).abs().max() <= 0.501
    assert 0.01 < lam < 0.99
    again = RowDataset(dataset, given, ALL, change=change)
    assert again.__getitems__([(1, r) for r in range(4)]).other.lam == lam  # type: ignore[union-attr]
    assert again.__getitems__([(2, r) for r in range(4)]).other.lam != lam  # type: ignore[union-attr]
    assert torch.equal(mixed.targets["kind"], plain.targets["kind"])


def test_a_batch_moves_whole(tmp_path: Path) -> None:
    given = network(image_branch("bf"), text_branch("notes"), notes=tokenizer())
    change = Change(AugmentSettings(brightness=0.1))
    batch = RowDataset(make_dataset(tmp_path, MORE), given, ALL, change=change)[0, 1].to("meta")
    tensors = [batch.rows, batch.inputs["bf"], *batch.inputs["notes"], batch.targets["kind"], batch.weights["kind"]]
    assert {tensor.device.type for tensor in tensors} == {"meta"}  # type: ignore[union-attr]
