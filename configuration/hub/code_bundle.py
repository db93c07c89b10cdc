"""Join the package's modules into the four files of code that a saved model carries.

Repositories on the Hub hold their code as a few files side by side. Each of ours is a chain of modules, in the order of
their imports, with their text as it stands. A module goes to the first file that needs it. Imports within a file
vanish, those across files and of other packages stand once at the top.

A module that is imported inside `try: ... except ImportError:` isn't carried. At the top of a module the handler stands
in its place in a saved model's code, and defines the same names. In a function that code imports from the installed
package, and the handler says what to do without it. What each module adds to the size is printed by
`python -m bga_mner.configuration.hub.code_bundle`.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..errors import shown
from .entry_points import AUTO_MAP, CODE_FILES, CUSTOM_PIPELINES


PACKAGE = "bga_mner"
ENTRY_MODULES = (
    ("configuration/configuration_bga_mner.py",),
    (
        "modeling_bga/token_classifier.py",
        "modeling_bga/sequence_classifier.py",
        "modeling_bga/modeling_bga_mner.py",
    ),
    ("processing/processing_bga_mner.py",),
    ("processing/pipeline_bga_mner.py",),
)
"""Where the walk along imports starts, for each of `CODE_FILES`; the last one's docstring becomes the file's."""

# Each module makes its own; joined, one of the same text does.
_SHAREABLE = ("logging.get_logger", "TypeVar")
_WIDTH = 120


@dataclass
class Module:
    """A module of the package, taken apart."""

    path: Path
    name: str  # such as "modeling_bga/crf/crf.py"
    docstring: str = ""
    futures: set[str] = field(default_factory=set)
    imports: set[tuple[str, str, str]] = field(default_factory=set)  # of other packages: module, name, name here
    needs: list[tuple[Path, list[str]]] = field(default_factory=list)  # modules of the package, and names of them
    statements: list[tuple[set[str], str, bool]] = field(default_factory=list)  # names, text, may be left out if there


@cache
def bundle_package() -> dict[str, str]:
    """Return the files of code that a saved model carries, from name to text."""
    root = Path(str(files(PACKAGE)))
    entries = {name: [root / entry for entry in paths] for name, paths in zip(CODE_FILES, ENTRY_MODULES, strict=True)}
    found = bundle(root, entries)
    classes = [*AUTO_MAP.values(), *(pipeline["impl"] for pipeline in CUSTOM_PIPELINES.values())]
    return {**found, CODE_FILES[0]: found[CODE_FILES[0]] + _tie(CODE_FILES[0], classes)}


def bundle(root: Path, entries: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Join the modules below a folder into files."""
    home: dict[Path, str] = {}
    texts = {}
    for file, paths in entries.items():
        modules: dict[Path, Module] = {}
        for path in paths:
            for found in _in_order(path, root, []):
                if home.setdefault(found.path, file) == file:
                    modules[found.path] = found
        texts[file] = _joined(file, list(modules.values()), home)
    return texts


def one_file(entry: Path) -> str:
    """Join a module of the package, and all that it imports from others, into one file."""
    root = Path(str(files(PACKAGE)))
    return bundle(root, {entry.name: [entry]})[entry.name]


def sizes(text: str) -> dict[str, int]:
    """Return the bytes that each module adds to a joined file; "" has what stands before the first."""
    first, *others = re.split(r"^# ---- (?=\S+: )", text, flags=re.MULTILINE)
    return {"": len(first.encode()), **{part.split(":")[0]: len(f"# ---- {part}".encode()) for part in others}}


def _tie(file: str, classes: Iterable[str]) -> str:
    """Write imports of the other files that are never run: transformers fetches the files that a text names."""
    named = sorted({tuple(name.split(".")) for name in classes if f"{name.split('.')[0]}.py" != file})
    lines = [f"    from .{module} import {name}  # noqa: F401\n" for module, name in named]
    return f"\n\nif False:  # whoever loads this file fetches all files of the code\n{''.join(lines)}"


def _in_order(path: Path, root: Path, above: list[Path]) -> Iterator[Module]:
    """Take a module and all that it needs apart, what is needed first; one may come several times."""
    if path in above:
        circle = " -> ".join(step.relative_to(root).as_posix() for step in [*above[above.index(path) :], path])
        raise ValueError(f"Expected imports without circles, got {shown(circle)}. Move what both need to a third one.")
    module = _read(path, root)
    for needed, _ in module.needs:
        yield from _in_order(needed, root, [*above, path])
    yield module


