"""Predictions arrive in parts and stand in one file."""

import errno
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from heads.output import write_predictions
from store import InputError, StoreError


def tables(n_parts, n_rows=5):
    for i in range(n_parts):
        yield pd.DataFrame({"id": [f"r{i}-{j}" for j in range(n_rows)], "dose": np.arange(n_rows) + i / 10})


def test_parts_are_the_whole(tmp_path):
    write_predictions(tables(4), tmp_path / "out.csv")
    pd.concat(list(tables(4))).to_csv(tmp_path / "whole.csv", index=False)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv", "whole.csv"]


def test_a_hundred_times_the_rows_need_no_more_memory(tmp_path):
    peaks = []
    for n_parts in (2, 200):
        tracemalloc.start()
        write_predictions(tables(n_parts, 1000), tmp_path / "out.csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_earlier_file_stays_until_the_last_part(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("earlier")

    def stopped():
        yield from tables(2)
        assert out.read_text() == "earlier"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(stopped(), out)
    assert out.read_text() == "earlier" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("out", ["", "absent/out.csv"])
def test_what_cannot_be_written_is_found_out_first(tmp_path, out):
    def never():
        raise AssertionError("asked for")
        yield

    with pytest.raises(InputError, match=r"cannot be written .*; give another --out"):
        write_predictions(never(), tmp_path / out)


def test_a_device_is_written_to_as_it_is():
    write_predictions(tables(2), Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(StoreError, match="disk is full"):
        write_predictions(tables(2), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_what_makes_the_tables_is_not_blamed_on_the_file(tmp_path):
    def broken():
        yield from tables(1)
        raise OSError("a picture")

    with pytest.raises(OSError, match="a picture"):
        write_predictions(broken(), tmp_path / "out.csv")
