"""Benchmarks can be started; what they measure is theirs to say. Extraction's loops also run, on a few images."""

import importlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import bench_extract
from tests.benchmarks.bench_extract import How, make_images, plain, read_options, timm_loader

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_imports_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which some set for themselves
    assert f"tests/benchmarks/{name}.py" in str(importlib.import_module(f"tests.benchmarks.{name}").__doc__)


def test_the_number_of_images_suits_the_device_and_exceeds_a_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_options([]).images == 400
    monkeypatch.setattr(bench_extract, "resolve_device", lambda device: device)
    options = read_options(["--device", "cuda"])
    assert (options.device, options.images) == ("cuda", 4096)
    for words, largest in ((["--images", "32"], 32), (["--device", "cuda", "--images", "256"], 256)):
        with pytest.raises(SystemExit):
            read_options(words)
        assert f"expected more than {largest}, since" in capsys.readouterr().err
    assert read_options(["--device", "cuda", "--images", "257"]).images == 257


def test_a_device_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        read_options(["--device", "cuda"])
    assert "error: --device cuda: there is no GPU that torch can use here" in capsys.readouterr().err


def test_a_gpus_runs_are_both_precisions_at_both_batches(tmp_path: Path) -> None:
    options = read_options(["--images", "64"])
    options.device = "cuda"
    runs = bench_extract.contest(None, tmp_path, "jpg", "test_resnet", options)  # type: ignore[arg-type]
    loops = [f"{loop}{mark}_bs{size}" for loop in ("plain", "timm") for mark in ("", "_bfloat16") for size in (32, 256)]
    own = [f"{run}{mark}" for run in ("ours", "decode", "forward") for mark in ("", "_bfloat16")]
    assert sorted(runs) == sorted([*loops, *own])
    assert all(args[-1].device == "cuda" and n == 64 for _, args, n in runs.values())
    assert "timm_bs32" not in bench_extract.contest(None, tmp_path, "tif16", "test_resnet", options)  # type: ignore[arg-type]


def test_loops_in_lower_precision_embed_the_same_images(tmp_path: Path) -> None:
    make_images(tmp_path / "jpg", "jpg", 6)
    exact, seconds = plain(tmp_path / "jpg", "test_resnet", 6, 2)
    assert exact is not None and exact.shape == (6, 96) and exact.dtype == np.float32 and seconds > 0
    for loop in (plain, timm_loader):
        lower, _ = loop(tmp_path / "jpg", "test_resnet", 6, 2, How("cpu", "bfloat16"))
        assert lower is not None and 0 < bench_extract.relative_error(lower, exact) < 0.05


def _start_method() -> str | None:
    return multiprocessing.get_start_method()


def test_loops_start_their_workers_as_a_users_program_does() -> None:
    contestants = bench_extract.Contestants()
    assert contestants._theirs.submit(_start_method).result() == multiprocessing.get_all_start_methods()[0]
    contestants.close()


@pytest.mark.slow
def test_extraction_is_measured_from_files_to_ratios(tmp_path: Path) -> None:
    words = ["--encoder", "test_resnet", "--format", "png", "--images", "40", "--repeats", "1"]
    command = [sys.executable, str(FOLDER / "bench_extract.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    [line] = map(json.loads, done.stdout.splitlines())
    assert line["device"] == "cpu" and line["relative_error"].keys() == {"plain", "timm"}
    assert {"ours/plain_bs32", "ours/timm_bs32", "ours/limit"} <= line["ratios"].keys() and len(line["met"]) == 3
    rates = line["images_per_second"]
    assert line["ratios"]["ours/plain_bs32"] == pytest.approx(
        rates["ours"]["median"] / rates["plain_bs32"]["median"], rel=0.1
    )