@cache
def _read(path: Path, root: Path) -> Module:
    """Take a module apart."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    module = Module(path, path.relative_to(root).as_posix(), ast.get_docstring(tree, clean=False) or "")
    lines = text.splitlines(keepends=True)
    after = 0  # lines before this one are done
    for number, statement in enumerate(tree.body):
        end = statement.end_lineno or statement.lineno
        source, first, after = lines[after:end], after, end
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _add_import(module, statement, root)
        elif isinstance(statement, ast.Try) and any(isinstance(inner, ast.ImportFrom) for inner in statement.body):
            module.statements.append((*_stand_in(module, statement, root, lines), False))
        elif not (number == 0 and module.docstring) and not _is_left_out(module, statement):
            _point_to_package(module, statement, root, source, first)
            may_be_there = isinstance(statement, ast.Assign) and ast.unparse(statement.value).startswith(_SHAREABLE)
            module.statements.append((set(_bound(statement)), "".join(source), may_be_there))
    return module


def _is_left_out(module: Module, statement: ast.stmt) -> bool:
    """Whether a statement means nothing where modules are joined: `__all__`, and imports for type checkers alone."""
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets)
    if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
        if not statement.orelse and all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in statement.body):
            return True
        raise _refused(module, statement, "imports alone below 'if TYPE_CHECKING'", "Move the rest out.")
    return False


def _add_import(module: Module, statement: ast.Import | ast.ImportFrom, root: Path) -> None:
    """Note an import at the top of a module."""
    if isinstance(statement, ast.Import):
        module.imports |= {(alias.name, "", alias.asname or "") for alias in statement.names}
    elif statement.module == "__future__":
        module.futures |= {alias.name for alias in statement.names}
    elif statement.level == 0:
        names = ((alias.name, alias.asname or alias.name) for alias in statement.names)
        module.imports |= {(statement.module or "", name, here) for name, here in names}
    else:
        if any(alias.asname or alias.name == "*" for alias in statement.names):
            raise _refused(module, statement, "'from .module import name'", "Name each, and don't rename it.")
        module.needs.append((_imported(module, statement, root), [alias.name for alias in statement.names]))


def _imported(module: Module, statement: ast.ImportFrom, root: Path) -> Path:
    """Return the file that a relative import names."""
    path = module.path.parents[statement.level - 1].joinpath(*(statement.module or "").split(".")).with_suffix(".py")
    if not statement.module or not path.is_file() or not path.is_relative_to(root):
        raise _refused(module, statement, "an import from a module of the package", "Name the module's own file.")
    return path


def _stand_in(module: Module, statement: ast.Try, root: Path, lines: list[str]) -> tuple[set[str], str]:
    """Return what stands for modules that aren't carried, by an optional import at the top: names, and text."""
    imports = [inner for inner in statement.body if isinstance(inner, ast.ImportFrom) and inner.level]
    handler, *others = statement.handlers
    for found in imports:
        _imported(module, found, root)
    names = {alias.name for found in imports for alias in found.names}
    bound = {name for inner in handler.body for name in _bound(inner)}
    if others or len(imports) < len(statement.body) or not names <= bound:
        raise _refused(module, statement, "a handler that defines what is imported", "Define each name there.")
    return bound, textwrap.dedent("".join(lines[handler.lineno : handler.end_lineno]))


def _point_to_package(module: Module, statement: ast.stmt, root: Path, source: list[str], first: int) -> None:
    """Make optional imports of modules that aren't carried name the installed package; change lines in place."""
    optional = {
        id(inner)
        for outer in ast.walk(statement)
        if isinstance(outer, ast.Try) and any("ImportError" in ast.unparse(it.type or outer) for it in outer.handlers)
        for inner in outer.body
    }
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.level:
            if id(node) not in optional:
                raise _refused(
                    module, node, "relative imports at the top, or in 'try: ... except ImportError'", "Move it there."
                )
            path = _imported(module, node, root).relative_to(root).with_suffix("")
            line = node.lineno - 1 - first
            source[line] = re.sub(r"from [.\w]+", f"from {'.'.join([PACKAGE, *path.parts])}", source[line], count=1)


