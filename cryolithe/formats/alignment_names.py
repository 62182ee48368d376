"""Alignment and angle files beside a stack, told by the names that the field's programs give them."""

from __future__ import annotations

from pathlib import Path

from cryolithe.formats.series_names import possible_names

# Setting that takes such a file -> names, made of the stack's without its ending.
_NAMES = {
    "aln": ("{}.aln",),
    "xf": ("{}.xf", "{}_st.xf"),
    "newst_com": ("newst.com",),
    "tilt_com": ("tilt.com",),
    "warp": ("{}.xml", "{}.tomostar"),
    "star": ("{}.star",),
}


# Angles of a stack's images in its order. A series' .mdoc without the stack's full name may be that of its frames.
_ANGLES = (".rawtlt", ".tlt", "_TLT.txt")


def angles_beside(tilts: Path) -> list[Path]:
    """Files beside a stack that tell the angles of its images in their order; halves have those of their series."""
    name = tilts.name.removesuffix(".gz").removesuffix(".bz2")
    bases = dict.fromkeys((Path(name).stem, *possible_names(name)))
    names = [f"{base}{ending}" for base in bases for ending in _ANGLES]
    return [path for found in (*names, f"{name}.mdoc") if (path := tilts.with_name(found)).is_file()]


def files_beside(tilts: Path) -> dict[str, list[Path]]:
    """Files beside a stack, by the setting that takes them."""
    base = Path(tilts.name.removesuffix(".gz").removesuffix(".bz2")).stem
    found = {
        option: [path for name in names if (path := tilts.parent / name.format(base)).is_file()]
        for option, names in _NAMES.items()
    }
    return {option: paths for option, paths in found.items() if paths}
