"""What a Python file binds and uses at module level, read from its syntax tree."""

from __future__ import annotations

import ast
import symtable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Target = tuple[str, tuple[str, ...]]  # a module, and the attributes that lead on from it


class Source:
    """One module.

    Parameters
    ----------
    path
        File of the module.
    module
        Full name of the module.

    Attributes
    ----------
    bindings
        What the statements use that give a name its value, or change it.
    imports
        What an imported name stands for; in a package with ``lazy_loader`` also what is imported on use.
    imported
        What the import of this module imports.
    stars
        Modules all of whose names are imported.
    effects
        What the statements use that do something beyond binding names, such as a call.
    """

    def __init__(self, path: Path, module: str):
        self.path, self.module = path, module
        self.bindings: dict[str, list[Uses]] = {}
        self.imports: dict[str, list[Target]] = {}
        self.imported: list[Target] = []
        self.stars: list[str] = []
        self.effects: list[Uses] = []
        code = path.read_text(encoding="utf-8")
        table = symtable.symtable(code, str(path), "exec")
        for statement in ast.parse(code, str(path)).body:
            self._read(statement, Uses(self, statement, _local_names(table, statement)))

    @property
    def package(self) -> str:
        """Package that relative imports start from."""
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]

    def targets(self, statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Target]]:
        """Names that an import binds, with what they stand for."""
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                module = alias.name if alias.asname else alias.name.split(".")[0]  # `import a.b` binds a alone
                yield alias.asname or module, (module, ())
            return
        module = statement.module or ""
        if statement.level:
            parts = self.package.split(".")
            module = ".".join([*parts[: len(parts) - statement.level + 1], *filter(None, [module])])
        for alias in statement.names:
            yield alias.asname or alias.name, (module, (alias.name,))

    def _read(self, statement: ast.stmt, outer: Uses) -> None:
        """Note what a statement binds; `outer` is of the statement of the module that it is a part of."""
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._bind(statement.name, outer)
                if any("register" in ast.unparse(decorator) for decorator in statement.decorator_list):
                    self.effects.append(outer)
            case ast.Import() | ast.ImportFrom():
                self._import(statement)
                if isinstance(statement, ast.Import):
                    self.imported += [(alias.name, ()) for alias in statement.names]
            case ast.Assign(value=ast.Call(args=[ast.Name(id="__name__"), *_]) as call):
                self._attach(call)
                self._assign(statement, outer)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                self._assign(statement, outer)
            case ast.If():
                if not _is_for_types(statement.test) and not _is_for_scripts(statement.test):
                    self._read_all(statement.body, outer)
                self._read_all(statement.orelse, outer)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Try() | ast.With() | ast.For() | ast.While() | ast.Match():
                self._bind_stored(statement, outer)
                for block in _blocks(statement):
                    self._read_all(block, outer)
            case _:
                self.effects.append(outer)

    def _read_all(self, statements: Iterable[ast.stmt], outer: Uses) -> None:
        for statement in statements:
            self._read(statement, outer)

    def _assign(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign, outer: Uses) -> None:
        self._bind_stored(statement, outer)
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            while isinstance(target, ast.Attribute | ast.Subscript):
                target = target.value
                if isinstance(target, ast.Name) and target.id not in self.imports:
                    self._bind(target.id, outer)
                elif isinstance(target, ast.Name):  # changes something of another module
                    self.effects.append(outer)

    def _bind_stored(self, statement: ast.stmt, outer: Uses) -> None:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._bind(node.id, outer)

    def _bind(self, name: str, statement: Uses) -> None:
        self.bindings.setdefault(name, []).append(statement)

    def _import(self, statement: ast.Import | ast.ImportFrom, *, now: bool = True) -> None:
        for name, target in self.targets(statement):
            if name == "*":
                self.stars.append(target[0])
            else:
                self.imports.setdefault(name, []).append(target)
            if now:
                self.imported.append(target)

    def _attach(self, call: ast.Call) -> None:
        """Names that ``lazy_loader``'s ``attach`` and ``attach_stub`` give; none where they are not written out."""
        kind = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if kind == "attach_stub":
            for line in ast.parse(self.path.with_suffix(".pyi").read_bytes()).body:
                if isinstance(line, ast.Import | ast.ImportFrom):
                    self._import(line, now=False)
        if kind != "attach":
            return
        given = dict(zip(("submodules", "submod_attrs"), call.args[1:], strict=False))
        given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        for name in _written(given.get("submodules")) or ():
            self.imports.setdefault(name, []).append((f"{self.module}.{name}", ()))
        for below, names in (_written(given.get("submod_attrs")) or {}).items():
            for name in names:
                self.imports.setdefault(name, []).append((f"{self.module}.{below}", (name,)))


