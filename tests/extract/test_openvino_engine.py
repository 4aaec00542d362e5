import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

FIRST_CALLS_AT_ONCE = """
import os, sys, threading, time
import numpy as np, openvino
from openvino import opset13 as ops
from extract.openvino_engine import OpenVinoEngine
pixels = ops.parameter(openvino.PartialShape([-1, 4, 4, 3]), np.uint8)
model = openvino.Model([ops.reduce_mean(ops.convert(pixels, "f32"), np.array([1, 2]), False)], [pixels])
OpenVinoEngine(model)
arrived, done, kind = [], [], openvino.Type.u8
sys.setswitchinterval(1e-6)
def ask():  # what every inference begins with
    arrived.append(1)
    while len(arrived) < 4:
        pass
    done.append(kind.to_dtype() == np.uint8)
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
time.sleep(1)
os._exit(0 if done == [True] * 4 else 1)
"""

ENGINES_MADE_AT_ONCE = """
import os, sys, threading, time
import numpy as np, openvino
from extract.openvino_engine import OpenVinoEngine
models, arrived, done = [openvino.Core().read_model(sys.argv[1]) for _ in range(4)], [], []
sys.setswitchinterval(1e-6)
def make(one):  # as several encoders of one extraction do
    arrived.append(1)
    while len(arrived) < 4:
        pass
    done.append(OpenVinoEngine(one)(np.full((2, 4, 4, 3), 7, np.uint8)).tolist() == [[7.0] * 3] * 2)
for one in models:
    threading.Thread(target=make, args=(one,), daemon=True).start()
deadline = time.monotonic() + 20
while len(done) < 4 and time.monotonic() < deadline:
    time.sleep(0.05)
os._exit(0 if done == [True] * 4 else 1)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_engines_made_by_several_threads_do_not_wait_for_each_other(attempt: int, tmp_path: Path) -> None:
    del attempt  # the warm-up itself may stand still where two threads are in it
    pixels = ops.parameter(openvino.PartialShape([-1, 4, 4, 3]), np.uint8)
    model = openvino.Model([ops.reduce_mean(ops.convert(pixels, "f32"), np.array([1, 2]), False)], [pixels])
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    command = [sys.executable, "-c", ENGINES_MADE_AT_ONCE, str(tmp_path / "model.xml")]
    assert subprocess.run(command, timeout=40, check=False).returncode == 0


@pytest.mark.parametrize("attempt", range(3))
def test_first_inferences_of_several_threads_do_not_wait_for_each_other(attempt: int) -> None:
    del attempt  # without the engine's warm-up one process in two stands still
    result = subprocess.run([sys.executable, "-c", FIRST_CALLS_AT_ONCE], timeout=30, check=False)
    assert result.returncode == 0
