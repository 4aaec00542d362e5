"""Units of length, however they are spelt."""

import unicodedata

NM_PER_UNIT = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "um": 1e3, "mm": 1e6, "m": 1e9}
_SPELLINGS = {"μm": "um", "micron": "um", "microns": "um", "micrometer": "um", "angstrom": "Å", "Angstrom": "Å"}


def nm_per(unit: object) -> float | None:
    """Return how many nm a unit of length is; None for inch, cm, pixel and whatever is unknown.

    Inch and centimetre measure paper: programs write them beside dots per inch, whatever the microscope did.
    """
    name = unicodedata.normalize("NFKC", str(unit).replace("\\u00B5", "µ")).strip()  # ImageJ escapes as Java does
    return NM_PER_UNIT.get(_SPELLINGS.get(name, name))
