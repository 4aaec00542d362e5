"""Text encoders from transformers: token vectors pooled to one vector per text."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engine import Precision
from extract.runner import ANY_RUNTIME, Runner, Runtime
from extract.weights import hub_folder, read_state, seeded, state_digest, weights_file
from store import FeatureSpace, InputError, json_key, one_line

if TYPE_CHECKING:
    import torch

TEXT_NAMES = (  # shown as suggestions; any other name on the hub works too
    "distilbert-base-uncased",
    "bert-base-uncased",
    "roberta-base",
    "sentence-transformers/all-MiniLM-L6-v2",
    "allenai/scibert_scivocab_uncased",
)
FAMILIES = ("albert", "bert", "camembert", "deberta", "distilbert", "distilroberta", "electra", "roberta", "xlm")
POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}  # sentence-transformers' 1_Pooling
NAME = "embedonce_name"  # key of config.json in a folder that `save_language` wrote: whose weights were tuned
TUNED_ON = "embedonce_tuned_on"  # and on which split, as `Backbone.tuned_on`
MAX_TOKENS = 512
BATCH_ROWS = 32


@dataclass(frozen=True)
class Language:
    """A text network with its tokenizer.

    Attributes:
        module: Takes token ids and mask, int64 ``(b, t)``, gives token vectors ``(b, t, d)``; in evaluation mode.
        tokenizer: The transformers tokenizer.
        architecture: Its name on the hub, or its model type for a local folder that does not say.
        preprocess: Length limit and the tokenizer's digest.
        pooling: ``"mean"``, ``"cls"`` or ``"max"``, as its sentence-transformers configuration says; else mean.
        dim: d.
        source: Where the weights came from, for people.
        tuned_on: As `Backbone.tuned_on`.
    """

    module: "torch.nn.Module"
    tokenizer: Any
    architecture: str
    preprocess: Mapping[str, Any]
    pooling: str
    dim: int
    source: str
    tuned_on: str = ""


class TextEncoder:
    """An `Encoder` of texts."""

    batch_size = BATCH_ROWS
    n_looks = 1

    def __init__(
        self, language: Language, space: FeatureSpace, *, provenance: Mapping[str, Any], runtime: Runtime = ANY_RUNTIME
    ) -> None:
        self.space = space
        self.provenance: Mapping[str, Any] | None = dict(provenance)
        self._tokenizer = language.tokenizer
        self._tokenizing = Lock()  # a fast tokenizer refuses to be used from two threads at once
        module = with_pooling(language.module, space.pooling)
        example = self._tokens(["a short text", "and one more"])
        self.runner = Runner(module, example, _cache_key(space), runtime, space.precision)

    def prepare(self, text: str) -> str:
        """Return the text as it is."""
        return text

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b texts; padding does not change a row.

        Raises:
            MemoryError: The batch does not fit on the device.
        """
        return self.runner(*self._tokens(batch))

    def _tokens(self, batch: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        with self._tokenizing:
            tokens = self._tokenizer(
                list(batch),
                padding=True,
                truncation=True,
                max_length=self.space.preprocess["max_tokens"],
                return_tensors="np",
            )
        ids, mask = (np.ascontiguousarray(tokens[key], dtype=np.int64) for key in ("input_ids", "attention_mask"))
        return ids, mask


def is_text_name(name: str) -> bool:
    """Whether it reads like a transformers model: a local folder, ``owner/name``, or a well-known family."""
    return Path(name).is_dir() or "/" in name or name in TEXT_NAMES or name.split("-")[0] in FAMILIES


def text_space(language: Language, *, precision: Precision) -> FeatureSpace:
    """Return the space of a text network's vectors."""
    return FeatureSpace(
        modality="text",
        encoder=language.architecture,
        dim=language.dim,
        weights_digest=state_digest(language.module.state_dict()),
        preprocess=language.preprocess,
        pooling=language.pooling,
        precision=precision,
    )


def load_language(name: str, *, weights: str = "pretrained", seed: int = 0) -> Language:
    """Return a text network and its tokenizer.

    Args:
        name: A name on the hub, or a local folder in transformers' form.
        weights: ``"pretrained"``, ``"random"`` (configuration and tokenizer are still those of `name`), or a file or
            folder.
        seed: For random weights.

    Raises:
        InputError: No such folder, out of reach, no text encoder, or weights of another network.
    """
    local = Path(name).is_dir()
    folder = Path(name) if local else hub_folder(name)
    with quiet():
        config, tokenizer = _read_folder(name, folder)
        module = _network(name, folder, config, weights, seed)
    preprocess = {"max_tokens": _max_tokens(folder, config, tokenizer), "tokenizer": _tokenizer_digest(tokenizer)}
    return Language(
        module=_bare(module),
        tokenizer=tokenizer,
        architecture=str(getattr(config, NAME, config.model_type)) if local else name,
        preprocess=preprocess,
        pooling=_pooling(folder),
        dim=int(config.hidden_size),
        source=f"random, seed {seed}" if weights == "random" else weights if weights != "pretrained" else str(folder),
        tuned_on=str(getattr(config, TUNED_ON, "")) if local and weights == "pretrained" else "",
    )


def with_pooling(module: "torch.nn.Module", pooling: str) -> "torch.nn.Module":
    """Return a module that takes token ids and mask, int64 ``(b, t)``, and gives ``(b, d)``; padding is left out."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return pool_tokens(self.network(input_ids=ids, attention_mask=mask, return_dict=False)[0], mask, pooling)

    return Pooled().eval()


def pool_tokens(tokens: "torch.Tensor", mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """Return ``(b, d)`` of token vectors ``(b, t, d)``: the first, the mean or the maximum; padding is left out."""
    if pooling == "cls":
        return tokens[:, 0]
    real = mask.unsqueeze(-1).to(tokens.dtype)
    if pooling == "max":
        return (tokens - (1 - real) * 1e9).amax(dim=1)
    return (tokens * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' log and progress bars out of the user's terminal: errors become `InputError`."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _read_folder(name: str, folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"'{name}' is no text encoder: {one_line(error)}") from None
    if not hasattr(config, "hidden_size") or getattr(config, "is_encoder_decoder", False):
        raise InputError(f"'{name}' ({config.model_type}) is no text encoder: expected one like DistilBERT or BERT")
    if tokenizer.pad_token is None:
        raise InputError(f"'{name}' is no text encoder: its tokenizer has no padding token")
    return config, tokenizer


def _network(name: str, folder: Path, config: Any, weights: str, seed: int) -> Any:
    import torch
    from transformers import AutoModel

    if weights != "pretrained":
        with seeded(seed):
            module = AutoModel.from_config(config)
        if weights != "random":
            _load(module, weights_file(Path(weights)))
        return module
    try:
        module, report = AutoModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the weights of '{name}' cannot be loaded: {one_line(error)}") from None
    _refuse_missing(report["missing_keys"], name)
    return module


def _bare(module: Any) -> "torch.nn.Module":
    module.loss_function = None  # else transformers logs a warning when a tracer looks at it
    module.pooler = None  # its weights are often missing from a checkpoint, and token vectors do not need it
    bare: torch.nn.Module = module.eval()
    return bare


def _load(module: Any, file: Path) -> None:
    """Load a state dict with or without the prefix that a task head's model puts before the encoder's names."""
    state, prefix = read_state(file), f"{module.base_model_prefix}."
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    try:
        missing = module.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise InputError(f"weights '{file}' do not fit: {one_line(error)}") from None
    _refuse_missing(missing, str(file))


def _refuse_missing(keys: Sequence[str], name: str) -> None:
    needed = sorted(key for key in keys if not key.startswith("pooler.") and not key.endswith("position_ids"))
    if needed:
        raise InputError(f"the weights of '{name}' lack {len(needed)} of the encoder's tensors, such as '{needed[0]}'")


def _max_tokens(folder: Path, config: Any, tokenizer: Any) -> int:
    limits = [MAX_TOKENS, tokenizer.model_max_length, getattr(config, "max_position_embeddings", MAX_TOKENS)]
    if (configured := _read_json(folder / "sentence_bert_config.json").get("max_seq_length")) is not None:
        limits.append(configured)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        limits[2] -= 2  # positions begin after the padding index: transformers modeling_roberta.py
    return int(min(limits))


def _pooling(folder: Path) -> str:
    config = _read_json(folder / "1_Pooling" / "config.json")
    return next((name for key, name in POOLINGS.items() if config.get(key)), "mean")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tokenizer_digest(tokenizer: Any) -> str:
    """Return the sha256 (hex) of what decides the tokens, without the state of padding and truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = sorted(tokenizer.get_vocab().items())
    else:
        content = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
    return json_key(content)


def _cache_key(space: FeatureSpace) -> str:
    """What a converted model depends on: the network with its weights and pooling, and who converted it."""
    versions = [version(name) for name in ("openvino", "transformers", "torch")]
    return json.dumps([1, versions, space.encoder, space.weights_digest, space.pooling])
