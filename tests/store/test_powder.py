import csv
import io
from collections import Counter, defaultdict

import numpy as np
import pytest
import tifffile
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from extract.convert import to_8bit
from store.reader import load_dataset
from store.samples import write_sample
from store.samples.powder import COLUMNS, N_ROWS, tables
from store.samples.powder_picture import draw, heap, lobes, sphere, stone, tiles
from store.samples.powder_plan import N_TILES, PARTS, PROCESSES, make_field, part_of, powders

N_FIELDS = N_ROWS // N_TILES


@pytest.fixture(scope="module")
def texts():
    return tables(0, N_ROWS)


@pytest.fixture(scope="module")
def rows(texts):
    return list(csv.DictReader(io.StringIO(texts["all_data.csv"])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample("powder", tmp_path_factory.mktemp("sample") / "powder", n_rows=24).parent


# ---- the tables


def test_study_tables_have_its_columns_and_every_row_once(texts, rows):
    parts = {name: list(csv.DictReader(io.StringIO(texts[f"{name}_data.csv"]))) for name in PARTS}
    assert all(tuple(table[0]) == COLUMNS for table in parts.values())
    paths = [row["image_path"] for table in parts.values() for row in table]
    assert len(set(paths)) == len(paths) == N_ROWS
    assert sorted(paths) == sorted(row["image_path"] for row in rows)
    assert len(parts["train"]) / N_ROWS == pytest.approx(0.7, abs=0.03)


def test_every_powder_stands_in_all_three_tables(texts):
    names = {p: {row["powder_name"] for row in csv.DictReader(io.StringIO(texts[f"{p}_data.csv"]))} for p in PARTS}
    assert len(names["train"]) == 38
    assert len(names["train"] & names["test"]) >= 28


def test_targets_are_constant_per_powder_and_carr_index_is_exact(rows):
    found = defaultdict(set)
    for row in rows:
        found[row["powder_name"]].add((row["AOR"], row["HR"], row["CI"], row["Flow_rate"]))
        assert float(row["CI"]) == 100 * (1 - 1 / float(row["HR"]))
    assert len(found) == 38
    assert {len(values) for values in found.values()} == {1}


def test_scaled_magnification_is_the_studys(rows):
    for row in rows:
        expected = (np.log(int(row["magnification"])) - 6.68116) / 0.55611
        assert float(row["magnification_scaled"]) == pytest.approx(expected, abs=1e-6)


def test_row_is_the_same_however_many_rows_there_are(texts):
    few = tables(0, 9)
    assert texts["all_data.csv"].startswith(few["all_data.csv"])
    assert [part_of(0, row) for row in range(3)] == ["train", "val", "test"]


def test_200_000_rows_are_planned_with_the_same_38_powders():
    at_the_end = make_field(0, 49_999)
    assert at_the_end.powder in powders(0)
    assert at_the_end.tile_name(3).endswith(f"X_f{49_999 // 38:03d}_t3.tif")
    counts = Counter(make_field(0, index).magnification for index in range(76, 4_000))
    assert counts[500] / sum(counts.values()) == pytest.approx(0.27, abs=0.02)
    assert len(counts) == 11


# ---- the planted truth


@pytest.mark.parametrize("seed", range(4))
def test_labels_lie_where_real_powders_do(seed):
    flows = [powder.flow for powder in powders(seed)]
    times = [flow.hall_s for flow in flows if flow.hall_s is not None]
    assert len(flows) == 38
    assert 18 <= len(times) <= 25  # the study: 21
    assert all(20 < flow.angle_of_repose < 62 for flow in flows)
    assert all(1.02 < flow.hausner_ratio < 2.1 for flow in flows)
    assert 12 < min(times) < 35 and 100 < max(times) <= 200


def test_magnification_alone_says_nothing_and_beside_the_picture_it_does():
    fields = [make_field(0, index) for index in range(8 * 38)]
    size_px = [np.log(field.powder.particles.d50_um / field.um_per_px) for field in fields]
    shape = [field.powder.particles.sphericity for field in fields]
    magnification = [np.log(field.magnification) for field in fields]
    y = np.log([field.powder.flow.hausner_ratio - 1 for field in fields])
    groups = [field.powder.name for field in fields]
    assert _r2(np.c_[magnification], y, groups) < 0.02
    picture, both = np.c_[size_px, shape], np.c_[size_px, shape, magnification]
    assert _r2(both, y, groups) > _r2(picture, y, groups) + 0.2


def _r2(X, y, groups):
    model = make_pipeline(StandardScaler(), RidgeCV())
    return r2_score(y, cross_val_predict(model, X, y, groups=groups, cv=GroupKFold(5)))


def test_session_gives_a_powder_away_to_a_random_split_only():
    fields = [make_field(0, index) for index in range(8 * 38)]
    session = [[*f.powder.hum, f.powder.beam.dose_e, f.powder.beam.blur_px, f.powder.beam.side] for f in fields]
    y = np.array([field.powder.flow.angle_of_repose for field in fields])
    groups = [field.powder.name for field in fields]
    model = ExtraTreesRegressor(50, random_state=0)
    random = cross_val_predict(model, session, y, cv=KFold(5, shuffle=True, random_state=0))
    grouped = cross_val_predict(model, session, y, groups=groups, cv=GroupKFold(5))
    assert r2_score(y, random) > 0.95
    assert r2_score(y, grouped) < 0.2


def test_conditional_task_applies_where_a_powder_flows_only(folder):
    dataset = load_dataset(folder / "dataset.toml")
    task, flowable = dataset.tasks["Flow_rate"], dataset.tasks["flowable"]
    assert flowable.classes == ("no", "yes")
    assert task.applies.tolist() == (flowable.y == 1).tolist()
    assert task.labelled.tolist() == task.applies.tolist()
    assert 0 < task.applies.sum() < dataset.n_rows


def test_study_split_reads_the_same_images(folder):
    study, grouped = (load_dataset(folder / name / "dataset.toml") for name in ("study", "."))
    assert {str(role) for role in study.given_split} == set(PARTS)
    assert study.groups is None and set(grouped.groups) <= {powder.name for powder in powders(0)}
    assert sorted(study.images["sem"].keys()) == sorted(grouped.images["sem"].keys())


# ---- the pictures


def test_tiles_are_the_parts_of_a_field(folder):
    field = make_field(0, 0)
    picture = draw(field)
    cut = tiles(picture)
    assert np.array_equal(np.vstack([np.hstack(cut[:2]), np.hstack(cut[2:])]), picture)
    assert np.array_equal(tifffile.imread(folder / "images" / field.tile_name(2)), cut[2])


def test_pictures_use_a_small_part_of_16_bits():
    for index in (0, 7):
        picture = draw(make_field(0, index))
        assert picture.dtype == np.uint16
        assert len(np.unique(to_8bit(picture, "fixed"))) < 90  # of 256: a careless conversion loses most
        assert len(np.unique(to_8bit(picture, "percentile_clip"))) > 240
        assert picture.max() < 65_535


def test_higher_magnification_shows_larger_particles():
    powder = make_field(0, 1).powder
    at = {make_field(0, 1 + 38 * n).magnification: make_field(0, 1 + 38 * n) for n in range(2)}
    low, high = (_correlation_px(heap(np.random.default_rng(0), at[m])) for m in (500, 1000))
    assert high / low == pytest.approx(2.0, rel=0.3)
    assert low == pytest.approx(powder.particles.d50_um / at[500].um_per_px, rel=0.6)


def _correlation_px(height):
    """Twice the lag at which the autocorrelation of the heights falls to half."""
    spectrum = np.abs(np.fft.fft2(height - height.mean())) ** 2
    correlation = np.fft.ifft2(spectrum).real
    along = (correlation[0, :128] + correlation[:128, 0]) / (2 * correlation[0, 0])
    return 2 * int(np.argmax(along < 0.5))


def test_shapes_differ_from_a_sphere_as_their_sphericity_says():
    grid = np.arange(-80, 81, dtype=np.float32)
    y, x = grid[:, None], grid[None, :]
    ball = sphere(50.0)(y, x)
    assert ball.max() == 50.0
    assert (ball > 0).sum() == pytest.approx(np.pi * 2500, rel=0.01)
    for make in (lobes, stone):
        outline = {
            value: np.mean([_roundness(make(np.random.default_rng(n), 50.0, value)(y, x)) for n in range(12)])
            for value in (0.62, 0.9)
        }
        assert outline[0.62] < outline[0.9] - 0.02


def _roundness(top):
    """Area of the outline over that of the circle around it."""
    y, x = np.nonzero(top > -1e5)
    centre = y.mean(), x.mean()
    return len(y) / (np.pi * np.max((y - centre[0]) ** 2 + (x - centre[1]) ** 2))


def test_every_process_is_drawn():
    assert {powder.process for powder in powders(0)} == set(PROCESSES)
    crowded = Counter(powder.process for powder in powders(0))
    assert min(crowded.values()) >= 6
