"""Fixtures that every package's tests use: a tiny dataset on disk, and the shared real data."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of real images and weights; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real images and weights), which is absent")
    return SHARED


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write a dataset of 24 tiny 12-bit images of two textures and return its dataset.toml."""

    def make(extra: str = "", *, table: str = "labels.csv", n_rows: int = 24, folder: Path = tmp_path) -> Path:
        rng = np.random.default_rng(0)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        lines = ["sample,file,kind,size,magnification,specimen,note"]
        stripes = (1500 + 300 * np.sin(np.arange(64) / 3))[None, :]
        for i in range(n_rows):
            striped = i % 2 == 0
            pixels = rng.normal(0, 60, (64, 64)) + (stripes if striped else 1500)
            name = f"s_{200 + 100 * (i % 3)}X_{i:02d}.tif"
            tifffile.imwrite(folder / "images" / name, np.clip(pixels, 0, 4095).astype(np.uint16))
            kind = "striped" if striped else "plain"
            lines.append(f"r{i:02d},{name},{kind},{i + 0.5},{200 + 100 * (i % 3)},g{i // 3},a {kind} one")
        (folder / table).write_text("\n".join(lines) + "\n")
        spec = folder / "dataset.toml"
        spec.write_text(
            f'name = "tiny"\ntable = "{table}"\nroot = "images"\nid = "sample"\ngroup = "specimen"\n'
            '[images.bf]\ncolumn = "file"\n[metadata.magnification]\npattern = \'_(\\d+)X_\'\ntransform = "log"\n'
            '[tasks.kind]\ncolumn = "kind"\n' + extra
        )
        return spec

    return make


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3-compatible server on this machine, over real HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket; the environment says where its server is and who asks."""
    import fsspec.asyn
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no ~/.aws of whoever runs the tests
    name = f"test-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    for files in s3fs.S3FileSystem._cache.values():
        if files._s3 is not None:
            fsspec.asyn.sync(files.loop, files._s3.__aexit__, None, None, None)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list["Figure"]:
    """Every chart that is made, as a figure."""
    from heads import chart, error_chart, figure

    figures: list[Figure] = []

    def keep(size: tuple[float, float]) -> "Figure":
        figures.append(make(size))
        return figures[-1]

    make = figure.make_figure
    for module in (figure, chart, error_chart):
        monkeypatch.setattr(module, "make_figure", keep)
    return figures