def _bound(node: ast.AST) -> Iterator[str]:
    """Name what a statement defines in the module."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for inner in ast.iter_child_nodes(node):
            yield from _bound(inner)


def _joined(file: str, modules: list[Module], home: Mapping[Path, str]) -> str:
    """Write a file of some modules."""
    imports = {found for module in modules for found in module.imports}
    siblings: dict[str, set[str]] = {}  # of each other file: names that this one takes
    owners: dict[str, str] = {}  # of each name: what it is, or where
    for origin, name, here in sorted(imports):
        top = origin.split(".")[0]
        _claim(owners, here or top, f"{origin} {name}".strip() if here else top, file)
    for module in modules:
        for path, names in module.needs:
            if home[path] != file:
                siblings.setdefault(home[path].removesuffix(".py"), set()).update(names)
    for origin, taken in siblings.items():
        for name in taken:
            _claim(owners, name, origin, file)
    body = []
    for module in modules:
        summary = module.docstring.strip().split("\n")[0]
        body.append(f"\n\n# ---- {module.name}: {summary}\n\n\n")
        kept = []
        for bound, text, may_be_there in module.statements:
            if may_be_there and all(owners.get(name) == text.strip() for name in bound):
                continue
            for name in bound:
                _claim(owners, name, text.strip() if may_be_there else module.name, file)
            kept.append(text)
        body.append("".join(kept).strip("\n") + "\n")
    futures = sorted({name for module in modules for name in module.futures})
    head = [f'"""{modules[-1].docstring}"""\n\n', f"# Made of modules of the package {PACKAGE}: change them there.\n\n"]
    head += [f"from __future__ import {', '.join(futures)}\n\n"] if futures else []
    groups = _import_lines(imports), [_from_line(f".{name}", siblings[name]) for name in sorted(siblings)]
    return "".join([*head, *groups[0], "\n" if groups[1] else "", *groups[1], *body])


def _claim(owners: dict[str, str], name: str, what: str, file: str) -> None:
    """Note what a name of a file stands for; it may not stand for two things."""
    other = owners.setdefault(name, "Python" if hasattr(builtins, name) else what)
    if other != what:
        raise ValueError(
            f"Expected names that differ in all modules of {file}, got {name} of {shown(other)} and of {shown(what)}. "
            "Rename one."
        )


def _import_lines(imports: set[tuple[str, str, str]]) -> list[str]:
    """Write imports of other packages: the standard library's, then others."""
    lines: tuple[list[str], list[str]] = ([], [])
    plain = sorted((origin, here) for origin, name, here in imports if not name)
    named: dict[str, set[str]] = {}
    for origin, name, here in imports:
        if name:
            named.setdefault(origin, set()).add(name if here == name else f"{name} as {here}")
    for origin, here in plain:
        _group(lines, origin).append(f"import {origin}{f' as {here}' if here else ''}\n")
    for origin in sorted(named):
        _group(lines, origin).append(_from_line(origin, named[origin]))
    return [*lines[0], *(["\n"] if lines[0] and lines[1] else []), *lines[1]]


def _group(lines: tuple[list[str], list[str]], origin: str) -> list[str]:
    return lines[origin.split(".")[0] not in sys.stdlib_module_names]


def _from_line(origin: str, names: Iterable[str]) -> str:
    line = f"from {origin} import {', '.join(sorted(names))}\n"
    if len(line) <= _WIDTH:
        return line
    listed_names = "".join(f"    {name},\n" for name in sorted(names))
    return f"from {origin} import (\n{listed_names})\n"


def _refused(module: Module, node: ast.stmt, expected: str, mend: str) -> ValueError:
    found = shown(ast.unparse(node).split("\n")[0])
    return ValueError(f"Expected {expected} in {module.name}, line {node.lineno}, got {found}. {mend}")


def main() -> None:
    """Print what each module adds to the code that a saved model carries."""
    rows = [(file, name, size) for file, text in bundle_package().items() for name, size in sizes(text).items()]
    for file, name, size in rows:
        print(f"{size / 1000:7.1f} kB  {file:26} {name or '(imports)'}")
    print(f"{sum(size for *_, size in rows) / 1000:7.1f} kB  in all")


__all__ = ["ENTRY_MODULES", "Module", "bundle", "bundle_package", "main", "one_file", "sizes"]

if __name__ == "__main__":
    main()
