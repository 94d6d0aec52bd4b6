"""Which files of the package decide what a function gives, found in the source without running it.

Names are followed, not files: from a definition to those that it names, through imports at any level, aliases and the
``__init__`` of packages, eager or lazy. What a file imports for another of its functions, such as the plots of an
experiment, does not count; what the import of a module does by itself does.
"""

from __future__ import annotations

import builtins
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from raptorgraph.benchmark._names import Source, Uses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CODE = {".py", ".pyi", ".pyc", ".so", ".pyd"}


class Closure:
    """Everything in a package that decides what some of its definitions do.

    Parameters
    ----------
    root
        Folder of the package.
    *starts
        Full names of the definitions, such as ``"raptorgraph.metrics.mk_mmd"``.

    Attributes
    ----------
    files
        Sources, and in their folders the files of other kinds (package data).
    external
        Top-level modules of other packages that these sources use.
    digest
        Hash of the files' names and contents, and of what imported names stand for.

    Raises
    ------
    FileNotFoundError
        If the package has no source of a definition's module.
    """

    def __init__(self, root: Path, *starts: str):
        self._root, self._package = root, root.name
        self._modules: dict[str, Source | None] = {}
        self._todo: list[tuple[Source, Uses]] = []
        self._seen: set[object] = set()  # statements, whole modules, executed modules, followed links
        self._sources: set[Source] = set()
        self._links: set[str] = set()
        self.external: set[str] = set()
        for start in starts:
            module, _, name = start.rpartition(".")
            if self._source(module) is None:
                raise FileNotFoundError(f"There is no source of {module} in {str(root)!r}, so a change cannot be seen.")
            self._follow(module, [name])
        while self._todo:
            self._visit(*self._todo.pop())
        self.files = {source.path for source in self._sources}
        self.files |= {path for folder in {path.parent for path in self.files} for path in _data_of(folder)}
        self.digest = self._hash()
        del self._modules, self._seen, self._sources

    def _hash(self) -> str:
        digest = hashlib.sha256("\n".join(sorted(self._links)).encode())
        for path in sorted(self.files):
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(self._root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:16]

    # -- from name to definition -------------------------------------------------------------------------------------
    def _follow(self, module: str, names: Sequence[str]) -> None:
        """Reach what ``module.names[0].names[1]...`` stands for; without names all of the module."""
        top = module.split(".", maxsplit=1)[0]
        if top != self._package:
            self.external.add(top)
            return
        source = self._source(module)
        if source is None:
            return
        self._execute(module)
        if not names:
            self._whole(source)
            return
        name, further = names[0], names[1:]
        statements = source.bindings.get(name, ())
        # `from package import module` within the package itself leads to the file of that name
        targets = [target for target in source.imports.get(name, ()) if target != (module, (name,))]
        for statement in statements:
            self._reach(source, statement)
        for target, attributes in targets:
            self._link(source, name, target, attributes, further)
        if statements or targets or name in ("__doc__", "__file__", "__name__", "__path__", "__spec__"):
            return
        if self._source(f"{module}.{name}") is not None:
            self._follow(f"{module}.{name}", further)
        elif source.stars:
            for target in source.stars:
                self._link(source, "*", target, (), names)
        else:  # made at run time, by something in the module or the package
            self._whole(source)
            for below in self._below(source):
                self._whole(below)

    def _link(
        self, source: Source, name: str, target: str, attributes: Sequence[str], further: Sequence[str] = ()
    ) -> None:
        """Follow what a name of a module is imported from, once."""
        key = f"{source.module}.{name}: {target} {'.'.join([*attributes, *further])}"
        if key not in self._links:
            self._links.add(key)
            self._follow(target, [*attributes, *further])

    def _whole(self, source: Source) -> None:
        """Reach all that a module defines and imports; of a package all names that it gives."""
        if ("whole", source.module) in self._seen:
            return
        self._seen.add(("whole", source.module))
        self._sources.add(source)
        for statements in source.bindings.values():
            for statement in statements:
                self._reach(source, statement)
        for name, targets in source.imports.items():
            for target, attributes in targets:
                self._link(source, name, target, attributes)
        for target in source.stars:
            self._link(source, "*", target, ())

    def _execute(self, module: str) -> None:
        """Reach what the import of a module does by itself, and that of all that it imports."""
        source = self._source(module)
        if source is None or ("executed", module) in self._seen:
            return
        self._seen.add(("executed", module))
        parent = module.rpartition(".")[0]
        if parent:
            self._execute(parent)
        for statement in source.effects:
            self._reach(source, statement)
        for target, attributes in source.imported:
            self._execute(target)
            for attribute in attributes:  # a module itself, or what a lazy package imports on use
                self._execute(f"{target}.{attribute}")
                package = self._source(target)
                for further, _ in package.imports.get(attribute, ()) if package else ():
                    self._execute(further)

    def _reach(self, source: Source, statement: Uses) -> None:
        if statement not in self._seen:
            self._seen.add(statement)
            self._sources.add(source)
            self._todo.append((source, statement))

    def _visit(self, source: Source, uses: Uses) -> None:
        """Follow every name that a statement uses."""
        for target, attributes in uses.imported:
            self._link(source, "", target, attributes)
        for name, *further in uses.names:
            for own in source.bindings.get(name, ()):
                self._reach(source, own)
            for target, attributes in source.imports.get(name, ()):
                self._link(source, name, target, attributes, further)
            if name not in source.bindings and name not in source.imports and not hasattr(builtins, name):
                for target in source.stars:
                    self._link(source, "*", target, (), [name, *further])
        for text in uses.texts:  # names of modules, for import_module and importlib.resources
            if text.startswith(f"{self._package}.") and self._source(text) is not None:
                self._link(source, "", text, ())

    # -- files -------------------------------------------------------------------------------------------------------
    def _source(self, module: str) -> Source | None:
        """Module of the package; None where there is none of this name."""
        if module not in self._modules:
            package, *parts = module.split(".")
            base = self._root.joinpath(*parts)
            places = (base / "__init__.py", base.parent / f"{base.name}.py") if package == self._package else ()
            path = next((place for place in places if place.is_file()), None)
            self._modules[module] = None if path is None else _read(path, module, path.stat().st_mtime_ns)
        return self._modules[module]

    def _below(self, source: Source) -> Iterator[Source]:
        """Modules of a package, at any depth."""
        if source.path.name != "__init__.py":
            return
        for path in source.path.parent.rglob("*.py"):
            parts = path.relative_to(self._root.parent).with_suffix("").parts
            below = self._source(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            if below is not None:
                yield below


@cache
def _read(path: Path, module: str, changed: int) -> Source:
    """A module as its file was at that time."""
    return Source(path, module)


def _data_of(folder: Path) -> Iterator[Path]:
    """Files of a package's folder, and of its folders that are no packages, which are no code."""
    for path in folder.iterdir():
        if path.name.startswith((".", "__pycache__")):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            yield from _data_of(path)
        elif path.is_file() and path.suffix not in _CODE and path.name != "py.typed":
            yield path
