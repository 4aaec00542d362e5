import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from extract import openvino_engine
from extract.backbone import with_normalisation
from extract.engine import relative_error
from extract.openvino_engine import OpenVinoEngine, cache_folder
from extract.runner import SMALL_JOB, Choice, Runner, Runtime
from tests.extract.networks import NORMALISE, images, network


def runner(*, engine: Choice = "auto", expected: int | None = None) -> Runner:
    return Runner(network(), (images(2),), "key", Runtime("cpu", engine), expected=expected)


def test_small_job_runs_without_compiling_unless_that_was_done_before() -> None:
    first = runner(expected=SMALL_JOB - 1)
    first(images(2))
    assert first.engine.name == "torch"
    assert not first.note
    large = runner(expected=SMALL_JOB)
    assert large.engine.name == "openvino"
    assert runner(expected=3).engine.name == "openvino"


def test_converted_model_is_kept_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    want = runner(engine="openvino")(images(5))
    monkeypatch.setattr(openvino_engine, "convert", lambda *_: pytest.fail("converted again"))
    assert np.array_equal(runner(engine="openvino")(images(5)), want)


def test_networks_that_begin_together_are_all_converted() -> None:
    names = ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]
    made = [Runner(network(name), (images(2),), name, Runtime("cpu")) for name in names]
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda one: one(images(2)), made))
    assert [(one.describe()[1], one.note) for one in made] == [("openvino", "")] * len(made)


def test_damaged_cache_is_not_used() -> None:
    want = runner(engine="openvino")(images(2))
    (file,) = cache_folder().glob("*/model.bin")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert np.array_equal(runner(engine="openvino")(images(2)), want)
    assert file.read_bytes() != content


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = runner(engine="openvino")
    assert made(images(2)).shape == (2, 96)
    assert made.engine.name == "openvino"


def test_model_that_does_not_convert_runs_on_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No conversion rule found for operations: aten::odd\nmore lines")

    monkeypatch.setattr(openvino_engine, "convert", refuse)
    made = runner()
    assert made(images(2)).shape == (2, 96)
    assert made.engine.name == "torch"
    assert made.note.endswith("torch runs it: No conversion rule found for operations: aten::odd")


def test_engine_that_gives_other_vectors_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoEngine, "__call__", lambda self, *arrays: np.ones((len(arrays[0]), 96), np.float32))
    made = runner()
    assert made.engine.name == "torch"
    assert "differ from eager float32" in made.note
    assert not list(cache_folder().glob("*/model.bin"))


def test_no_engine_is_made_before_the_first_batch() -> None:
    made = runner()
    assert made.describe() == ("cpu", "none")
    made(images(1))
    assert made.describe() == ("cpu", "openvino")


def compiled(engine: Choice, module: torch.nn.Module | None = None) -> Runner:
    return Runner(module or network(), (images(2),), "key", Runtime("cpu", engine, is_compiled=True))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler, and there is no c++ here")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_compiled_network_gives_the_same_vectors() -> None:
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    module = with_normalisation(torch.nn.Sequential(*layers, torch.nn.Flatten()).eval(), NORMALISE)
    made, plain, pictures = (
        compiled("torch", module),
        Runner(module, (images(2),), "", Runtime("cpu", "torch")),
        images(5),
    )
    assert relative_error(made(pictures), plain(pictures)) < 1e-4
    assert made.note == ""
    assert type(made.engine._module).__name__ == "OptimizedModule"  # type: ignore[attr-defined]


def test_network_that_cannot_be_compiled_runs_as_it_is_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nmore lines")

    want = runner(engine="torch")(images(3))
    monkeypatch.setattr(torch, "compile", refuse)
    made = compiled("torch")
    assert np.array_equal(made(images(3)), want)
    assert made.note == "torch cannot compile this model, so it runs as it is: Failed to find C compiler."


def test_compiled_network_with_other_vectors_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: lambda *inputs: module(*inputs) * 1.01)
    made = compiled("torch")
    assert np.array_equal(made(images(3)), runner(engine="torch")(images(3)))
    assert made.note.endswith("its vectors differ by 1.0e-02, more than 0.0001")


def test_where_openvino_runs_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda _: pytest.fail("compiled"))
    made = compiled("auto")
    made(images(2))
    assert (made.engine.name, made.note) == ("openvino", "--compile is for torch, and OpenVINO runs this")
