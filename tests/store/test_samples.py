import csv
import re
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from store import samples
from store.errors import InputError
from store.prediction import prediction_dataset
from store.reader import load_dataset
from store.samples import SAMPLES, write_sample
from store.samples.micrograph import MATERIALS, MAX_COUNT, Optics, nm_per_px, record, smooth_field
from store.samples.shapes import cube, make_polygon, make_window, rod, sphere
from store.samples.tem import N_ROWS, N_UNLABELLED, table_row
from store.samples.tem_picture import draw
from store.samples.tem_scene import CONFUSED, LABEL_NOISE, MISSING, NANO_NM, TASKS, labels, make_scene, truth
from store.table import read_table

N_SMALL = 6
FILE_NAME = re.compile(r"^(GO|RGO|FLG|GNP|CB|AU|SIO|ZNO|CNT)_\d{2}_(\d+)X_\d{4}\.tif$")


@pytest.fixture(scope="module", autouse=True)
def few_rows_will_do():
    """Most tests look at a few pictures, of which no dataset could be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "SAMPLES", {name: one._replace(min_rows=1) for name, one in SAMPLES.items()})
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "tem"
    write_sample("tem", folder, n_rows=N_SMALL)
    return folder


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(0, row) for row in range(N_ROWS)]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- every sample


@pytest.mark.parametrize("name", list(SAMPLES))
def test_same_seed_gives_the_same_bytes(name, tmp_path):
    for folder in ("a", "b"):
        write_sample(name, tmp_path / folder, n_rows=3, seed=5)
    write_sample(name, tmp_path / "other", n_rows=3, seed=6)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    images = [
        {c for n, c in _files(tmp_path / f).items() if "toml" not in n and n != "misfiled.csv"} for f in ("a", "other")
    ]
    assert not images[0] & images[1]


@pytest.mark.parametrize("name", list(SAMPLES))
def test_spec_names_the_sample_and_every_file_exists(name, tmp_path):
    dataset = load_dataset(write_sample(name, tmp_path, n_rows=24))
    assert dataset.spec.sample == dataset.spec.name == name
    assert all(ref is not None and ref.path.is_file() for block in dataset.images.values() for ref in block.refs)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_progress_counts_every_file_up_to_the_last(name, tmp_path):
    seen: list[tuple[int, int]] = []
    write_sample(name, tmp_path, n_rows=2, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_unknown_sample_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"unknown sample 'temm'\. Did you mean 'tem'"):
        write_sample("temm", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_no_rows_and_a_negative_seed_are_refused(tmp_path):
    with pytest.raises(InputError, match="needs at least 1 rows"):
        write_sample("tem", tmp_path, n_rows=0)
    with pytest.raises(InputError, match="seed -1 is negative"):
        write_sample("tem", tmp_path, seed=-1)


@pytest.mark.parametrize("foreign", ["notes.txt", "dataset.toml"])
def test_foreign_folder_is_refused_and_left_alone(foreign, tmp_path):
    (tmp_path / foreign).write_text('name = "mine"\n', encoding="utf-8")
    with pytest.raises(InputError, match="is not empty and holds no 'tem' sample"):
        write_sample("tem", tmp_path, n_rows=2)
    assert _files(tmp_path) == {foreign: b'name = "mine"\n'}


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "tem").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot write the sample 'tem'"):
        write_sample("tem", tmp_path / "tem", n_rows=2)


def test_complete_sample_is_left_as_it_is(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*.tif")}
    assert write_sample("tem", small, n_rows=N_SMALL) == small / "dataset.toml"
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*.tif")} == before


def test_folder_with_other_rows_or_seed_is_refused(small):
    with pytest.raises(InputError, match=rf"--rows {N_SMALL} --seed 0', not of .*--rows 9 --seed 0"):
        write_sample("tem", small, n_rows=9)
    with pytest.raises(InputError, match="Choose a new folder"):
        write_sample("tem", small, n_rows=N_SMALL, seed=1)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_interrupted_sample_goes_on_and_draws_no_image_twice(name, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(name, tmp_path / "cut", n_rows=5, progress=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*_*.*")}
    write_sample(name, tmp_path / "cut", n_rows=5)
    write_sample(name, tmp_path / "whole", n_rows=5)
    assert len(kept) >= 3 and all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert _files(tmp_path / "cut") == _files(tmp_path / "whole")


def test_interrupted_sample_is_known_by_its_rows_and_seed(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample("tem", tmp_path, n_rows=N_SMALL, progress=stop)
    assert not (tmp_path / "dataset.toml").exists()
    with pytest.raises(InputError, match="Choose a new folder"):
        write_sample("tem", tmp_path, n_rows=N_SMALL, seed=1)


# ---- tem: layout


def test_table_has_ids_files_groups_and_five_tasks(small):
    rows = _rows(small)
    assert list(rows[0]) == ["sample", "file", "specimen", *TASKS]
    assert len({row["sample"] for row in rows}) == len(rows) == N_SMALL
    images = {path.relative_to(small / "images").as_posix() for path in (small / "images").rglob("*.tif")}
    assert {row["file"] for row in rows} == images
    assert all(row["file"].startswith(f"{row['specimen']}/{row['specimen']}_") for row in rows)


def test_file_names_carry_specimen_magnification_and_number(small):
    unlabelled = [path.name for path in (small / "unlabelled").iterdir()]
    assert len(unlabelled) == N_UNLABELLED
    assert all(FILE_NAME.match(name) for name in unlabelled + [Path(row["file"]).name for row in _rows(small)])


def test_magnification_pattern_of_the_spec_reads_every_name(small):
    spec = tomllib.loads((small / "dataset.toml").read_text(encoding="utf-8"))
    pattern = spec["metadata"]["magnification"]["pattern"]
    read = [int(re.search(pattern, row["file"])[1]) for row in _rows(small)]
    assert read == [make_scene(0, row).magnification for row in range(N_SMALL)]
    assert set(spec["tasks"]) == set(TASKS)


def test_images_are_distinct_12_bit_values_in_16_bit_files(small):
    files = sorted(small.rglob("*.tif"))
    images = [tifffile.imread(path) for path in files]
    assert {image.dtype.name for image in images} == {"uint16"}
    assert {image.shape for image in images} == {(512, 512)}
    assert max(image.max() for image in images) <= MAX_COUNT
    assert min(image.max() for image in images) > 255
    assert len({image.tobytes() for image in images}) == len(files)


def test_row_is_the_same_however_many_rows_there_are(small, tmp_path):
    write_sample("tem", tmp_path, n_rows=2)
    few, more = _files(tmp_path), _files(small)
    assert all(more[name] == content for name, content in few.items() if name.endswith(".tif"))
    assert more["labels.csv"].startswith(few["labels.csv"])


def test_loaded_dataset_has_the_planted_labels_and_magnifications(tmp_path):
    dataset = load_dataset(write_sample("tem", tmp_path, n_rows=18))  # the first unusable image is row 15
    drawn = [make_scene(0, row) for row in range(18)]
    assert dataset.metadata["magnification"].values.tolist() == [scene.magnification for scene in drawn]
    assert dataset.groups.tolist() == [scene.specimen.name for scene in drawn]
    assert set(dataset.tasks) == set(TASKS)
    assert dataset.tasks["particle_count"].classes == ("few", "many", "one", "part")
    assert all(ref is not None and ref.path.is_file() for ref in dataset.images["tem"].refs)


def test_none_is_a_class_and_an_empty_cell_is_missing(scenes):
    rows = [dict(zip(TASKS, table_row(scene)[3:], strict=True)) for scene in scenes]
    assert {row["particle_count"] for row in rows} == {"none", "one", "part", "few", "many", ""}
    assert {row["usability"] for row in rows} == {"yes", "no"}


def test_every_specimen_has_a_sheet_and_all_tables_agree(tmp_path):
    small = write_sample("tem", tmp_path, n_rows=18).parent  # the first unusable image is row 15
    dataset, sheets = load_dataset(small / "dataset.toml"), load_dataset(small / "sheets" / "dataset.toml")
    assert sorted(sheets.ids) == sorted(f"{g}/{i}" for g, i in zip(dataset.groups, dataset.ids, strict=True))
    order = [sheets.ids.tolist().index(f"{g}/{i}") for g, i in zip(dataset.groups, dataset.ids, strict=True)]
    assert sheets.groups[order].tolist() == dataset.groups.tolist()
    assert [sheets.images["tem"].refs[row] for row in order] == list(dataset.images["tem"].refs)
    for name, task in dataset.tasks.items():
        assert (sheets.tasks[name].y[order] == task.y).all()
    for sheet in small.rglob("labels.xlsm"):
        assert read_table(sheet).equals(read_table(sheet.with_suffix(".csv")))
        assert openpyxl.load_workbook(sheet).sheetnames == ["labels"]
    assert len(list(small.rglob("labels.xlsm"))) == 1 + len(set(dataset.groups))
    new = prediction_dataset(sheets.spec, next((small / "images").rglob("labels.xlsm")))
    assert None not in new.images["tem"].keys()  # noqa: SIM118 - a method of the block


# ---- tem: the planted truth


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classes_are_unbalanced_but_every_one_spans_five_specimens(seed):
    drawn = [make_scene(seed, row) for row in range(N_ROWS)]
    given = [labels(scene) for scene in drawn]
    assert 24 <= len({scene.specimen.name for scene in drawn}) <= 30
    for task in TASKS:
        groups: dict[str, set[str]] = {}
        for scene, row in zip(drawn, given, strict=True):
            groups.setdefault(row[task], set()).add(scene.specimen.name)
        assert min(len(names) for value, names in groups.items() if value) >= 5, (task, groups)
        counts = Counter(row[task] for row in given if row[task])
        assert max(counts.values()) >= 2 * min(counts.values()), (task, counts)


@pytest.mark.parametrize("n_rows", [92, 185, 1000])
def test_share_of_unusable_images_holds_at_any_number_of_rows(n_rows):
    unusable = sum(bool(make_scene(3, row).fault) for row in range(n_rows))
    assert 0.04 <= unusable / n_rows <= 0.08


def test_labels_are_confused_and_missing_at_the_documented_rates():
    usable = [scene for scene in (make_scene(0, row) for row in range(3000)) if not scene.fault]
    for task, rate in LABEL_NOISE.items():
        pairs = [(truth(scene)[task], labels(scene)[task]) for scene in usable]
        pairs = [(right, given) for right, given in pairs if right]
        wrong = [(right, given) for right, given in pairs if given not in ("", right)]
        may_be_wrong = [right for right, _ in pairs if right in CONFUSED.get(task, {})]
        assert all(given in CONFUSED[task][right] for right, given in wrong)
        assert len(wrong) / max(1, len(may_be_wrong)) == pytest.approx(rate, abs=0.015)
        missing = sum(given == "" for _, given in pairs) / len(pairs)
        assert missing == pytest.approx(0.0 if task == "usability" else MISSING, abs=0.012)


def test_nanostructures_follow_the_true_width_in_nm(scenes):
    for scene in scenes:
        if scene.fault or scene.n_dots:
            continue
        n_nano = sum(width * 56_000 / scene.magnification < NANO_NM for width in scene.widths_px())
        expected = "no" if n_nano == 0 else "one" if n_nano == 1 else "few" if n_nano <= 10 else "many"
        assert truth(scene)["nanostructures"] == expected


def test_magnification_tells_what_the_picture_alone_does_not():
    drawn = [make_scene(0, row) for row in range(600)]
    usable = [s for s in drawn if not s.fault and s.extents_px and not s.n_dots]  # nanoparticles give it away
    y = np.array([truth(scene)["nanostructures"] != "no" for scene in usable])
    groups = np.array([scene.specimen.name for scene in usable])
    picture = np.log([[np.median(scene.widths_px()), len(scene.extents_px)] for scene in usable])
    magnification = np.log([[scene.magnification] for scene in usable])
    assert _grouped_accuracy(picture, y, groups) < max(y.mean(), 1 - y.mean()) + 0.1
    assert _grouped_accuracy(magnification, y, groups) < 0.88
    assert _grouped_accuracy(np.hstack([picture, magnification]), y, groups) > 0.95


def _grouped_accuracy(X, y, groups):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return float((cross_val_predict(model, X, y, groups=groups, cv=folds) == y).mean())


def test_each_fault_shows_in_the_picture():
    found = {scene.fault: scene for scene in (make_scene(0, row) for row in range(200)) if scene.fault}
    assert set(found) == {"blank", "blurred", "overexposed", "grid_bar"}
    images = {fault: draw(scene) for fault, scene in found.items()}
    assert (images["overexposed"] == MAX_COUNT).mean() > 0.3
    dark = found["grid_bar"].specimen.optics.dark
    assert (images["grid_bar"] < dark + 60).mean() > 0.5
    assert found["blank"].extents_px == ()
    sharp = replace(found["blurred"], fault="")
    assert _steepest(images["blurred"]) < 0.5 * _steepest(draw(sharp))


def _steepest(image):
    """The steepest edge, in counts per 4 pixels, with the counting noise averaged away."""
    return np.abs(np.diff(image.reshape(128, 4, 128, 4).mean(axis=(1, 3)))).max()


# ---- the image model


def test_attenuation_follows_density_and_atomic_number():
    # mean free paths at 200 kV from Langmore and Smith's cross-section, by hand: C 4.19e-5 nm2, Au 1.60e-3 nm2
    assert 1 / MATERIALS["carbon film"].attenuation_per_nm() == pytest.approx(238, rel=0.02)
    assert 1 / MATERIALS["gold"].attenuation_per_nm() == pytest.approx(10.6, rel=0.02)


def test_pixel_size_is_inverse_to_magnification():
    assert nm_per_px(56_000) == 1.0
    assert nm_per_px(600) == pytest.approx(2000 * nm_per_px(1_200_000))


def test_transmission_is_beer_lambert_and_noise_is_poisson():
    optics = Optics(fringe_px=0.0, blur_px=0.0, dose_e=100.0, level=1000.0, dark=100.0)
    rng = np.random.default_rng(0)
    for depth in (0.0, 0.7, 2.0):
        counts = record(np.full((256, 256), depth, dtype=np.float32), optics, rng).astype(float) - 100.0
        assert counts.mean() == pytest.approx(1000.0 * np.exp(-depth), rel=0.01)
        binned = counts.reshape(32, 8, 32, 8).sum(axis=(1, 3)) / 10.0  # electrons; the camera blur drops out
        assert binned.var() == pytest.approx(binned.mean(), rel=0.2)


def test_converter_clips_at_12_bits():
    optics = Optics(fringe_px=0.0, blur_px=0.0, dose_e=100.0, level=9000.0, dark=100.0)
    assert set(np.unique(record(np.zeros((32, 32), dtype=np.float32), optics, np.random.default_rng(0)))) == {MAX_COUNT}


def test_defocus_draws_a_bright_fringe_outside_an_edge():
    depth = np.zeros((64, 64), dtype=np.float32)
    depth[:, 32:] = 0.5
    mean_row = {}
    for fringe in (0.0, 2.0):
        optics = Optics(fringe_px=fringe, blur_px=0.8, dose_e=1e5, level=2000.0, dark=0.0)
        mean_row[fringe] = record(depth, optics, np.random.default_rng(0)).mean(axis=0)
    assert mean_row[0.0][26:31].max() < 2010
    assert mean_row[2.0][26:31].max() > 2060
    assert mean_row[2.0][:16].mean() == pytest.approx(2000, rel=0.005)


@pytest.mark.parametrize("scale_px", [0.6, 2.0, 12.0])
def test_smooth_field_has_unit_variance(scale_px):
    field = smooth_field(np.random.default_rng(0), (400, 300), scale_px)
    assert field.shape == (400, 300)
    assert field.std() == pytest.approx(1.0, abs=0.15)


def test_projected_thickness_of_solids():
    rng = np.random.default_rng(0)
    window = make_window((50.0, 50.0), 40.0, 100)
    assert sphere(window, 40.0).sum() == pytest.approx(np.pi / 6 * 40**3, rel=0.01)
    cylinder_and_caps = np.pi / 4 * 20**2 * 40 + np.pi / 6 * 20**3
    assert rod(rng, window, 20.0, 60.0).sum() == pytest.approx(cylinder_and_caps, rel=0.01)
    assert cube(rng, window, 20.0).max() == 1.0
    assert (make_polygon(rng, 40.0, 6).inside(window.y, window.x) > 0).sum() > 600


def test_window_is_cut_at_the_border_and_may_be_empty():
    corner = make_window((0.0, 0.0), 10.0, 100)
    assert corner.shape == (11, 11)
    assert (corner.y[0, 0], corner.x[0, -1]) == (0.0, 10.0)
    assert 0 in make_window((500.0, 50.0), 10.0, 100).shape
