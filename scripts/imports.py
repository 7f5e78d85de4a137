"""Check what each package imports against the lists of pyproject.toml: `python -m scripts.imports`.

The contracts of import-linter say which package of freshet is above which, and forbid what they name. The lists in
`[tool.freshet.imports]` name what is allowed, so anything that is new is found:

- `third-party`: package -> the packages that are not freshet's and that its modules may import.
- `standard-library`: package -> the modules of Python that its modules may import. A package without a list may import
  any.
- `reaches`: package -> the modules and packages of freshet that its modules may import, directly or through others.

An entry that nothing needs is reported, too. And every folder with modules must be a package: import-linter does not
look into any other.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("stream", "models", "export", "deploy")


@dataclass(frozen=True)
class Imports:
    """What the modules of freshet import.

    Attributes:
        own: Module -> the modules of freshet that it imports.
        others: Module -> the full names of all other modules that it imports.
    """

    own: Mapping[str, Collection[str]]
    others: Mapping[str, Collection[str]]


def read(root: Path) -> Imports:
    """Read the imports of every module, at its top, in its functions and for type checkers alike."""
    files = {_module(root, path): path for package in PACKAGES for path in (root / package).rglob("*.py")}
    own, others = {}, {}
    for module, path in sorted(files.items()):
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = set(_imported(ast.parse(path.read_text("utf-8")), package))
        ours = {name for name in names if name.split(".")[0] in PACKAGES}
        own[module] = {name if name in files else name.rpartition(".")[0] for name in ours} - {module}
        others[module] = names - ours
    return Imports(own, others)


def _module(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the full names that a module imports. A name from a package of freshet may be a module in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.split(".")[0] in PACKAGES:
                yield from (f"{source}.{name.name}" for name in node.names)
            else:
                yield source


def faults(root: Path) -> list[str]:
    """Return what is wrong with the imports of the packages under `root`, one line each."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    lists: dict[str, dict[str, list[str]]] = project["tool"]["freshet"]["imports"]
    imports = read(root)
    return [
        *_no_packages(root),
        *_third_party(imports, lists["third-party"]),
        *_standard_library(imports, lists["standard-library"]),
        *_reaches(imports, lists["reaches"]),
    ]


def _no_packages(root: Path) -> Iterator[str]:
    folders = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    for folder in sorted(folders):
        if not (folder / "__init__.py").is_file():
            yield f"{folder.relative_to(root)} has modules and no __init__.py"


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _third_party(imports: Imports, lists: Mapping[str, Collection[str]]) -> Iterator[str]:
    """A package is one of the second level, such as stream.core. One without a list may import nothing."""
    used: dict[str, set[str]] = {}
    for module, names in imports.others.items():
        package = ".".join(module.split(".")[:2])
        for name in sorted(names):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names:
                used.setdefault(package, set()).add(top)
                if top not in lists.get(package, ()):
                    yield f"{module} -> {name}: third-party of pyproject.toml does not have {top} for {package}"
    for package, allowed in lists.items():
        for top in sorted(set(allowed) - used.get(package, set())):
            yield f"{package} never imports {top}: take it out of third-party in pyproject.toml"


def _standard_library(imports: Imports, lists: Mapping[str, Collection[str]]) -> Iterator[str]:
    for package, allowed in lists.items():
        used: set[str | None] = set()
        for module, names in imports.others.items():
            for name in sorted(names):
                if _is_in(module, package) and name.split(".")[0] in sys.stdlib_module_names:
                    entry = next((one for one in allowed if _is_in(name, one)), None)
                    used.add(entry)
                    if entry is None:
                        yield f"{module} -> {name}: standard-library of pyproject.toml does not have it for {package}"
        for entry in sorted(set(allowed) - used):
            yield f"{package} never imports {entry}: take it out of standard-library in pyproject.toml"


def _reaches(imports: Imports, lists: Mapping[str, Collection[str]]) -> Iterator[str]:
    for package, allowed in lists.items():
        before = {module: "" for module in imports.own if _is_in(module, package)}
        used, waiting = {package}, deque(before)
        while waiting:
            module = waiting.popleft()
            for name in sorted(imports.own[module]):
                if name in before or name not in imports.own:
                    continue
                before[name] = module
                entry = next((one for one in (package, *allowed) if _is_in(name, one)), None)
                if entry is None:
                    yield f"{_chain(before, name)}: reaches of pyproject.toml does not have it for {package}"
                else:
                    used.add(entry)
                    waiting.append(name)
        for entry in sorted(set(allowed) - used):
            yield f"{package} never reaches {entry}: take it out of reaches in pyproject.toml"


def _chain(before: Mapping[str, str], module: str) -> str:
    """Return "a -> b -> module", the shortest way to it."""
    way = [module]
    while before[way[-1]]:
        way.append(before[way[-1]])
    return " -> ".join(reversed(way))


def main() -> None:
    """Check the packages of the given folder, or of this repository. Exits with 1 if an import is not allowed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.imports", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT, help="with pyproject.toml; default: %(default)s")
    found = faults(parser.parse_args().folder)
    if found:
        sys.exit("\n".join((*found, f"{len(found)} faults in the imports")))
    print("every import is in the lists of pyproject.toml")


if __name__ == "__main__":
    main()
