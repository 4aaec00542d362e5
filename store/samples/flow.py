"""How a metal powder flows: angle of repose, Hausner ratio and Hall flow time from its particles.

The chain is the usual one of powder mechanics; each step names its source. Where only a form is known from theory, the
constant is set so that common metal powders come out where they are measured, and the line says so.

1. Cohesion. Van der Waals force between rough spheres (Rumpf's model as in Rabinovich et al. 2000, J. Colloid Interface
   Sci. 232, 10-16), and its ratio to a particle's weight, the granular Bond number (Castellanos 2005, Adv. Phys. 54,
   263-376).
2. Packing. Porosity of loose and dense packings by sphericity (Zou and Yu 1996, Powder Technol. 88, 71-79), loosened
   by cohesion as a function of the Bond number (as Feng and Yu 2000, J. Colloid Interface Sci. 231, 136-142, found).
   Tapping multiplies the weight and so divides the Bond number.
3. Slope. Mohr-Coulomb: friction of the particles' shape and surface, and a part from cohesion.
4. Flow. The critical outlet of a cohesive arch (Jenike 1964, Storage and flow of solids), the strength of which follows
   from Rumpf's tensile strength; and Beverloo's law (Beverloo, Leniger and van de Velde 1961, Chem. Eng. Sci. 15,
   260-269) for 50 g through the Hall funnel (ISO 4490), whose orifice the arch and the particles narrow.
"""

from dataclasses import dataclass
from math import atan, cos, degrees, exp, log, pi, sin, sqrt, tan

GRAVITY = 9.81  # m/s2
HAMAKER_J = 1.5e-19  # oxidised metals in air, between oxides and bare metals: Israelachvili, 3rd ed., 2011, chapter 13
CONTACT_NM = 0.4  # closest approach of surfaces, as Castellanos 2005 uses
PACK_M, PACK_N = 4.0, 0.4  # set so that the porosity of copper rises below some 40 um, as it is observed
TAP_ACCELERATION = 8.0  # in units of gravity; set so that cohesive powders reach Hausner ratios of 1.5 to 2
FRICTION, FRICTION_SHAPE, FRICTION_ROUGH = 0.40, 0.85, 0.10  # smooth spheres repose at atan 0.40 = 22 degrees; set
SLOPE_COHESION, SLOPE_POWER = 0.055, 0.6  # set so that fine powders repose at 45 to 55 degrees
ARCH_FACTOR = 2.2  # H of a round outlet: Jenike 1964
BEVERLOO_C, BEVERLOO_K = 0.58, 1.5  # Beverloo et al. 1961; k of rounded grains
ORIFICE_MM = 2.54  # ISO 4490: 2.5 mm; ASTM B213: 0.1 inch
CHARGE_G = 50.0  # ISO 4490
LONGEST_S = 200.0  # beyond it the funnel counts as blocked


@dataclass(frozen=True)
class Particles:
    """What a powder is made of.

    Attributes:
        d50_um: Median diameter by volume.
        sphericity: Surface of the sphere of equal volume over the particle's own, 0 to 1.
        roughness: 0 smooth to 1 rough, of the surface at large; friction knows it.
        asperity_nm: Radius of the asperities that touch; cohesion knows it, no micrograph shows it.
        density: In kg/m3, of the solid.
    """

    d50_um: float
    sphericity: float
    roughness: float
    asperity_nm: float
    density: float


@dataclass(frozen=True)
class Flow:
    """What is measured of a powder.

    Attributes:
        angle_of_repose: In degrees.
        hausner_ratio: Tapped over bulk density.
        hall_s: Seconds for 50 g through the Hall funnel; None where it does not flow.
    """

    angle_of_repose: float
    hausner_ratio: float
    hall_s: float | None


