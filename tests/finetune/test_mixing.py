import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from finetune.mixing import Mix, draw_mix, mix_inputs
from finetune.settings import AugmentSettings

PARTNER = torch.arange(4).roll(1)


def images(dtype: torch.dtype = torch.float32, size: tuple[int, int] = (20, 30)) -> torch.Tensor:
    return torch.randint(0, 256, (4, *size, 3), generator=torch.Generator().manual_seed(0)).to(dtype)


def torchvisions(transform: v2.Transform, params: dict[str, object], given: torch.Tensor) -> torch.Tensor:
    """What torchvision's transform makes of images with the same draw; it mixes each row with the one before it."""
    planes = given.permute(0, 3, 1, 2)
    mixed = transform.transform(planes, params | {"labels": None, "batch_size": len(given)})
    return mixed.permute(0, 2, 3, 1)


def test_mixup_is_torchvisions() -> None:
    want = torchvisions(v2.MixUp(num_classes=2), {"lam": 0.3}, images())
    mixed, share = mix_inputs({"bf": images()}, Mix(0.3, None), PARTNER)
    assert share == 0.3
    torch.testing.assert_close(mixed["bf"], want)


def test_cutmix_is_torchvisions() -> None:
    want = torchvisions(v2.CutMix(num_classes=2), {"box": (6, 5, 21, 15)}, images())  # x1, y1, x2, y2
    mixed, share = mix_inputs({"bf": images()}, Mix(0.8, (0.25, 0.2, 0.75, 0.7)), PARTNER)
    assert torch.equal(mixed["bf"], want)
    assert share == pytest.approx(1 - 10 * 15 / (20 * 30))


def test_8_bit_images_stay_so_within_half_a_grey_level() -> None:
    want = torchvisions(v2.MixUp(num_classes=2), {"lam": 0.3}, images())
    mixed, _ = mix_inputs({"bf": images(torch.uint8)}, Mix(0.3, None), PARTNER)
    assert mixed["bf"].dtype == torch.uint8
    assert (mixed["bf"].float() - want).abs().max() <= 0.5001


def test_all_images_of_a_row_are_cut_at_the_same_place_and_metadata_is_blended() -> None:
    metadata = torch.tensor([[0.0], [1.0], [float("nan")], [3.0]])
    inputs = {"bf": images(), "fl": images(size=(40, 60)), "metadata": metadata}
    mixed, share = mix_inputs(inputs, Mix(0.5, (0, 0, 0.5, 0.5)), PARTNER)
    assert share == 0.75
    assert torch.equal(mixed["bf"][:, :10, :15], images()[PARTNER][:, :10, :15])
    assert torch.equal(mixed["fl"][:, :20, :30], inputs["fl"][PARTNER][:, :20, :30])
    assert torch.equal(mixed["fl"][:, 20:], inputs["fl"][:, 20:])
    torch.testing.assert_close(mixed["metadata"][:2, 0], torch.tensor([0.75 * 0 + 0.25 * 3, 0.75 * 1 + 0.25 * 0]))
    assert mixed["metadata"].isnan()[:, 0].tolist() == [False, False, True, True]


def test_nothing_is_mixed_where_both_are_off() -> None:
    assert draw_mix(AugmentSettings(), np.random.default_rng(0)) is None


def test_draws_are_of_the_beta_distribution_and_the_rectangle_has_the_other_share() -> None:
    rng = np.random.default_rng(0)
    both = [draw_mix(AugmentSettings(mixup=0.4, cutmix=1.0), rng) for _ in range(4000)]
    blends = [mix.share for mix in both if mix is not None and mix.box is None]
    cuts = [mix for mix in both if mix is not None and mix.box is not None]
    assert abs(len(cuts) - 2000) < 150
    assert np.var(blends) == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.01)  # of Beta(a, a)
    assert np.var([mix.share for mix in cuts]) == pytest.approx(1 / 12, abs=0.01)
    for mix in cuts:
        top, left, bottom, right = mix.box or (0, 0, 0, 0)
        assert 0 <= top <= bottom <= 1 and 0 <= left <= right <= 1
        assert (bottom - top) * (right - left) <= 1 - mix.share + 1e-9
        if min(top, left) > 0 and max(bottom, right) < 1:
            assert (bottom - top) * (right - left) == pytest.approx(1 - mix.share)


def test_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens of 'notes' cannot be mixed"):
        mix_inputs({"notes": (PARTNER, PARTNER)}, Mix(0.5, None), PARTNER)
