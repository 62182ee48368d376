"""The import order of the modules, checked by reading the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "cryolithe"

# module -> what it may import from the package (the package's version is free for all)
ALLOWED = {
    "errors": set(),
    "bending": set(),
    "column_shifts": set(),
    "arrays": set(),
    "machine": {"errors"},
    "files": {"errors"},
    "geometry": {"errors", "column_shifts"},
    "optimise": {"errors"},
    "artefacts": {"arrays"},
    "filters": {"errors", "arrays"},
    "known": {"errors"},
    "wavelets": {"errors", "arrays"},
    "fidelity": {"errors"},
    "work": {"errors", "machine", "optimise"},
    "optics": {"errors", "geometry"},
    "images": {"errors", "geometry"},
    "alignment": {"errors", "bending", "geometry"},
    "tilts": {"errors", "geometry"},
    "volume": {"errors", "geometry"},
    "sampling": {"arrays", "geometry"},
    "projector": {"errors", "column_shifts", "geometry", "filters"},
    "metrics": {"errors", "arrays", "geometry"},
    "models": {"errors", "files"},
    "recipes": {"errors", "files"},
    "formats": {
        "errors", "arrays", "bending", "machine", "files", "geometry", "optics", "alignment", "tilts", "volume",
    },
    "network": {"errors", "arrays", "files", "filters", "known", "wavelets", "sampling", "models"},
    "report": {"errors", "metrics", "formats"},
    "settings": {"errors", "files", "formats"},
    "idle": {"errors", "settings"},
    "inference": {"errors", "column_shifts", "geometry", "sampling", "network"},
    "portals": {"errors", "machine", "formats"},
    "reconstruction": {
        "errors", "bending", "column_shifts", "arrays", "machine", "files", "geometry", "artefacts", "filters", "known",
        "wavelets", "work", "optics", "images", "alignment", "tilts", "volume", "sampling", "projector", "models",
        "formats", "network", "report", "settings", "inference",
    },
    "noise": {"errors", "arrays", "images", "tilts", "formats", "report"},
    "evaluation": {
        "errors", "arrays", "machine", "files", "geometry", "artefacts", "images", "tilts", "volume", "projector",
        "metrics", "formats", "report", "reconstruction",
    },
    "denoising": {
        "errors", "arrays", "machine", "files", "optimise", "artefacts", "work", "images", "volume", "metrics",
        "formats", "report",
    },
    "viewer": {"errors", "work", "models", "formats", "report", "settings", "reconstruction"},
    "session": {"errors", "machine", "work", "formats", "report", "settings", "idle", "reconstruction"},
    "diagnosis": {
        "errors", "machine", "files", "geometry", "wavelets", "volume", "sampling", "projector", "formats", "network",
        "inference", "reconstruction",
    },
    "simulation": {
        "errors", "arrays", "files", "geometry", "filters", "optics", "images", "volume", "projector", "formats",
        "report", "noise",
    },
    "curation": {
        "errors", "arrays", "files", "geometry", "artefacts", "images", "tilts", "projector", "metrics", "formats",
        "report", "reconstruction", "evaluation",
    },
    "training": {
        "errors", "arrays", "files", "geometry", "optimise", "artefacts", "filters", "known", "wavelets", "fidelity",
        "images", "work", "sampling", "projector", "metrics", "recipes", "formats", "network", "report", "inference",
        "reconstruction", "noise", "simulation",
    },
    "library": {
        "errors", "arrays", "machine", "geometry", "optimise", "artefacts", "work", "tilts", "volume", "metrics",
        "formats", "report", "settings", "idle", "reconstruction", "evaluation", "denoising", "simulation",
    },
    "style": {"errors", "arrays", "optimise", "artefacts", "images", "tilts", "simulation"},
    "denoise_training": {
        "errors", "arrays", "machine", "files", "geometry", "optimise", "artefacts", "filters", "work", "projector",
        "recipes", "formats", "denoising", "simulation",
    },
    "adapt": {
        "errors", "files", "geometry", "optimise", "artefacts", "filters", "known", "work", "sampling", "metrics",
        "formats", "network", "report", "reconstruction", "simulation", "training",
    },
    "comparison": {
        "errors", "arrays", "machine", "files", "geometry", "optimise", "artefacts", "fidelity", "work", "metrics",
        "models", "formats", "report", "settings", "reconstruction", "evaluation", "denoising", "training",
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
