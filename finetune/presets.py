"""The architectures and the training of five published studies, as values of the ``[finetune]`` table.

What the studies left open or got wrong is set right here: the best epoch is never chosen on test rows, gradients are
clipped before the step, images and spectra are augmented together, hue stays as it is in bright field. What may be
set otherwise to have a study's own way is said beside the value.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tem": {  # TEM images and magnification, several classifications
        "backbone": "resnet18",  # also efficientnet_b0, convnext_tiny
        "input_px": 224,
        "branches": {"metadata": {"width": 32, "activation": "relu"}},
        "optimizer": "adamw",
        "lr": 1e-4,
        "head_lr": 1e-4,
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 32,
        "max_epochs": 10,
        "augment": {"hflip": 0.5, "vflip": 0.5, "rotate_deg": 20, "brightness": 0.2, "contrast": 0.2},
    },
    "cells": {  # bright-field and fluorescence as six channels, one class
        "backbone": "convnext_large",
        "modalities": "stacked",
        "input_px": 384,
        "train_only": ("stages.3", "head", "heads"),
        "optimizer": "adam",
        "lr": 1e-4,
        "head_lr": 1e-4,
        "weight_decay": 0.0,
        "schedule": "cosine_restarts",
        "warmup_epochs": 0,
        "restart_epochs": 10,
        "restart_factor": 2,
        "clip_norm": 1.0,
        "sampling": "balanced",
        "batch_size": 4,
        "max_epochs": 100,
        "patience": 10,
        "augment": {
            "hflip": 0.5,
            "rotate_deg": 40,
            "translate": 0.1,
            "crop_scale": 0.8,
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.0,  # the study jittered it, which hurts in bright field
        },
    },
    "powder": {  # SEM tiles and magnification: three regressions, a flow class, a conditional flow rate
        "backbone": "efficientnet_b0",  # also regnety_004, shufflenet_v2_x1_0, mobilenetv3_large_100, resnet18
        "branches": {"metadata": {"hidden": (32,), "width": 16, "activation": "relu"}},
        "fusion": (256, 128),
        "optimizer": "adam",
        "lr": 1e-4,
        "head_lr": 1e-4,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 128,
        "max_epochs": 100,
        "patience": 7,
        "convert": "random",  # the study had a row per conversion
    },
    "reflectance": {  # SEM image and its spectrum, ten reflectances
        "backbone": "residual",
        "input_px": 256,
        "branches": {
            "image": {"norm": "instance"},  # group and batch were tried too
            "fourier": {"norm": "instance", "channels": "grey"},
        },
        "fusion": (512,),
        "optimizer": "adam",
        "lr": 1e-4,
        "head_lr": 1e-4,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 1,
        "max_epochs": 400,
        "patience": 50,
        "augment": {"hflip": 0.5, "rotate_deg": 15, "noise": 0.2},
    },
    "garbage": {  # a photo and the words of its file name, four classes
        "backbone": "mobilenetv2_100",
        "text_backbone": "distilbert-base-uncased",
        "input_px": 224,
        "branches": {
            "image": {"width": 256, "activation": "relu", "layer_norm": True},
            "text": {"pooling": "cls", "width": 256, "activation": "relu", "layer_norm": True},
        },
        "fusion": (512,),
        "optimizer": "adamw",
        "lr": 1e-5,
        "head_lr": 1e-5,
        "schedule": "constant",
        "warmup_epochs": 0,
        "batch_size": 64,
        "max_epochs": 8,
        "augment": {"hflip": 0.5, "rotate_deg": 15, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    },
}

NEEDED: dict[str, dict[str, int]] = {
    "tem": {"image": 1, "metadata": 1},
    "cells": {"image": 2},
    "powder": {"image": 1, "metadata": 1},
    "reflectance": {"image": 1, "fourier": 1},
    "garbage": {"image": 1, "text": 1},
}
"""How many blocks of each kind a preset is for, at least; a stack counts as the blocks in it."""
