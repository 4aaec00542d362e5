"""Encoder folders: a network with its weights, as `load_backbone` and `load_language` read it by the folder's path.

Images: ``config.json`` in timm's local form, so that timm reads a folder of its own architectures too, and with the
resolved preprocessing, from which a space comes that differs from the original's in nothing but the weights. Texts:
transformers' form with sentence-transformers' files for pooling and length.
"""

import json
from pathlib import Path
from typing import Any

from extract.backbone import Backbone
from extract.catalogue import HEADLESS
from extract.language import NAME, POOLINGS, TUNED_ON, Language, quiet

WEIGHTS = "model.safetensors"


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write an image network, which has no head, into an empty folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = dict(backbone.preprocess)
    config = {
        "architecture": backbone.architecture,
        "num_classes": 0,
        "model_args": preprocess.get("model_args", {}) | {"in_chans": backbone.in_chans},
        "pretrained_cfg": _timm_config(backbone),
        HEADLESS: {
            "preprocess": preprocess,
            "pooling": backbone.pooling,
            "in_chans": backbone.in_chans,
            "tuned_on": backbone.tuned_on,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.module.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def save_language(language: Language, folder: Path) -> None:
    """Write a text network and its tokenizer into an empty folder."""
    with quiet():
        language.module.save_pretrained(folder)  # type: ignore[operator]
        language.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {
        NAME: language.architecture,
        TUNED_ON: language.tuned_on,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    limit = {"max_seq_length": language.preprocess["max_tokens"]}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limit) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {key: name == language.pooling for key, name in POOLINGS.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling) + "\n")


def _timm_config(backbone: Backbone) -> dict[str, Any]:
    """Return what timm wants to know of its own network; nothing of another library's."""
    known = dict(getattr(backbone.module, "pretrained_cfg", {}))
    if not known:
        return {}
    kept = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "first_conv", "classifier", "fixed_input_size")
    own = {"input_size": [3, *backbone.preprocess["input_px"]], "num_classes": 0}
    return own | {name: known[name] for name in kept if name in known}
