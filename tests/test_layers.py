"""The import order of the modules, checked by reading the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cryolithe"

# module -> what it may import from the package (the package's version is free for all)
ALLOWED = {
    "errors": set(),
    "extras": set(),
    "hashing": set(),
    "geometry": {"errors", "column_shifts"},
    "yaml_table": {"errors"},
    "device": {"errors"},
    "limits": set(),
    "names": set(),
    "work": {"errors", "processes"},
    "optimise": {"errors"},
    "borders": set(),
    "fixed_pattern": {"spectra"},
    "bending": set(),
    "column_shifts": set(),
    "convolution": set(),
    "ctf": {"errors"},
    "optics": {"errors", "geometry"},
    "folding": set(),
    "page": set(),
    "images": {"errors", "geometry"},
    "alignment": {"errors", "bending", "geometry"},
    "depth_shifts": {"geometry", "bending", "alignment", "column_shifts"},
    "filters": {"errors", "spectra"},
    "known": {"errors"},
    "wavelets": {"errors", "folding"},
    "tilts": {"errors", "geometry"},
    "volume": {"errors", "geometry"},
    "formats": {
        "errors", "extras", "hashing", "names", "processes", "geometry", "bending", "alignment", "ctf", "tilts",
        "volume",
    },
    "sampling": {"geometry", "folding"},
    "settings": {"errors", "yaml_table", "formats"},
    "projector": {"errors", "geometry", "column_shifts", "filters"},
    "processes": set(),
    "spectra": set(),
    "faces": {"borders"},
    "mirrored": {"spectra"},
    "half_agreement": {"spectra", "mirrored"},
    "missing_wedge": {"spectra"},
    "noise_colour": set(),
    "metrics": {"errors", "geometry", "spectra"},
    "fidelity": {"errors"},
    "greys": set(),
    "report": {"errors", "greys", "metrics", "formats"},
    "models": {"errors", "hashing"},
    "recipes": {"errors", "names"},
    "network": {"errors", "convolution", "hashing", "filters", "known", "models", "sampling", "wavelets"},
    "inference": {"errors", "geometry", "column_shifts", "network", "sampling"},
    "reconstruction": {
        "errors", "hashing", "settings", "device", "limits", "geometry", "alignment", "borders", "greys", "images",
        "filters", "wavelets", "tilts", "volume", "formats", "sampling", "projector", "report", "known", "network",
        "inference", "folding", "work", "ctf", "optics", "column_shifts", "depth_shifts", "noise_colour", "names",
        "models", "fixed_pattern", "spectra",
    },
    "viewer": {"errors", "greys", "models", "settings", "work", "formats", "reconstruction"},
    "portals": {"errors", "extras", "formats"},
    "session": {"errors", "extras", "settings", "limits", "work", "formats", "page", "report", "reconstruction"},
    "diagnosis": {
        "errors", "extras", "hashing", "device", "limits", "geometry", "volume", "formats", "sampling", "wavelets",
        "projector", "network", "inference", "reconstruction",
    },
    "noise": {"errors", "greys", "images", "spectra", "tilts", "formats", "report"},
    "simulation": {
        "errors", "hashing", "yaml_table", "geometry", "filters", "greys", "images", "volume", "projector", "formats",
        "report", "noise", "optics", "names", "spectra",
    },
    "evaluation": {
        "errors", "names", "hashing", "device", "geometry", "images", "tilts", "volume", "formats", "projector",
        "spectra", "metrics", "greys", "page", "report", "faces", "fixed_pattern", "half_agreement", "missing_wedge",
        "borders",
    },
    "curation": {
        "borders", "errors", "hashing", "yaml_table", "geometry", "images", "projector", "formats", "metrics", "greys",
        "page", "report", "names", "evaluation", "spectra", "tilts", "reconstruction",
    },
    "training": {
        "errors", "yaml_table", "geometry", "filters", "images", "wavelets", "sampling", "projector", "formats",
        "metrics", "fidelity", "greys", "report", "known", "network", "inference", "reconstruction", "simulation",
        "optimise", "noise", "recipes", "names", "noise_colour", "hashing", "spectra",
    },
    "adapt": {
        "errors", "names", "geometry", "filters", "sampling", "metrics", "known", "formats", "report", "network",
        "reconstruction", "simulation", "work", "optimise", "training", "noise_colour",
    },
    "library": {
        "errors", "settings", "device", "geometry", "tilts", "volume", "formats", "report", "spectra", "metrics",
        "work", "optimise", "reconstruction", "simulation", "evaluation", "denoising", "half_agreement",
    },
    "style": {"errors", "borders", "images", "spectra", "tilts", "optimise", "simulation"},
    "comparison": {
        "errors", "names", "hashing", "settings", "device", "geometry", "models", "formats", "metrics", "spectra",
        "fidelity", "greys", "page", "report", "work", "optimise", "evaluation", "denoising", "reconstruction",
        "training", "faces", "half_agreement", "missing_wedge",
    },
    "denoise_training": {
        "errors", "yaml_table", "device", "geometry", "filters", "formats", "projector", "simulation", "denoising",
        "work", "optimise", "recipes", "names", "noise_colour", "spectra",
    },
    "denoising": {
        "errors", "borders", "convolution", "hashing", "device", "limits", "images", "volume", "formats", "metrics",
        "spectra", "faces", "fixed_pattern", "half_agreement",
        "greys", "report", "folding", "work", "optimise", "names",
    },
}  # fmt: skip

# The groups of the two largest packages, in the order in which they may import; modules beside the groups come first
# in `formats`, whose files all groups read and write by them, and last in `reconstruction`, which are the runs.
GROUPS = {
    "formats": (".", "stacks", "volumes", "alignment", "microscope", "series", "particles"),
    "reconstruction": ("images", "slabwise", "evidence", "jobs", "confidence", "setup", "output", "."),
}


def group_of(package: str, words: list[str]) -> str:
    """The group of a module, by its path or name below its package."""
    return words[0] if words[0] in GROUPS[package] else "."


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            if node.module == "cryolithe":
                names |= {alias.name for alias in node.names if alias.name != "__version__"}
            elif node.module and node.module.startswith("cryolithe."):
                names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cryolithe.")}
    return names - {module_of(path)}


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if module_of(p) not in ("cli", "__init__", "__main__"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    assert module_of(path) in ALLOWED, f"{path} has no place in the import order: add it to the table above"
    assert imported_modules(path) <= ALLOWED[module_of(path)]


@pytest.mark.parametrize("package", sorted(GROUPS))
def test_groups_of_a_package_import_one_way(package):
    order = GROUPS[package]
    for path in sorted((PACKAGE / package).rglob("*.py")):
        words = list(path.relative_to(PACKAGE / package).with_suffix("").parts)
        if words == ["__init__"]:
            continue  # what the package offers, from all groups
        before = order[: order.index(group_of(package, words)) + 1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            assert node.module != f"cryolithe.{package}", f"{path}: name the module"
            if (node.module or "").startswith(f"cryolithe.{package}."):
                group = group_of(package, str(node.module).split(".")[2:])
                assert group in before, f"{path} imports {node.module}: from a later group"


def test_the_order_has_no_cycle():
    done: set[str] = set()
    while left := {module for module in ALLOWED if module not in done}:
        ready = {module for module in left if ALLOWED[module] <= done}
        assert ready, f"cycle among {sorted(left)}"
        done |= ready


def test_the_guide_for_contributors_tells_this_order():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    line = " ".join(text.partition("says from which:")[2].partition(" → cli.")[0].split())
    groups = [group.split(", ") for group in line.split(" → ")]
    assert sorted(module for group in groups for module in group) == sorted(ALLOWED)
    before: set[str] = set()
    for group in groups:
        for module in group:
            assert ALLOWED[module] <= before, f"{module} imports from its own group or a later one"
        before |= set(group)


@pytest.mark.slow
def test_only_the_command_line_prints():
    for path in SOURCES:
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path


def test_no_module_is_very_long():
    for path in SOURCES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 430, f"{path}: split it"
