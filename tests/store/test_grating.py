from dataclasses import replace

import numpy as np
import pytest

from store.samples.grating import (
    APERTURE,
    BANDS_NM,
    CHANNELS,
    Grating,
    band_reflectances,
    channels,
    collected,
    effective_permittivity,
    fill_factor,
    order_shares,
)
from store.samples.thin_film import silicon_nitride

LINES = Grating("lines", period_nm=900.0, duty=0.5, height_nm=150.0, dye=0.7)
GREEN = np.array([530.0])


def test_ten_channels_lie_between_0_and_1_everywhere():
    rng = np.random.default_rng(0)
    for kind in ("lines", "pillars"):
        for _ in range(60):
            period, duty, height, dye = rng.uniform((200, 0.1, 0, 0), (3000, 0.9, 900, 5))
            found = channels(Grating(kind, period, duty, height, dye))
            assert tuple(found) == CHANNELS
            assert all(0 <= value <= 1 for value in found.values())


def test_full_and_empty_layers_are_film_and_air():
    for polarisation in ("TE", "TM"):
        full = effective_permittivity(replace(LINES, duty=1.0), GREEN, polarisation)
        empty = effective_permittivity(replace(LINES, duty=0.0), GREEN, polarisation)
        assert full == pytest.approx(silicon_nitride(GREEN) ** 2)
        assert empty == pytest.approx(1.0)


def test_lines_are_denser_for_te_and_pillars_have_no_direction():
    assert effective_permittivity(LINES, GREEN, "TE").real > effective_permittivity(LINES, GREEN, "TM").real
    pillars = replace(LINES, kind="pillars")
    assert channels(LINES)["poldiff"] > 0.01
    assert channels(pillars)["poldiff"] == 0.0
    assert fill_factor(pillars) == 0.25


def test_shares_of_all_orders_add_up_to_what_the_mirror_direction_lacks():
    phase = 4 * np.pi * 150.0 / 530.0
    lacking = 2 * 0.5 * 0.5 * (1 - np.cos(phase))
    shares, orders = order_shares(LINES, GREEN)
    assert shares.sum() == pytest.approx(lacking, rel=0.05)  # the rest is beyond the last order
    first = 2 * (1 - np.cos(phase)) / np.pi**2
    assert np.sort(shares[0, orders == 1]) == pytest.approx([0, 0, first, first])  # along the lines there is none
    assert shares[0, orders == 2] == pytest.approx(0.0, abs=1e-12)  # even orders vanish at a duty of one half


def test_pillars_diffract_in_two_directions():
    pillars = replace(LINES, kind="pillars", duty=0.6)
    shares, orders = order_shares(pillars, GREEN)
    fill = 0.36
    lacking = 2 * fill * (1 - fill) * (1 - np.cos(4 * np.pi * 150.0 / 530.0))
    assert shares.sum() == pytest.approx(lacking, rel=0.1)
    assert (np.isclose(orders, 2**0.5)).sum() == 4


def test_orders_are_lost_exactly_between_cut_off_and_aperture():
    evanescent = collected(replace(LINES, period_nm=529.0), GREEN)
    lost = collected(replace(LINES, period_nm=531.0), GREEN)
    kept = collected(replace(LINES, period_nm=531.0 / APERTURE), GREEN)
    assert evanescent == 1.0
    first = order_shares(LINES, GREEN)[0].max()
    assert lost == pytest.approx(1 - 2 * first)
    assert kept > lost + first


def test_reflectance_falls_where_a_band_begins_to_diffract():
    bands = list(BANDS_NM)
    short, long = (band_reflectances(replace(LINES, period_nm=period, height_nm=130.0)) for period in (400.0, 700.0))
    ratio = {band: long[0][bands.index(band)] / short[0][bands.index(band)] for band in ("G", "R", "740", "940")}
    assert ratio["G"] < 0.8 and ratio["R"] < 0.8  # below 700 nm an order leaves
    assert ratio["940"] == pytest.approx(1.0)  # still evanescent


def test_fluorescence_grows_with_the_dye_and_vanishes_without():
    values = [channels(replace(LINES, dye=dye))["fB"] for dye in (0.0, 0.5, 1.5)]
    assert values[0] == 0.0
    assert values == sorted(values)
    found = channels(LINES)
    assert found["fB"] == pytest.approx(0.9 * (1 - np.exp(-0.7)) * (1 + found["UV"]) / 2 * (1 + found["B"]) / 2)


def test_flat_surface_is_bare_silicon():
    flat = channels(replace(LINES, height_nm=0.0))
    assert flat["G"] == pytest.approx(((4.16 - 1) / (4.16 + 1)) ** 2, abs=0.01)
    assert flat["poldiff"] == pytest.approx(0.0, abs=1e-12)