def flow_of(particles: Particles) -> Flow:
    """Return angle of repose, Hausner ratio and flow time of a powder."""
    bond = bond_number(particles)
    loose = porosity(particles.sphericity, bond, dense=False)
    tapped = porosity(particles.sphericity, bond / TAP_ACCELERATION, dense=True)
    angle = angle_of_repose(particles, bond)
    time = hall_time(particles, loose, arch_mm(particles, loose, angle))
    return Flow(angle, (1.0 - tapped) / (1.0 - loose), time)


def adhesion_n(diameter_um: float, asperity_nm: float) -> float:
    """Return the van der Waals force in N between two equal spheres that touch at an asperity.

    Half of Rumpf's sphere against plane: A R / 12 D^2 [r / (r + R) + 1 / (1 + r / D)^2]; smooth spheres have r = 0.
    """
    radius, asperity, contact = diameter_um / 2 * 1e-6, asperity_nm * 1e-9, CONTACT_NM * 1e-9
    smooth = HAMAKER_J * radius / (12.0 * contact**2)
    return smooth * (asperity / (asperity + radius) + 1.0 / (1.0 + asperity / contact) ** 2)


def bond_number(particles: Particles) -> float:
    """Return adhesion over weight of a median particle."""
    weight = pi / 6.0 * (particles.d50_um * 1e-6) ** 3 * particles.density * GRAVITY
    return adhesion_n(particles.d50_um, particles.asperity_nm) / weight


def porosity(sphericity: float, bond: float, *, dense: bool) -> float:
    """Return the share of voids: Zou and Yu's for the shape, towards 1 with cohesion; for spheres 0.40 or 0.36."""
    power, rate, sphere = (6.74, 8.00, 0.36) if dense else (5.58, 5.89, 0.40)
    shape = exp(sphericity**power * exp(rate * (1.0 - sphericity)) * log(sphere))
    loosened = exp(-PACK_M * bond**-PACK_N) if bond > 0 else 0.0
    return shape + (1.0 - shape) * loosened


def friction(particles: Particles) -> float:
    """Return the tangent of the angle at which the same particles would rest without cohesion."""
    return FRICTION + FRICTION_SHAPE * (1.0 - particles.sphericity) + FRICTION_ROUGH * particles.roughness


def angle_of_repose(particles: Particles, bond: float) -> float:
    """Return the slope of a heap in degrees."""
    return degrees(atan(friction(particles) + SLOPE_COHESION * bond**SLOPE_POWER))


def arch_mm(particles: Particles, voids: float, angle_deg: float) -> float:
    """Return the widest outlet in mm over which the powder can form an arch: H sigma_c / (rho g)."""
    angle = angle_deg * pi / 180.0
    force = adhesion_n(particles.d50_um, particles.asperity_nm)
    tensile_pa = (1.0 - voids) / voids * force / (particles.d50_um * 1e-6) ** 2  # Rumpf
    strength_pa = 2.0 * tensile_pa * tan(angle) * cos(angle) / (1.0 - sin(angle))  # Mohr-Coulomb, cohesion = t tan
    return 1e3 * ARCH_FACTOR * strength_pa / ((1.0 - voids) * particles.density * GRAVITY)


def hall_time(particles: Particles, voids: float, arch: float) -> float | None:
    """Return the seconds that 50 g take, None where they stay or take longer than LONGEST_S.

    Args:
        particles: Their size narrows the orifice; their friction slows the flow.
        voids: Porosity of the loose powder.
        arch: Width of a stable arch in mm, by which the orifice is narrower.
    """
    open_mm = ORIFICE_MM - BEVERLOO_K * particles.d50_um * 1e-3 - arch
    if open_mm <= 0.0:
        return None
    rate_c = BEVERLOO_C * sqrt(FRICTION / friction(particles))  # slower with friction: the form is ours
    bulk = (1.0 - voids) * particles.density
    grams_per_s = 1e3 * rate_c * bulk * sqrt(GRAVITY) * (open_mm * 1e-3) ** 2.5
    seconds = CHARGE_G / grams_per_s
    return seconds if seconds <= LONGEST_S else None
