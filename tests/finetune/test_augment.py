from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from finetune.augment import RANDOM_CONVERSIONS, Draw, augmented, draw, draw_conversion, is_off
from finetune.settings import AugmentSettings

NOTHING = draw(AugmentSettings(), seed=0, epoch=0, row=0)
ALL = AugmentSettings(
    hflip=0.5,
    vflip=0.5,
    rotate_deg=20,
    translate=0.1,
    scale=0.2,
    shear_deg=5,
    crop_scale=0.5,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.1,
    noise=0.1,
    blur=1,
)


def colour(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def apply(picture: np.ndarray, **what: object) -> np.ndarray:
    return augmented(picture, replace(NOTHING, **what), input_px=min(picture.shape[:2]))  # type: ignore[arg-type]


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)


def test_settings_that_are_off_change_nothing() -> None:
    assert is_off(AugmentSettings())
    assert not is_off(AugmentSettings(hflip=0.1)) and not is_off(AugmentSettings(crop_scale=0.9))
    assert np.array_equal(augmented(colour(), NOTHING, input_px=32), colour())


def test_a_draw_depends_on_seed_epoch_and_row_alone() -> None:
    first = draw(ALL, seed=1, epoch=2, row=3)
    assert first == draw(ALL, seed=1, epoch=2, row=3)
    others = [draw(ALL, seed=s, epoch=e, row=r) for s, e, r in ((0, 2, 3), (1, 0, 3), (1, 2, 0))]
    assert len({first.angle_deg, *(other.angle_deg for other in others)}) == 4


def test_one_setting_leaves_the_draws_of_the_others() -> None:
    some = draw(ALL, seed=0, epoch=0, row=5)
    other = draw(ALL.model_copy(update={"crop_scale": 1.0, "rotate_deg": 0.0}), seed=0, epoch=0, row=5)
    assert (other.angle_deg, other.box) == (0, (0, 0, 1, 1))
    assert replace(some, angle_deg=0.0, box=other.box) == other


def test_draws_fill_their_ranges_evenly() -> None:
    drawn = [draw(ALL, seed=0, epoch=e, row=r) for e in range(20) for r in range(100)]

    def values(name: str) -> np.ndarray:
        return np.array([getattr(one, name) for one in drawn])

    for name, low, high in [
        ("angle_deg", -20, 20),
        ("scale", 0.8, 1.2),
        ("brightness", 0.8, 1.2),
        ("hue", -0.1, 0.1),
        ("noise", 0, 0.1),
        ("blur_px", 0, 1),
    ]:
        found = values(name)
        span = high - low
        assert low <= found.min() < low + 0.01 * span and high - 0.01 * span < found.max() <= high, name
        assert abs(found.mean() - (low + high) / 2) < 0.03 * span, name
    assert 0.45 < values("hflip").mean() < 0.55
    assert abs(np.corrcoef(values("hflip"), values("vflip"))[0, 1]) < 0.1
    top, left, height, width = values("box").T
    area, ratio = height * width, width / height
    assert 0.5 <= area.min() < 0.52 and 0.98 < area.max() <= 1
    assert ratio.min() >= 3 / 4 - 1e-9 and ratio.max() <= 4 / 3 + 1e-9
    assert (top >= 0).all() and (top + height <= 1 + 1e-9).all() and (left + width <= 1 + 1e-9).all()


def test_flips_are_mirror_images() -> None:
    assert np.array_equal(apply(colour(), hflip=True), colour()[:, ::-1])
    assert np.array_equal(apply(colour(), vflip=True), colour()[::-1])


def test_a_half_turn_is_one_and_a_shift_is_in_parts_of_the_side() -> None:
    assert np.array_equal(apply(colour(), angle_deg=180.0), colour()[::-1, ::-1])
    moved = apply(colour(), shift=(0.25, -0.5))  # 15 px to the right, 20 px up
    assert np.array_equal(moved[:20, 15:], colour()[20:, :45])
    uncovered = moved[25:].reshape(-1, 3).astype(float)
    assert np.abs(uncovered - colour().mean(axis=(0, 1))).max() <= 1


