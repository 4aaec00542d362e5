import numpy as np
import pytest

from store.samples.thin_film import reflect, silicon, silicon_nitride

WAVELENGTH = np.linspace(350.0, 980.0, 41)
GLASS = np.full(41, 1.5 + 0j)


def test_bare_surface_is_fresnels_formula():
    R, T = reflect([], GLASS, WAVELENGTH)
    assert pytest.approx(0.04) == R
    assert pytest.approx(0.96) == T
    assert reflect([], silicon(WAVELENGTH), WAVELENGTH)[0] == pytest.approx(
        np.abs((1 - silicon(WAVELENGTH)) / (1 + silicon(WAVELENGTH))) ** 2
    )


def test_single_film_is_airys_formula():
    n, thickness = np.full(41, 2.0 + 0j), 130.0
    r1, r2 = (1 - 2.0) / (1 + 2.0), (2.0 - 1.5) / (2.0 + 1.5)
    turn = np.exp(4j * np.pi * 2.0 * thickness / WAVELENGTH)
    airy = np.abs((r1 + r2 * turn) / (1 + r1 * r2 * turn)) ** 2
    assert reflect([(n, thickness)], GLASS, WAVELENGTH)[0] == pytest.approx(airy)


def test_quarter_wave_of_the_root_index_reflects_nothing_and_half_wave_is_absent():
    at = np.array([550.0])
    coat, glass = np.sqrt(np.array([1.5 + 0j])), np.array([1.5 + 0j])
    assert reflect([(coat, 550 / 4 / 1.5**0.5)], glass, at)[0] == pytest.approx(0.0, abs=1e-12)
    assert reflect([(coat, 550 / 2 / 1.5**0.5)], glass, at)[0] == pytest.approx(0.04)


def test_energy_is_conserved_without_absorption_and_lost_with_it():
    clear = [(silicon_nitride(WAVELENGTH), 90.0), (np.full(41, 1.3 + 0j), 200.0)]
    R, T = reflect(clear, GLASS, WAVELENGTH)
    assert pytest.approx(np.ones(41)) == (R + T)
    R, T = reflect([(silicon(WAVELENGTH), 60.0)], GLASS, WAVELENGTH)
    assert (R + T < 1).all() and (R > 0).all() and (T > 0).all()
    assert np.argmin(R + T) < 5  # silicon absorbs the ultraviolet


def test_film_of_no_thickness_is_not_there():
    bare = reflect([], silicon(WAVELENGTH), WAVELENGTH)
    film = reflect([(silicon_nitride(WAVELENGTH), 0.0)], silicon(WAVELENGTH), WAVELENGTH)
    assert np.allclose(bare, film)


def test_indices_are_the_published_ones():
    assert silicon_nitride(np.array([632.8]))[0].real == pytest.approx(2.02, abs=0.01)  # Philipp 1973
    assert silicon(np.array([365.0]))[0] == pytest.approx(6.52 + 2.70j)
    assert abs(silicon(np.array([633.0]))[0] - 3.88) < 0.03  # 3.882 + 0.019i
