import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from extract import weights
from extract.weights import WeightsError, read_state, seeded, state_digest, weights_file
from store import InputError


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A server that takes connections and never answers, as behind a black-hole network."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_digest_is_that_of_names_types_shapes_and_values() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    reference = state_digest(state)
    assert reference == state_digest(dict(reversed(state.items())))
    assert reference == state_digest({"a": state["a"].t().contiguous().t(), "b": state["b"]})
    assert reference != state_digest({"c": state["a"], "b": state["b"]})
    assert reference != state_digest({"a": state["a"].reshape(3, 2), "b": state["b"]})
    assert reference != state_digest({"a": state["a"].double(), "b": state["b"]})
    assert reference != state_digest({"a": state["a"] + 1, "b": state["b"]})
    assert state_digest({"h": torch.ones(2, dtype=torch.bfloat16)}) != state_digest({"h": torch.ones(2)})


def test_seeded_repeats_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)


def test_folder_stands_for_the_weights_inside(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"
    assert torch.equal(read_state(weights_file(tmp_path))["a"], torch.ones(2))


def test_state_dicts_of_both_formats_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "x.pth")
    assert torch.equal(read_state(tmp_path / "x.pth")["a"], torch.ones(2))


def test_missing_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file or a folder"):
        weights_file(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"a folder with one of model\.safetensors"):
        weights_file(tmp_path)
    for name in ("x.safetensors", "x.pth"):
        (tmp_path / name).write_bytes(b"these are no weights at all")
        with pytest.raises(InputError, match=name):
            read_state(tmp_path / name)
    torch.save({"a": 1}, tmp_path / "y.pth")
    with pytest.raises(InputError, match="more than tensors"):
        read_state(tmp_path / "y.pth")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Harmful()}, "x.pth")
    with pytest.raises(InputError, match="cannot be read as tensors only"):
        read_state(Path("x.pth"))
    assert not Path("harmed").exists()


def test_silent_hub_is_noticed_within_ten_seconds(tmp_path: Path, silent_endpoint: str) -> None:
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    script = """
        import time
        from extract.network import Options
        from tests.extract.made import make_encoder
        from extract.weights import WeightsError
        from store import ImageBlock, TextBlock
        start = time.perf_counter()
        for name, block in (
            ("test_resnet", ImageBlock("bf", (), "none")),
            ("distilbert-base-uncased", TextBlock("notes", ())),
            ("test_vit", ImageBlock("bf", (), "none")),
        ):
            try:
                make_encoder(name, block)
            except WeightsError as error:
                print(error)
            if name == "test_resnet":
                print("seconds", time.perf_counter() - start)
        print("seconds", time.perf_counter() - start)
    """
    variables = {"HF_ENDPOINT": silent_endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split("'")[1] for line in lines if "out of reach" in line] == [
        "test_resnet",
        "distilbert-base-uncased",
        "test_vit",
    ]
    assert all(float(line.split()[1]) < 20 for line in lines if line.startswith("seconds"))  # imports included


def test_probe_gives_up_in_time_and_remembers(silent_endpoint: str) -> None:
    start = time.perf_counter()
    assert "does not answer" in (weights.unreachable(silent_endpoint) or "")
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    assert weights.unreachable(silent_endpoint)
    assert time.perf_counter() - start < 0.5


def test_refused_connection_names_the_three_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(WeightsError, match=r"out of reach.*Connect once.*FILE-OR-FOLDER.*--weights random"):
            weights.hub_file("efficientnet_b0", "timm/efficientnet_b0.ra_in1k", ["model.safetensors"])


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights, "_probe", lambda url: pytest.fail("asked the network"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        weights.url_file("shufflenet_v2_x1_0", "https://example.org/shufflenet.pth")


def test_cached_file_is_used_without_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_probe", lambda url: pytest.fail("asked the network"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net.pth").write_bytes(b"x")
    assert weights.url_file("net", "https://example.org/a/net.pth") == tmp_path / "checkpoints" / "net.pth"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_a, **_k: str(tmp_path / "model.safetensors"))
    assert weights.hub_file("net", "owner/net", ["model.safetensors"]) == tmp_path / "model.safetensors"