class Uses(ast.NodeVisitor):
    """What a statement of a module uses.

    Parameters
    ----------
    source
        The module.
    statement
        The statement, with all that is nested in it; annotations and what is for type checkers alone do not count.
    local
        Names that are local wherever the statement uses them.

    Attributes
    ----------
    names
        Names of the module, each with the attributes that follow it, such as ``("np", "linalg", "norm")``.
    imported
        What the imports within the statement bring.
    texts
        Strings of the statement that might name a module.
    """

    def __init__(self, source: Source, statement: ast.stmt, local: set[str]):
        self._targets = source.targets
        self._functions = 0  # how many are around what is visited
        self._found: set[tuple[str, ...]] = set()
        self._imports: list[tuple[str, Target]] = []  # of functions
        self.imported: set[Target] = set()
        self.texts: set[str] = set()
        self.visit(statement)
        self.names = {chain for chain in self._found if chain[0] not in local}
        self.imported |= {
            (module, (*names, *chain[1:]))
            for name, (module, names) in self._imports
            for chain in self._found
            if chain[0] == name
        }
        del self._targets, self._found, self._imports

    def visit_Name(self, node: ast.Name) -> None:
        """A name alone."""
        self._found.add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A name and its attributes."""
        attributes: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            attributes.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._found.add((value.id, *reversed(attributes)))
        else:
            self.visit(value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A string may be the name of a module."""
        if isinstance(node.value, str) and node.value.replace(".", "_").isidentifier():
            self.texts.add(node.value)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        """An import within a definition: the module runs, and what is used of it follows from the uses."""
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name, target in self._targets(node):
            modules.append(target[0])
            if self._functions:
                self._imports.append((name, target))
            elif name != "*":  # in a class, whose attribute it is, or in a block
                self.imported.add(target)
        self.imported.update((module, ("__name__",)) for module in modules)

    visit_ImportFrom = visit_Import

    def visit_If(self, node: ast.If) -> None:
        """Without what is for type checkers alone."""
        for part in [node.test, *([] if _is_for_types(node.test) else node.body), *node.orelse]:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Without the annotation."""
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Without the annotation."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Without the annotation of what it returns."""
        self._functions += 1
        for part in [*node.decorator_list, node.args, *node.body]:
            self.visit(part)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef


def _local_names(table: symtable.SymbolTable, statement: ast.stmt) -> set[str]:
    """Names that functions of a statement bind, and that nothing in it takes from the module.

    In doubt a name is taken not to be local: then more is followed than need be.
    """
    first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))])
    symbols = [
        symbol
        for scope in _scopes(table)
        if scope.get_type() == "function" and first <= scope.get_lineno() <= (statement.end_lineno or first)
        for symbol in scope.get_symbols()
    ]
    shared = {symbol.get_name() for symbol in symbols if symbol.is_global()}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        outside = [*statement.decorator_list, statement.args]
        shared |= {node.id for part in outside for node in ast.walk(part) if isinstance(node, ast.Name)}
    else:
        shared |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    return {symbol.get_name() for symbol in symbols if symbol.is_local()} - shared


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """Scopes within a scope, at any depth."""
    for child in table.get_children():
        yield child
        yield from _scopes(child)


def _written(node: ast.expr | None) -> Any:
    """Value of a literal; None for anything else."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Lists of statements within a compound statement."""
    for part in (statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        for field in ("body", "orelse", "finalbody"):
            yield getattr(part, field, [])


def _is_for_types(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _is_for_scripts(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
