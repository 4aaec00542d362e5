import csv
import io
import tomllib

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from extract.spectrum import spectrum_image
from store.reader import load_dataset
from store.samples import write_sample
from store.samples.grating import CHANNELS, channels
from store.samples.grating_picture import NM_PER_PX, draw
from store.samples.reflectance import DATASET_TOML, N_ROWS, NOISE, make_grating, make_view, table_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample("reflectance", tmp_path_factory.mktemp("sample") / "reflectance", n_rows=12).parent


def test_table_has_the_path_first_and_ten_channels_by_position(folder):
    rows = list(csv.reader(io.StringIO((folder / "reflectance.csv").read_text())))
    assert rows[0] == ["SEM_filenames", "UV", "B", "G", "R", "740", "940", "fB", "fG", "fR", "poldiff"]
    values = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    assert values.shape == (12, 10)
    assert (values >= 0).all() and (values <= 1).all()
    assert all((folder / row[0]).is_file() for row in rows[1:])


def test_values_are_the_physics_plus_a_little_noise():
    rows = list(csv.reader(io.StringIO(table_text(0, 200))))[1:]
    given = np.array([[float(cell) for cell in row[1:]] for row in rows])
    exact = np.array([list(channels(make_grating(0, row)).values()) for row in range(200)])
    inside = (given > 0) & (given < 1) & (exact > 3 * NOISE)
    assert (given - exact)[inside].std() == pytest.approx(NOISE, rel=0.05)


def test_dataset_reads_channels_by_position_with_the_studys_weights(folder):
    dataset = load_dataset(folder / "dataset.toml")
    task = dataset.tasks["reflectance"]
    assert task.columns == CHANNELS
    assert task.weights.tolist() == [3, 4, 4, 4, 4, 4, 1, 1, 1, 1]
    assert [block.view for block in dataset.images.values()] == ["plain", "fourier"]
    assert tomllib.loads(DATASET_TOML)["images"]["sem"]["column"] == 0


def test_structure_is_a_dataset_of_the_same_pictures(folder):
    truth, measured = (load_dataset(folder / name / "dataset.toml") for name in ("structure", "."))
    assert truth.images["sem"].keys() == measured.images["sem"].keys()
    expected = [make_grating(0, row).period_nm for row in range(12)]
    assert truth.tasks["period"].y[:, 0] == pytest.approx(expected, abs=0.05)
    assert truth.tasks["kind"].classes == ("lines", "pillars")


def test_pictures_are_256_px_of_8_bits_and_fill_the_range(folder):
    pictures = [np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())]
    assert {(p.shape, p.dtype.name) for p in pictures} == {((256, 256), "uint8")}
    assert all(100 < np.percentile(p, 99.5) <= 250 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 12


def test_row_is_the_same_however_many_rows_there_are():
    assert table_text(0, 30).startswith(table_text(0, 7))
    far = make_grating(0, 199_999)
    assert 250 <= far.period_nm <= 1600 and 0.3 <= far.duty <= 0.7


def test_surfaces_fill_their_ranges_evenly():
    made = [make_grating(0, row) for row in range(N_ROWS)]
    assert sum(g.kind == "pillars" for g in made) / N_ROWS == pytest.approx(0.3, abs=0.02)
    assert np.median([g.period_nm for g in made]) == pytest.approx((250 * 1600) ** 0.5, rel=0.03)
    table = np.array([[np.log(g.period_nm), g.duty, g.height_nm, g.dye] for g in made])
    assert np.abs(np.corrcoef(table.T) - np.eye(4)).max() < 0.1


def test_peak_of_the_spectrum_lies_at_the_period_or_a_harmonic():
    found, expected = [], []
    for row in (n for n in range(60) if make_grating(0, n).kind == "lines"):
        picture = draw(make_grating(0, row), make_view(0, row)).astype(float)
        power = np.abs(np.fft.fft2((picture - picture.mean()) * np.outer(np.hanning(256), np.hanning(256)))) ** 2
        power[:, :2] = power[:, -2:] = 0
        y, x = np.unravel_index(np.argmax(power[:, :60]), (256, 60))
        cycles = np.hypot(min(y, 256 - y), x)
        found.append(256 * NM_PER_PX / cycles)
        expected.append(make_grating(0, row).period_nm)
    harmonic = np.array(expected) / found  # 2 where the two edges of a line are what is bright
    assert (np.abs(harmonic - np.rint(harmonic)) < 0.12 * harmonic).mean() > 0.9
    assert (np.rint(harmonic) <= 2).mean() > 0.7


def test_fourier_view_wins_on_periodicity_for_an_encoder_that_sees_where_things_are():
    pictures = [draw(make_grating(0, row), make_view(0, row)) for row in range(120)]
    y = np.log([make_grating(0, row).period_nm for row in range(120)])
    plain = _r2([_pixels(picture) for picture in pictures], y)
    fourier = _r2([_pixels(spectrum_image(picture)) for picture in pictures], y)
    assert plain < 0.15
    assert fourier > 0.5


def _pixels(image):
    """The simplest encoder: the image itself, 32 x 32."""
    return cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel().astype(float)


def _r2(X, y):
    model = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(7)))
    return r2_score(y, cross_val_predict(model, np.array(X), y, cv=KFold(5, shuffle=True, random_state=0)))
