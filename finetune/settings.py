"""The ``[finetune]`` table: every key, its default and its meaning; ``--set key=value`` says the same."""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from finetune.presets import PRESETS
from store import InputError, Task, did_you_mean, spec_problems

Activation = Literal["relu", "gelu", "none"]
Kind = Literal["image", "fourier", "text", "metadata"]


def _several(value: Any) -> Any:
    """A single value is a list of one: ``--set freeze=backbone``."""
    return value if isinstance(value, list | tuple) else (value,)


def _or_none(value: Any) -> Any:
    """``none`` switches off what a preset has switched on."""
    return None if value == "none" else value


def _count_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"needs a number from 1 on, or 'auto' (got {value!r})")


def _task_weights(value: Any) -> Any:
    if value in ("equal", "uncertainty"):
        return value
    if isinstance(value, Mapping) and all(type(one) in (int, float) and one >= 0 for one in value.values()):
        return {str(task): float(one) for task, one in value.items()}
    raise ValueError(f"needs 'equal', 'uncertainty', or a number from 0 on for each task (got {value!r})")


Names = Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_several), Field(strict=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Auto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
Off = BeforeValidator(_or_none)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BranchSettings(_Table):
    """``[finetune.branches.NAME]``: how one block, or all blocks of one kind, become features."""

    encoder: Annotated[str | None, Off] = None
    """A timm, torchvision or transformers name, ``local-dir:PATH``, a folder, or ``residual``, a CNN from scratch;
    `backbone` or `text_backbone` when left out."""
    weights: Annotated[str | None, Off] = None
    """As `FinetuneSettings.weights`, for this branch alone."""
    norm: Literal["batch", "group", "instance"] = "batch"
    """Of ``residual``; ``instance`` and ``group`` allow batches of one."""
    channels: Literal["colour", "grey"] = "colour"
    """Of ``residual``: whether it sees colours or their mean."""
    narrow: Literal[1, 2, 4, 8, 16] = 1
    """Of ``residual``: all channels are divided by this."""
    pooling: Annotated[Literal["cls", "mean", "max"] | None, Off] = None
    """Of a text encoder's tokens; as its own configuration says when left out."""
    hidden: Widths = ()
    """Of metadata: layers before the last one, each with the activation."""
    width: Annotated[Annotated[int, Field(ge=1)] | None, Off] = None
    """A linear layer with this many outputs; without one the features go on as they are."""
    activation: Activation = "relu"
    """After each of these layers."""
    layer_norm: bool = False
    dropout: Dropout = 0.0


class AugmentSettings(_Table):
    """``[finetune.augment]``: of training rows only; one geometric draw for all images of a row."""

    hflip: Share = 0.0
    """Probability of a mirror image."""
    vflip: Share = 0.0
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotations up to this, either way."""
    translate: Share = 0.0
    """Shifts up to this share of the side, either way."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Zooms between 1 - scale and 1 + scale."""
    shear_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A resized crop has at least this share of the area; 1 crops nothing."""
    brightness: NotNegative = 0.0
    """Factors between 1 - brightness and 1 + brightness; so for contrast and saturation."""
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Turns of the colour circle up to this share, either way."""
    noise: Share = 0.0
    """Largest standard deviation of Gaussian noise, as a share of the range from black to white."""
    blur: NotNegative = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of the network's input."""
    mixup: NotNegative = 0.0
    """Alpha of MixUp; 0 switches it off."""
    cutmix: NotNegative = 0.0


class FinetuneSettings(_Table):
    """The whole ``[finetune]`` table."""

    preset: str | None = None
    """A study's architecture and training as a start: see `finetune.presets`."""
    backbone: str = "efficientnet_b0"
    """Of every image branch that has no encoder of its own."""
    text_backbone: str = "distilbert-base-uncased"
    weights: str = "pretrained"
    """``pretrained``, ``random``, or a file or folder."""
    blocks: Names = ()
    """Such as ``image:bf``, ``text:notes``, ``metadata``; all when left out."""
    modalities: Literal["separate", "shared", "stacked"] = "separate"
    """Several image blocks: a branch each; one encoder for all; or one encoder of 3 channels per block. Spectra always
    have an encoder of their own."""
    input_px: Annotated[Annotated[int, Field(ge=8)] | None, Off] = None
    """Side of the square that image encoders see; what the weights were made for when left out."""
    branches: dict[str, BranchSettings] = {}
    """By the block's name (``stack`` for the stacked ones, ``metadata``), or for all of a kind: ``image``, ``fourier``,
    ``text``."""
    fusion: Widths = ()
    """Layers over the concatenated features; without any, task heads are linear over them."""
    fusion_activation: Activation = "relu"
    fusion_layer_norm: bool = False
    fusion_dropout: Dropout = 0.0

    loss: Literal["mse", "huber"] = "mse"
    """Of regressions, on targets in training standard deviations."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    task_weights: Annotated[str | dict[str, float], BeforeValidator(_task_weights)] = "equal"
    """``equal``, ``uncertainty`` (learned), or a number per task; tasks that are not named have 1."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: Positive = 1e-4
    """Of the encoders' last layers."""
    head_lr: Positive = 1e-3
    """Of everything that starts untrained: projections, fusion, task heads."""
    weight_decay: NotNegative = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate falls by this factor with each layer towards the input."""
    freeze: Names = ()
    """Encoder layers that stay as they are, by the start of their names or as stages; ``backbone`` is all of them."""
    train_only: Names = ()
    """The reverse: of the encoders, only these layers train."""
    unfreeze_every: Annotated[Count | None, Off] = None
    """Epochs after which the next stage, from the last to the first, begins to train."""

    schedule: Literal["constant", "step", "cosine", "cosine_restarts"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    step_epochs: Count = 10
    """Of ``step``: epochs between two steps."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of ``step``: factor of each."""
    restart_epochs: Count = 10
    """Of ``cosine_restarts``: length of the first cycle (T0)."""
    restart_factor: Count = 2
    """Of ``cosine_restarts``: each cycle is this much longer than the one before (Tmult)."""
    min_lr: NotNegative = 0.0

    clip_norm: Annotated[Positive | None, Off] = 1.0
    """Gradients are clipped to this norm before the step."""
    accumulate: Count = 1
    """Batches per step."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: bfloat16 on a GPU that has it, else float32."""
    ema: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Off] = None
    """Decay of a moving average of the weights, which is then what is scored and kept."""
    sampling: str = "uniform"
    """``uniform``; ``balanced``, rare classes of all tasks more often; or a task's name, those of that one."""
    max_epochs: Count = 20
    patience: Count = 5
    """Epochs without a better one before training ends."""
    best_by: str = "mean"
    """``mean`` over the tasks' main metrics, ``loss``, or a task's name."""
    batch_size: Auto = 32
    """``auto``: the largest that fits."""
    workers: Annotated[Annotated[int, Field(ge=0)] | None, Off] = None
    """Processes that read images; by the number of cores when left out."""
    devices: Auto = "auto"
    """GPUs per node; all of them by default."""
    nodes: Count = 1

    init: Literal["auto", "heads", "backbone"] = "auto"
    """``heads``: task heads start from the linear solution on the features before training; ``backbone``: from random
    numbers; ``auto``: from the linear solution where encoders were trained and no layers lie in between."""
    convert: Annotated[Literal["random"] | None, Off] = None
    """``random`` draws one of the 12 conversions for every image and epoch; the blocks' own when left out."""
    onnx: bool = False
    """Also write the model as ``model.onnx``, checked against the network."""
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.freeze and self.train_only:
            raise ValueError("freeze and train_only both say what trains: keep one")
        return self

    def branch(self, name: str, kind: Kind) -> BranchSettings:
        """Return what holds for one branch: what is said of its name over what is said of its kind."""
        of_kind, own = (self.branches.get(key, BranchSettings()) for key in (kind, name))
        given = of_kind.model_dump(exclude_unset=True) | own.model_dump(exclude_unset=True)
        return BranchSettings.model_validate(given)

    def given(self) -> dict[str, Any]:
        """Return what the preset, the spec or the command line say, JSON values; all else has its default."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_settings(table: Mapping[str, Any], assignments: Sequence[str] = ()) -> FinetuneSettings:
    """Return the settings: the preset's values, over them the table's, over them the assignments.

    Args:
        table: The spec's ``[finetune]``.
        assignments: Such as ``lr=1e-4``, ``branches.bf.width=256``, ``freeze=["stem", "stages.0"]``: dotted keys with
            values as TOML has them, or a bare word.

    Raises:
        InputError: With every problem at once, misspelt keys with the nearest right one.
    """
    assigned, problems = _assigned(assignments)
    given = _merged(table, assigned)
    preset = given.get("preset")
    if isinstance(preset, str) and preset not in PRESETS:
        problems.append(f"unknown preset {preset!r}.{did_you_mean(preset, PRESETS)} There is {', '.join(PRESETS)}")
    if isinstance(preset, str):
        given = _merged(PRESETS.get(preset, {}), given)
    try:
        settings = FinetuneSettings.model_validate(given)
    except ValidationError as error:
        problems += spec_problems(error, FinetuneSettings, {"branches": BranchSettings, "augment": AugmentSettings})
    if problems:
        raise InputError("[finetune]: " + "; ".join(problems))
    return settings


def check_task_names(settings: FinetuneSettings, tasks: Mapping[str, Task]) -> None:
    """Raise an `InputError` that names `best_by`, `sampling` or both where the dataset has no such task."""
    if problems := [*_wrong_best_by(settings.best_by, tasks), *wrong_sampling(settings.sampling, tasks)]:
        raise InputError("[finetune]: " + "; ".join(problems))


def wrong_sampling(sampling: str, tasks: Mapping[str, Task]) -> list[str]:
    """Return what is wrong with `sampling`: nothing, or one sentence."""
    classed = [name for name, task in tasks.items() if task.kind == "classification"]
    if sampling == "uniform" or sampling in classed or (sampling == "balanced" and classed):
        return []
    known = ["uniform", "balanced", *classed] if classed else ["uniform"]
    hint = did_you_mean(sampling, known)
    return [f"sampling = {sampling!r}: there is no classification of that name.{hint} Expected {', '.join(known)}"]


def _wrong_best_by(by: str, tasks: Collection[str]) -> list[str]:
    if by in ("mean", "loss", *tasks):
        return []
    hint = did_you_mean(by, ["mean", "loss", *tasks])
    return [f"best_by = {by!r}: there is no such task.{hint} Or give mean, or loss"]


def _assigned(assignments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the table that assignments make, and what is wrong with some of them."""
    table: dict[str, Any] = {}
    problems: list[str] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {text!r}: expected key=value, such as lr=1e-4")
            continue
        nested = _parsed(value.strip())
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        table = _merged(table, nested)
    return table, problems


def _parsed(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with all that `above` says, table by table."""
    both = {
        key: _merged(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping)
    }
    return {**below, **above, **both}