def test_a_box_is_shown_as_the_whole_picture() -> None:
    picture = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2) * 60, 20, axis=0), 20, axis=1)
    assert np.array_equal(apply(picture, box=(0.5, 0, 0.5, 0.5)), np.full((40, 40), 120))


def test_colours_are_torchvisions() -> None:
    want = F.adjust_hue(
        F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(as_tensor(colour()), 1.1), 0.8), 1.3), 0.1
    )
    got = apply(colour(), brightness=1.1, contrast=0.8, saturation=1.3, hue=0.1)
    assert np.array_equal(got, want.permute(1, 2, 0).numpy())
    assert np.abs(got.astype(int) - colour()).max() > 30


def test_the_affine_map_is_torchvisions() -> None:
    picture = colour()
    fill = picture.reshape(-1, 3).astype(np.float32).mean(axis=0).tolist()
    want = F.affine(
        as_tensor(picture),
        angle=10,
        translate=[6, -4],
        scale=1.1,
        shear=[3, -2],
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=fill,
    )
    got = apply(picture, angle_deg=10, shift=(0.1, -0.1), scale=1.1, shear_deg=(3, -2))
    assert np.array_equal(got, want.permute(1, 2, 0).numpy())


def test_a_grey_picture_has_no_colours_to_change() -> None:
    grey = colour()[..., 0]
    assert np.array_equal(apply(grey, saturation=0.3, hue=0.2), grey)
    assert np.array_equal(
        apply(grey, brightness=0.5), F.adjust_brightness(torch.from_numpy(grey)[None], 0.5)[0].numpy()
    )


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deeper_pixels_are_moved_but_not_coloured(dtype: str) -> None:
    deep = np.random.default_rng(0).gamma(2, 400, (40, 60)).astype(dtype)
    got = apply(deep, hflip=True, brightness=0.5, contrast=2.0)
    assert got.dtype == np.float32
    assert np.array_equal(got, deep[:, ::-1].astype(np.float32))


def test_noise_is_a_part_of_full_scale() -> None:
    flat = np.full((200, 200), 128, np.uint8)
    assert abs(apply(flat, noise=0.05).std() - 0.05 * 255) < 0.2
    deep = np.linspace(0, 4000, 40_000, dtype=np.float32).reshape(200, 200)
    assert abs((apply(deep, noise=0.05) - deep).std() - 0.05 * 4000) < 3


def test_blur_is_in_pixels_of_the_networks_input() -> None:
    point = np.zeros((101, 101), np.float32)
    point[50, 50] = 1
    blurred = augmented(point, replace(NOTHING, blur_px=1.5), input_px=50)  # of a picture about twice as large: 3 px
    offset = np.arange(101) - 50
    assert abs(np.sqrt((blurred.sum(axis=0) * offset**2).sum()) - 3.03) < 0.1


def test_every_conversion_is_drawn_as_often() -> None:
    found = [draw_conversion(seed=0, epoch=e, row=r) for e in range(30) for r in range(80)]
    assert len(RANDOM_CONVERSIONS) == 12 and "none" not in RANDOM_CONVERSIONS
    counts = {name: found.count(name) for name in RANDOM_CONVERSIONS}
    assert min(counts.values()) > 150 and max(counts.values()) < 250, counts
    assert draw_conversion(seed=0, epoch=1, row=2) == found[80 + 2]


def test_a_draw_is_what_it_says() -> None:
    assert (
        Draw(
            hflip=False,
            vflip=False,
            angle_deg=0,
            shift=(0, 0),
            scale=1,
            shear_deg=(0, 0),
            box=(0, 0, 1, 1),
            brightness=1,
            contrast=1,
            saturation=1,
            hue=0,
            noise=0,
            blur_px=0,
            seed=NOTHING.seed,
        )
        == NOTHING
    )
