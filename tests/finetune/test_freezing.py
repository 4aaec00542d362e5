import re

import pytest
import timm
import torch

from finetune.freezing import batch_norms, freeze, frozen, stages
from finetune.network import MultimodalNetwork, make_network
from finetune.settings import FinetuneSettings, read_settings
from store import InputError, load_dataset
from tests.finetune.trained import QUICK, make_images


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> MultimodalNetwork:
    dataset = load_dataset(make_images(tmp_path_factory.mktemp("images")))
    return make_network(dataset, settings(), rows=torch.arange(18).numpy(), seed=0)


def settings(*assignments: str) -> FinetuneSettings:
    return read_settings({}, [*QUICK, *assignments])


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("resnet18", ["conv1.weight", "layer1.0.conv1.weight", "layer2.0", "layer3.0", "layer4.0"]),
        ("efficientnet_b0", ["conv_stem", *(f"blocks.{i}." for i in range(7))]),
        ("convnext_tiny", ["stem.0", *(f"stages.{i}." for i in range(4))]),
        ("vit_tiny_patch16_224", ["cls_token", *(f"blocks.{i}." for i in range(12))]),
        ("densenet121", ["features.conv0", *(f"features.denseblock{i}." for i in range(1, 5))]),
    ],
)
def test_stages_go_from_the_stem_to_the_last_numbered_layers(name: str, starts: list[str]) -> None:
    with torch.device("meta"):
        encoder = timm.create_model(name, num_classes=0)
    found = stages(encoder)
    assert [first.startswith(start) for (first, *_), start in zip(found, starts, strict=True)] == [True] * len(starts)
    assert sum(map(len, found)) == len(list(encoder.named_parameters()))


def test_the_backbone_is_all_encoders_and_heads_still_train(network: MultimodalNetwork) -> None:
    kept = frozen(network, settings("freeze=backbone"))
    assert kept == {name for name, _ in network.named_parameters() if ".encoder." in name}
    assert frozen(network, settings()) == set()


@pytest.mark.parametrize("name", ["layer1", "bf.layer1", "backbone.layer1", "branches.bf.encoder.layer1"])
def test_a_layer_has_several_names(network: MultimodalNetwork, name: str) -> None:
    kept = frozen(network, settings(f"freeze={name}"))
    assert kept == {n for n, _ in network.named_parameters() if n.startswith("branches.bf.encoder.layer1.")}
    assert len(kept) == 6


def test_train_only_is_the_reverse_for_encoders(network: MultimodalNetwork) -> None:
    kept = frozen(network, settings('train_only=["layer3", "layer4"]'))
    open_ = {n for n, _ in network.named_parameters()} - kept
    assert {n.split(".encoder.")[-1].split(".")[0] for n in open_} == {"layer3", "layer4", "heads"}


def test_a_stage_more_trains_every_few_epochs(network: MultimodalNetwork) -> None:
    chosen = settings("unfreeze_every=2", "freeze=layer4")
    encoder = network.branches["bf"].encoder
    sizes = [len(stage) for stage in stages(encoder)]
    n_last = sizes.pop()  # never trains
    for epoch, n_open in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (9, 4), (30, 5)]:
        n_frozen = len(frozen(network, chosen, epoch=epoch))
        assert n_frozen == n_last + sum(sizes[: max(0, len(sizes) + 1 - n_open)])
    assert len(frozen(network, chosen)) == n_last


def test_a_frozen_batch_norm_keeps_its_statistics(network: MultimodalNetwork) -> None:
    freeze(network, frozen(network, settings("freeze=layer1")))
    still = [module for module in batch_norms(network) if not module.training]
    layer = network.branches["bf"].encoder.layer1
    assert {id(m) for m in still} == {id(m) for m in batch_norms(layer)} and len(still) == 2
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    network({"bf": torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8)})
    changed = {name for name, value in network.named_buffers() if name in before and not value.equal(before[name])}
    assert changed == {name for name in before if ".layer1." not in name}
    assert not any(p.requires_grad for p in layer.parameters())
    freeze(network, set())
    assert all(p.requires_grad for p in network.parameters()) and all(m.training for m in batch_norms(network))


def test_a_name_that_matches_nothing_gives_the_nearest(network: MultimodalNetwork) -> None:
    message = "[finetune]: 'layr4' is the start of no layer's name. Did you mean 'layer4' or"
    with pytest.raises(InputError, match=re.escape(message)):
        frozen(network, settings("freeze=layr4"))
    with pytest.raises(InputError, match=re.escape("There is backbone, bn1, conv1, layer1, layer2, layer3, layer4")):
        frozen(network, settings("train_only=stages.3"))
    with pytest.raises(InputError, match="layer"):
        frozen(network, settings("freeze=layer"))  # parts of a name are whole


def test_nothing_left_to_train_is_refused(network: MultimodalNetwork) -> None:
    from finetune.optimise import make_optimizer

    with pytest.raises(InputError, match="everything is frozen"):
        make_optimizer(network, settings('freeze=["backbone", "heads"]'))
