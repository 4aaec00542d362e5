from dataclasses import replace

import cv2
import numpy as np
import pytest

from store import load_dataset, prediction_dataset, write_sample
from store.samples.cell_picture import BRIGHT_FIELD_PHOTONS, EMISSION_RGB, draw_bright_field, draw_fluorescence
from store.samples.cells import CANCEROUS, CHANGES, ILL_PATIENTS, N_PATIENTS, N_TEST, appearance, make_cell


@pytest.mark.parametrize("n_rows", [480, 4800])
def test_shares_are_met_at_any_number_of_rows(n_rows):
    cells = [make_cell(3, row) for row in range(n_rows)]
    assert len({cell.name for cell in cells}) == n_rows
    for patient in range(1, N_PATIENTS + 1):
        own = [cell for cell in cells if cell.patient == patient]
        expected = CANCEROUS[patient in ILL_PATIENTS]
        assert len(own) == n_rows / N_PATIENTS
        assert np.mean([cell.diagnosis == "cancerous" for cell in own]) == pytest.approx(expected, abs=0.05)
    changes = [cell.change for cell in cells if cell.change]
    assert {name: changes.count(name) / len(changes) for name in CHANGES} == pytest.approx(CHANGES, abs=0.05)


def test_200_000_rows_have_names_and_shares_of_their_own():
    cells = [make_cell(0, row) for row in range(200_000)]
    assert len({cell.name for cell in cells}) == len({cell.seed for cell in cells}) == 200_000
    expected = np.mean([CANCEROUS[patient in ILL_PATIENTS] for patient in range(1, N_PATIENTS + 1)])
    assert np.mean([cell.change != "" for cell in cells]) == pytest.approx(expected, abs=0.001)
    assert cells[100_000] == make_cell(0, 100_000)


def test_healthy_cells_have_a_trace_of_a_change_and_cancerous_ones_are_marked():
    for cell in (make_cell(0, row) for row in range(200)):
        look = appearance(cell, 0)
        assert (look.keratin >= 0.5) == (cell.change in ("keratin", "both"))
        assert (look.ploidy >= 0.5) == (cell.change in ("ploidy", "both"))
        assert max(look.keratin, look.ploidy) <= 1.0


def test_each_change_shows_in_its_own_modality():
    cell = make_cell(0, 0)
    plain = replace(appearance(cell, 0), keratin=0.0, ploidy=0.0)

    def change(draw, **changed):
        before, after = (
            draw(look, np.random.default_rng(0)).astype(float) for look in (plain, replace(plain, **changed))
        )
        return np.abs(cv2.blur(before - after, (5, 5))).max()  # without the counting noise

    assert change(draw_bright_field, keratin=1.0) > 5 * change(draw_bright_field, ploidy=1.0)
    assert change(draw_fluorescence, ploidy=1.0) > 5 * change(draw_fluorescence, keratin=1.0)


def test_patients_differ_in_what_has_nothing_to_do_with_the_diagnosis():
    looks = [appearance(make_cell(0, row), 0) for row in range(2 * N_PATIENTS)]
    assert all(looks[i].lamp == looks[i + N_PATIENTS].lamp for i in range(N_PATIENTS))
    assert len({look.lamp for look in looks}) == N_PATIENTS
    assert np.std([look.stain for look in looks]) > 0.05


def test_bright_field_is_absorbed_and_counted_as_photons_are():
    look = replace(appearance(make_cell(0, 3), 0), lamp=0.8, warmth=0.0, defocus=0.0)
    image = draw_bright_field(look, np.random.default_rng(0)).astype(float) / 255
    corner = image[:24, :24]
    assert corner.mean() == pytest.approx(0.8, abs=0.05)
    assert corner.reshape(-1, 3).std(axis=0).mean() == pytest.approx(np.sqrt(0.8 / BRIGHT_FIELD_PHOTONS), rel=0.5)
    inside = look.body.cytoplasm > 0.5
    assert (image[inside].mean(axis=0) < 0.95 * corner.mean()).all()
    assert image[inside].mean(axis=0)[1] < image[inside].mean(axis=0)[0]  # eosin takes the green


def test_fluorescence_is_one_camera_in_one_colour():
    image = draw_fluorescence(appearance(make_cell(0, 3), 0), np.random.default_rng(0)).astype(float)
    assert np.abs(image - image[..., 2:] * np.array(EMISSION_RGB)).max() <= 0.5
    assert image[..., 2].max() > 4 * np.median(image[..., 2])


def test_layout_is_that_of_the_study(tmp_path):
    spec = write_sample("cells", tmp_path, n_rows=24)
    dataset = load_dataset(spec)
    assert (tmp_path / "data" / "train.csv").read_text().splitlines()[0] == "Name,Diagnosis"
    assert dataset.groups.tolist() == [str(make_cell(0, row).patient) for row in range(24)]
    task = dataset.tasks["diagnosis"]
    assert [task.classes[code] for code in task.y] == [make_cell(0, row).diagnosis for row in range(24)]
    assert {len(list((tmp_path / "test" / modality).iterdir())) for modality in ("BF", "FL")} == {N_TEST}
    test = prediction_dataset(dataset.spec, tmp_path / "test")
    patients = {int(name.split("_")[1]) for name in test.ids.tolist()}
    assert test.n_rows == N_TEST and min(patients) > N_PATIENTS
    assert None not in [*test.images["bf"].refs, *test.images["fl"].refs]
