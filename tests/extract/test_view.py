"""What an encoder is given, and what becomes of it: crop, view, turns, tiles and stacks, with real encoders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.contract import Encoder
from extract.convert import to_8bit
from extract.decode import ImageError
from extract.encoder import encoder_from_space, make_encoders
from extract.engine import relative_error
from extract.network import Options
from extract.perturb import perturb
from extract.spectrum import spectrum_image
from extract.tiles import TURNS, cut, turned
from extract.view import crop, render
from store import Dataset, ImageBlock, InputError, view_settings
from tests.extract.made import make_encoder

RANDOM = Options(weights="random", device="cpu", engine="torch")
DEEP = np.random.default_rng(0).integers(0, 4096, (90, 130), dtype=np.uint16)
SQUARE = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
ENCODERS = ["texture", "test_resnet"]


def block(convert: str | None = "linear", crop_bottom_px: int = 0, **settings: Any) -> ImageBlock:
    return ImageBlock("bf", (), convert, crop_bottom_px, **settings)


def embed(encoder: Encoder, *images: np.ndarray) -> np.ndarray:
    return encoder.encode([encoder.prepare(render(images, view_settings(encoder.space)))])[0]


def shapes(pixels: np.ndarray, **settings: Any) -> list[tuple[int, ...]]:
    return [tile.shape for tile in cut(pixels, {"tiles": None, "tile_px": None} | settings)]


def test_crop_leaves_out_the_lowest_rows() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)
    assert np.array_equal(crop(pixels, 1), pixels[:3])
    with pytest.raises(ImageError, match="4 rows of pixels; crop_bottom_px = 4 leaves none"):
        crop(pixels, 4)


def test_plain_view_is_the_conversion_of_the_cropped_image() -> None:
    assert np.array_equal(render([DEEP], view_settings(block("linear", 5))), to_8bit(DEEP[:-5], "linear"))


def test_perturbation_comes_after_the_conversion_and_spectrum_before() -> None:
    noisy = render([DEEP], view_settings(block("log", 5, view="gaussian_noise:0.1")))
    assert np.array_equal(noisy, perturb(to_8bit(DEEP[:-5], "log"), "gaussian_noise:0.1"))
    spectrum = render([DEEP], view_settings(block(None, 5, view="fourier")))
    assert np.array_equal(spectrum, spectrum_image(DEEP[:-5]))


# --- tiles ---


def test_grid_has_equal_parts_that_leave_nothing_out() -> None:
    assert shapes(DEEP, tiles="2x3") == [(45, 43), (45, 44), (45, 43)] * 2
    pixels = np.arange(15).reshape(3, 5)
    tiles = cut(pixels, {"tiles": "2x2", "tile_px": None})
    assert sorted(np.concatenate([tile.ravel() for tile in tiles])) == list(range(15))
    with pytest.raises(ImageError, match="has 3 x 5 px, too few for tiles = '4x1'"):
        cut(pixels, {"tiles": "4x1", "tile_px": None})


@pytest.mark.parametrize("tile_px", [8, 32, 45, 64, 90, 130, 200])
def test_squares_cover_everything_to_the_very_edge(tile_px: int) -> None:
    seen = np.zeros(DEEP.shape, np.uint8)
    tiles = cut(np.dstack(np.indices(DEEP.shape)), {"tiles": None, "tile_px": tile_px})
    for tile in tiles:
        assert tile.shape[:2] == (min(tile_px, 90), min(tile_px, 130))
        seen[tile[..., 0], tile[..., 1]] = 1
    assert seen.all()
    assert len(tiles) == -(-90 // tile_px) * -(-130 // tile_px)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("settings", [{"tiles": "2x2"}, {"tile_px": 64}])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooled_vector_is_that_of_the_tiles_embedded_apart(name: str, settings: dict[str, Any], pool: str) -> None:
    plain = make_encoder(name, block(), RANDOM)
    tiles = cut(to_8bit(DEEP, "linear"), view_settings(block(**settings)))
    apart = np.stack([plain.encode([plain.prepare(tile)])[0] for tile in tiles])
    got = embed(make_encoder(name, block(**settings, pool=pool), RANDOM), DEEP)
    assert relative_error(got[None], getattr(apart, pool)(axis=0)[None]) < 1e-5
    assert len(tiles) == {"tiles": 4, "tile_px": 6}[next(iter(settings))]


def test_tiles_of_a_spectrum_are_spectra_of_tiles() -> None:
    [tiles] = render([DEEP], view_settings(block(None, view="fourier", tiles="2x1")))
    assert np.array_equal(tiles[1], spectrum_image(DEEP[45:]))


def test_images_of_one_batch_may_have_different_numbers_of_tiles() -> None:
    encoder = make_encoder("test_resnet", block("none", tile_px=64), RANDOM)
    images = [SQUARE, np.concatenate([SQUARE, SQUARE[:, ::-1]], axis=1), SQUARE[:64, :64]]
    prepared = [encoder.prepare(render([image], view_settings(encoder.space))) for image in images]
    assert [len(turns[0]) for turns in prepared] == [4, 6, 1]
    apart = np.concatenate([encoder.encode([item]) for item in prepared])
    assert relative_error(encoder.encode(prepared), apart) < 1e-5


def test_tiles_that_do_not_fit_at_once_are_embedded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("test_resnet", block("none", tiles="4x4"), RANDOM)
    want, inner = embed(encoder, SQUARE), encoder._encoder  # type: ignore[attr-defined]
    real, sizes = inner.encode, []

    def small(batch: list[Any]) -> np.ndarray:
        if len(batch) > 3:
            raise MemoryError
        sizes.append(len(batch))
        return real(batch)

    monkeypatch.setattr(inner, "encode", small)
    assert relative_error(embed(encoder, SQUARE)[None], want[None]) < 1e-5
    assert sum(sizes) == 16 and max(sizes) == 2
    monkeypatch.setattr(inner, "encode", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        embed(encoder, SQUARE)


# --- turns ---


def test_turns_are_groups_of_different_images() -> None:
    pixels = np.arange(6).reshape(2, 3)
    for name, n_turns in (("none", 1), ("flips", 4), ("d4", 8)):
        made = {turn.tobytes() + bytes(turn.shape) for turn in turned(pixels, name)}
        assert len(made) == len(TURNS[name]) == n_turns
        again = {t.tobytes() + bytes(t.shape) for turn in turned(pixels, name) for t in turned(turn, name)}
        assert again == made


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("settings", [{}, {"tiles": "2x2"}, {"tile_px": 70, "pool": "max"}, {"view": "png:3"}])
def test_d4_vector_does_not_change_when_the_image_is_turned(name: str, settings: dict[str, Any]) -> None:
    plain = make_encoder(name, block("none", **settings), RANDOM)
    encoder = make_encoder(name, block("none", turns="d4", **settings), RANDOM)
    want = embed(encoder, SQUARE)
    for turn in (np.rot90(SQUARE), SQUARE[::-1], SQUARE.transpose(1, 0, 2)):
        turn = np.ascontiguousarray(turn)
        assert relative_error(embed(encoder, turn)[None], want[None]) < 1e-5
        assert relative_error(embed(plain, turn)[None], embed(plain, SQUARE)[None]) > 1e-3
    each = np.stack([embed(plain, np.ascontiguousarray(turn)) for turn in turned(SQUARE, "d4")])
    assert relative_error(want[None], each.mean(axis=0)[None]) < 1e-5


# --- stacks ---


def stacked(first: ImageBlock, second: ImageBlock, **settings: Any) -> ImageBlock:
    return ImageBlock("both", (), None, parts=(first, second), **settings)


def test_stack_is_each_image_as_its_own_block_has_it_side_by_side() -> None:
    both = stacked(block("log", 10), block("none", view="blur:2"))
    got = render([DEEP, SQUARE[:80, :1].repeat(130, axis=1)], view_settings(both))
    assert got.shape == (80, 130, 6)
    assert np.array_equal(got[..., 1], to_8bit(DEEP[:80], "log"))
    assert np.array_equal(got[..., 3:], perturb(SQUARE[:80, :1].repeat(130, axis=1), "blur:2"))
    with pytest.raises(ImageError, match=r"cannot be stacked: its images have 80 x 130 and 96 x 96 px"):
        render([DEEP, SQUARE], view_settings(both))


def test_six_channels_give_what_timm_gives(tmp_path: Path) -> None:
    import timm
    import torch

    three = timm.create_model("test_resnet", num_classes=0).eval()
    torch.save(three.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "num_classes": 0}
    six = timm.create_model(
        "test_resnet", pretrained=True, num_classes=0, in_chans=6, pretrained_cfg_overlay=overlay
    ).eval()
    options = Options(weights=str(tmp_path / "w.pth"), device="cpu", engine="torch")
    none = block("none")
    encoder = make_encoder("test_resnet", stacked(none, none), options)
    other = np.ascontiguousarray(SQUARE[::-1])
    prepared = encoder.prepare(render([SQUARE, other], view_settings(encoder.space)))
    mean, std = (torch.tensor(encoder.space.preprocess[key] * 2).view(6, 1, 1) for key in ("mean", "std"))
    pixels = (torch.from_numpy(prepared).permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        want = six(pixels[None]).numpy()
    assert relative_error(encoder.encode([prepared]), want) < 1e-5
    single = make_encoder("test_resnet", none, options)
    twice = embed(encoder, SQUARE, SQUARE)
    assert relative_error(twice[None], embed(single, SQUARE)[None]) < 1e-5
    assert encoder.space.weights_digest != single.space.weights_digest


def test_stack_is_pooled_and_turned_like_any_image() -> None:
    none = block("none")
    encoder = make_encoder("test_resnet", stacked(none, none, turns="d4", tiles="2x2"), RANDOM)
    images = SQUARE, np.ascontiguousarray(SQUARE[:, ::-1])
    again = [np.ascontiguousarray(np.rot90(image)) for image in images]
    assert relative_error(embed(encoder, *again)[None], embed(encoder, *images)[None]) < 1e-5


@pytest.mark.parametrize("name", ["texture", "shufflenet_v2_x0_5"])
def test_encoders_that_take_no_stack_say_so(name: str) -> None:
    with pytest.raises(InputError, match=r"stack.*timm network"):
        make_encoder(name, stacked(block(), block()), RANDOM)


def test_texture_leaves_stacks_out_where_there_are_other_blocks() -> None:
    images = {"bf": block(), "both": replace(stacked(block(), block()), name="both")}
    dataset = Dataset(None, Path(), np.array([]), None, images, {}, {}, {}, None)  # type: ignore[arg-type]
    encoders, warnings = make_encoders(["texture", "test_resnet"], dataset, RANDOM)
    assert {name: len(found) for name, found in encoders.items()} == {"image:bf": 2, "image:both": 1}
    assert warnings == ["'texture' takes no stacks: [images.both] is left out"]


# --- all of them ---

BLOCKS = {
    "fourier": block(None, view="fourier"),
    "noise": block("log", 3, view="poisson_noise:0.2"),
    "tiles": block("log", tiles="2x3", pool="max"),
    "tile_px": block("log", tile_px=48, turns="flips"),
    "stack": stacked(block("log", 3), block(None, 3, view="fourier", turns="d4"), turns="flips"),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_is_rebuilt_from_its_space(kind: str, name: str) -> None:
    if (name, kind) == ("texture", "stack"):
        pytest.skip("texture takes no stacks")
    images = [SQUARE] * max(1, len(BLOCKS[kind].parts))
    made = make_encoder(name, BLOCKS[kind], RANDOM)
    again = encoder_from_space(made.space, getattr(made, "provenance", None), Options(device="cpu", engine="torch"))
    assert again.space.fingerprint == made.space.fingerprint
    if kind != "stack":
        assert np.array_equal(embed(again, *images), embed(made, *images))
