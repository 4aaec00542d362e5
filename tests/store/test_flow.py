from dataclasses import replace
from math import inf, pi

import pytest

from store.samples.flow import (
    CONTACT_NM,
    HAMAKER_J,
    LONGEST_S,
    Particles,
    adhesion_n,
    angle_of_repose,
    arch_mm,
    bond_number,
    flow_of,
    hall_time,
    porosity,
)

COPPER = Particles(d50_um=75.0, sphericity=0.99, roughness=0.0, asperity_nm=80.0, density=8960.0)


def test_smooth_spheres_attract_as_derjaguin_and_hamaker_say():
    smooth = HAMAKER_J * 25e-6 / (12 * (CONTACT_NM * 1e-9) ** 2)
    assert adhesion_n(50.0, 0.0) == pytest.approx(smooth)
    assert adhesion_n(50.0, 100.0) < 0.01 * smooth  # an asperity keeps them apart


def test_adhesion_at_an_asperity_is_nearly_that_of_the_asperity_alone():
    alone = HAMAKER_J * 100e-9 / (12 * (CONTACT_NM * 1e-9) ** 2)
    assert adhesion_n(50.0, 100.0) == pytest.approx(alone, rel=0.02)


def test_bond_number_is_adhesion_over_weight():
    weight = pi / 6 * (75e-6) ** 3 * 8960 * 9.81
    assert bond_number(COPPER) == pytest.approx(adhesion_n(75.0, 80.0) / weight)
    assert bond_number(replace(COPPER, d50_um=25.0)) == pytest.approx(27 * bond_number(COPPER), rel=0.03)


def test_spheres_pack_at_the_known_porosities_without_cohesion():
    assert porosity(1.0, 0.0, dense=False) == pytest.approx(0.40)
    assert porosity(1.0, 0.0, dense=True) == pytest.approx(0.36)
    assert porosity(0.9, 0.0, dense=False) == pytest.approx(0.40, abs=0.005)  # Zou and Yu's curve is flat there
    assert porosity(0.7, 0.0, dense=False) == pytest.approx(0.480, abs=0.001)


def test_porosity_goes_to_one_with_cohesion():
    found = [porosity(0.9, bond, dense=False) for bond in (0.0, 1.0, 10.0, 100.0, 1e9)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1.0, abs=0.01)


def test_cohesionless_spheres_repose_at_22_degrees():
    assert angle_of_repose(replace(COPPER, sphericity=1.0), 0.0) == pytest.approx(21.8, abs=0.05)


def test_beverloo_flow_of_copper_spheres_by_hand():
    particles = replace(COPPER, sphericity=1.0)
    # 0.58 * 5376 kg/m3 * sqrt(9.81) * (2.54 mm - 1.5 * 0.075 mm)^2.5 = 2.84 g/s
    assert hall_time(particles, 0.40, 0.0) == pytest.approx(50 / 2.84, rel=0.01)


def test_powder_does_not_flow_through_an_orifice_that_its_arch_closes():
    assert hall_time(COPPER, 0.40, 2.5) is None
    assert hall_time(COPPER, 0.40, inf) is None


def test_arch_widens_as_the_inverse_square_of_the_diameter():
    # strength ~ force / d^2, and the force hardly depends on d
    ratio = arch_mm(replace(COPPER, d50_um=25.0), 0.4, 30.0) / arch_mm(COPPER, 0.4, 30.0)
    assert ratio == pytest.approx(9.0, rel=0.02)


def test_fine_light_and_angular_powders_flow_worse():
    best = flow_of(COPPER)
    for worse in (
        replace(COPPER, d50_um=30.0),
        replace(COPPER, sphericity=0.7),
        replace(COPPER, density=2700.0),
        replace(COPPER, asperity_nm=300.0),
    ):
        flow = flow_of(worse)
        assert flow.angle_of_repose > best.angle_of_repose
        assert flow.hausner_ratio > best.hausner_ratio
        assert flow.hall_s is None or flow.hall_s > best.hall_s
    assert flow_of(replace(COPPER, roughness=1.0)).angle_of_repose > best.angle_of_repose


def test_known_powders_come_out_where_they_are_measured():
    copper = flow_of(COPPER)
    assert 22 < copper.angle_of_repose < 28
    assert 1.03 < copper.hausner_ratio < 1.12
    assert 13 < copper.hall_s < 25
    chromium = flow_of(Particles(d50_um=18.0, sphericity=0.65, roughness=0.8, asperity_nm=120.0, density=7190.0))
    assert 45 < chromium.angle_of_repose < 60
    assert 1.6 < chromium.hausner_ratio < 2.1
    assert chromium.hall_s is None
    assert LONGEST_S == 200.0
