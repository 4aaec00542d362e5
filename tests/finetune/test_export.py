from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune import export
from finetune.bundle import load_bundle
from finetune.export import export_onnx
from finetune.loaders import score_loader
from store import InputError
from tests.finetune.made import text_folder
from tests.finetune.small import N_ROWS, make_dataset
from tests.finetune.test_bundle import BF, WHOLE, saved, trained


@pytest.mark.slow
def test_an_exported_network_predicts_what_the_bundle_predicts(tmp_path: Path) -> None:
    import openvino

    dataset = make_dataset(tmp_path / "data", WHOLE)
    branches = {"text": {"encoder": str(text_folder(tmp_path / "distilbert"))}}
    network = trained(dataset, branches=branches, fusion=[16])
    saved(tmp_path / "bundle", dataset, network)
    found = export_onnx(tmp_path / "bundle")
    assert found["file"] == str(tmp_path / "bundle" / "model.onnx") and 0 <= found["error"] < 1e-4
    model = openvino.Core().compile_model(found["file"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [port.any_name for port in model.inputs] == ["bf", "spectrum", "notes_ids", "notes_mask", "metadata"]
    [batch] = score_loader(dataset, network, np.arange(N_ROWS), batch_size=N_ROWS).loader
    inputs: Any = batch.inputs
    arrays = [inputs["bf"], inputs["spectrum"], *inputs["notes"], inputs["metadata"]]
    got = {port.any_name: value for port, value in model([array.numpy() for array in arrays]).items()}
    want, _ = load_bundle(tmp_path / "bundle").predict(dataset, device="cpu")
    np.testing.assert_allclose(got["kind"], want[["kind_p_a", "kind_p_b"]], atol=1e-4)
    np.testing.assert_allclose(got["size"], want[["size_long", "size_wide"]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["flow"][:, 0], want["flow"], rtol=1e-4, atol=1e-4)


def test_a_file_with_other_numbers_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    saved(tmp_path / "bundle", dataset, trained(dataset))
    monkeypatch.setattr(export, "_export", lambda network, path: path.write_bytes(b"x"))
    monkeypatch.setattr(export, "_largest_error", lambda network, path: 0.5)
    with pytest.raises(InputError, match=r"its numbers differ from the network's by 5.0e-01, so it is not kept"):
        export_onnx(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "model.onnx").exists()
    monkeypatch.setattr(export, "_largest_error", lambda network, path: float("nan"))
    with pytest.raises(InputError, match="differ"):
        export_onnx(tmp_path / "bundle")


def test_a_network_that_cannot_be_exported_is_one_line_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such\noperator")

    dataset = make_dataset(tmp_path / "data", BF)
    saved(tmp_path / "bundle", dataset, trained(dataset))
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(InputError, match=r"cannot be exported to ONNX: no such operator. The bundle is kept"):
        export_onnx(tmp_path / "bundle")
    load_bundle(tmp_path / "bundle")
