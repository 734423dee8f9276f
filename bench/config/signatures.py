"""Settings of a builder or method read from its source, so that they are checked before torch is imported."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from typing import Any

import pydantic

from bench.config.paths import SUITES_ENTRY_POINT
from bench.config.settings import VOCABULARY
from bench.config.syntax import syntax_digest
from bench.errors import UsageError, did_you_mean

#: The instrument's own package: it has a version of its own, and no case is another one because it changes.
_OWN = __name__.partition(".")[0]


@dataclass(frozen=True)
class Signature:
    """Keyword settings of a callable: name -> (type, default); `open` accepts any other keyword as well.

    `unchecked` are the settings whose annotation is missing or not of the vocabulary: any value is let through to the
    callable.
    """

    settings: dict[str, tuple[Any, Any]]
    open: bool = False
    unchecked: tuple[str, ...] = ()
    _readers: dict[tuple[str, ...], type[pydantic.BaseModel]] = field(default_factory=dict, compare=False, repr=False)

    def reader(self, names: tuple[str, ...]) -> type[pydantic.BaseModel]:
        """A model of these settings; made once, which takes a millisecond or two, for a plan of thousands."""
        if names not in self._readers:
            fields: dict[str, Any] = {name: self.settings[name] for name in names}
            self._readers[names] = pydantic.create_model("Settings", __config__=_STRICT, **fields)
        return self._readers[names]


#: A callable whose source was not found: everything is accepted here and checked when it is called.
UNKNOWN = Signature({}, open=True)


def split_path(path: str) -> tuple[str, str]:
    """Module and attribute of `package.module:name`.

    Raises:
        UsageError: the text is not of that form.
    """
    module, colon, name = path.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f'"{path}" is not of the form package.module:Callable')
    return module, name


def source_file(module: str) -> Path | None:
    """The file a module is defined in, found without importing the module itself; None for one without source.

    Raises:
        UsageError: there is no such module on the path.
    """
    there = _in_folders(module)
    if there is not None:
        return there
    try:
        spec = importlib.util.find_spec(module)
    except ImportError as error:
        raise UsageError(f'module "{module}" cannot be found: {error}') from error
    except ValueError:
        return None
    if spec is None:
        raise UsageError(f'module "{module}" is not on the path; run where it can be imported or set PYTHONPATH')
    has_source = spec.origin and spec.origin.endswith(".py")
    return Path(spec.origin) if has_source and spec.origin else None


def _in_folders(module: str) -> Path | None:
    """The file of a module below a package, by the names of folders alone; None where they do not tell.

    `find_spec` would import every package above the module, which of a large library takes seconds. Below a package
    that is imported already it imports nothing and knows more.
    """
    top, *parts = module.split(".")
    if not parts or module.rpartition(".")[0] in sys.modules:
        return None
    found = (_source_at(Path(place).joinpath(*parts)) for place in _places(top))
    return next((file for file in found if file is not None), None)


def _source_at(path: Path) -> Path | None:
    """The file of the package or module whose path without an ending this is."""
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _places(top: str) -> list[str]:
    """Folders of a top-level package; none of a module, or where there is none of that name."""
    if top in sys.modules:
        return list(getattr(sys.modules[top], "__path__", ()))
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    return list(spec.submodule_search_locations or ()) if spec else []


@cache
def source_tree(file: Path) -> ast.Module:
    """The syntax tree of a source file, parsed once per process."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UsageError(f"{file.name}, line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # no text, or nested without end
        raise UsageError(f"{file.name}: cannot be read as Python ({type(error).__name__}: {error})") from error


def _defined_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _names_of(module: str, above: frozenset[str]) -> set[str] | None:
    """Every name that a module has, those of `from ... import *` among them; None where the source does not tell.

    Args:
        module: its dotted path.
        above: modules that are being read, so that a circle of them ends.
    """
    file = source_file(module)
    if file is None:
        return None
    tree = source_tree(file)
    if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        return None
    known = _defined_names(tree)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            parent = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (parent, node.module)))
            if source in above:
                continue
            try:
                further = _names_of(source, above | {module})
            except UsageError:
                further = None
            if further is None:
                return None
            known |= further
    return known


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ClassDef) and node.name == name:
            inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            return inits[0] if inits else None
    return None


def class_constant(path: str, name: str) -> Any:
    """The literal that the class `package.module:Class`, or a base of it, sets as `name`, from the source alone.

    None where there is none, or where it cannot be known without an import.
    """
    module, class_name = split_path(path)
    file = source_file(module)
    if file is None:
        return None
    tree = source_tree(file)
    found = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), None)
    if found is None:
        return _imported_constant(tree, class_name, name)
    for node in found.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if name in targets:
                return node.value.value
    bases = (base.id for base in found.bases if isinstance(base, ast.Name))
    return next((value for base in bases if (value := class_constant(f"{module}:{base}", name)) is not None), None)


def _imported_constant(tree: ast.Module, class_name: str, name: str) -> Any:
    """As `class_constant`, of a class that the module has from another one."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == class_name:
                    return class_constant(f"{node.module}:{alias.name}", name)
    return None


def _type(annotation: ast.expr | None) -> Any:
    """The annotated type if it is built from our vocabulary alone; else Any, and the callable itself has to check."""
    if annotation is None or not _is_plain(annotation):
        return Any
    code = compile(ast.Expression(annotation), "<annotation>", "eval")
    try:
        return eval(code, {"__builtins__": {}}, dict(VOCABULARY))  # names, no attributes, no text that is code
    except (TypeError, ValueError):  # parts that do not go together, such as int[str]
        return Any


def _is_plain(node: ast.expr, text: bool = False) -> bool:
    """Whether evaluating an annotation does no more than to put names of our vocabulary together.

    Args:
        node: the annotation or a part of it.
        text: whether a string is a value here, as in `Literal["a"]`; anywhere else pydantic would take it for code.
    """
    parts: list[tuple[ast.expr, bool]]
    match node:
        case ast.Name(id=name):
            return name in VOCABULARY
        case ast.Constant(value=value):
            return text or not isinstance(value, str)
        case ast.Subscript(value=outer, slice=inner):
            parts = [(outer, False), (inner, isinstance(outer, ast.Name) and outer.id == "Literal")]
        case ast.Tuple(elts=items) | ast.List(elts=items):
            parts = [(item, text) for item in items]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [(left, False), (right, False)]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            parts = [(operand, False)]
        case ast.Call(func=ast.Name(id="Field"), args=positional, keywords=keywords):
            parts = [(value, True) for value in (*positional, *(keyword.value for keyword in keywords))]
        case _:
            return False
    return all(_is_plain(part, plain) for part, plain in parts)


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return ...
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


@cache
def signature(path: str) -> Signature:
    """The keyword settings of `package.module:Callable`, from its source alone.

    Raises:
        UsageError: the module does not exist or has nothing of that name.
    """
    module, name = split_path(path)
    file = source_file(module)
    if file is None or "." in name:
        return UNKNOWN
    tree = source_tree(file)
    function = _function(tree, name)
    if function is None:
        known = _names_of(module, frozenset())
        if known is None or name in known:
            return UNKNOWN
        public = {word for word in known if not word.startswith("_")}
        raise UsageError(f'"{module}" has no "{name}"; {did_you_mean(name, public)}')
    arguments = function.args
    settings = {
        argument.arg: (_type(argument.annotation), _default(default))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, node in zip(positional, defaults, strict=True):
        if node is not None:
            settings[argument.arg] = (_type(argument.annotation), _default(node))
    unchecked = tuple(name for name, (kind, _) in settings.items() if kind is Any)
    return Signature(settings, open=arguments.kwarg is not None, unchecked=unchecked)


def check_settings(what: str, path: str, given: dict[str, Any], *, reserved: tuple[str, ...] = ()) -> None:
    """Raise UsageError unless the settings fit the callable.

    Args:
        what: how to name the callable in an error, such as `method "tome"`.
        path: `package.module:Callable`.
        given: the settings by name.
        reserved: parameters that the bench itself fills in.

    Raises:
        UsageError: a name that it does not take, a value of the wrong type or range, or a missing one.
    """
    known = signature(path)
    names = [name for name in known.settings if name not in reserved]
    for name in given:
        if name not in names and not known.open:
            raise UsageError(f'{what} has no setting "{name}"; {did_you_mean(name, names)}')
    try:
        read = known.reader(tuple(names))(**given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "missing":
            raise UsageError(f'{what} needs the setting "{where}"') from error
        value = given.get(where)
        raise UsageError(f"{what}: setting {where}={value!r} is not valid: {first['msg'].lower()}") from error
    for name in names:
        _check_spelling(what, name, given.get(name), getattr(read, name, None))


def _check_spelling(what: str, name: str, given: Any, read: Any) -> None:
    """Raise UsageError if a value fits only after a conversion that the callable would have to make: 10.0 for 10."""
    plain = (bool, int, float, str)
    if not isinstance(given, plain) or not isinstance(read, plain) or isinstance(read, float):
        return
    if type(given) is not type(read):
        raise UsageError(f"{what}: setting {name}={given!r} is not valid: write {name}={read!r}")


_STRICT = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True, protected_namespaces=(), strict=False)


@cache
def _imports(tree: ast.Module, package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def _module_file(module: str) -> Path | None:
    """The file of a module if it is one that can be found without running another module."""
    parent, _, name = module.rpartition(".")
    if parent and not _is_package(parent):
        return None  # `from module import attribute` names module.attribute, which is no module
    above = _module_file(parent) if parent and parent not in sys.modules else None
    if above is not None:  # to ask further would run the package
        return _source_at(above.parent / name)
    try:
        return source_file(module)
    except UsageError:
        return None


@cache
def _is_package(module: str) -> bool:
    """Whether a module is a folder of others, with or without an `__init__.py`."""
    parent = module.rpartition(".")[0]
    if parent and not _is_package(parent):
        return False
    file = _in_folders(module)
    if file is not None:
        return file.name == "__init__.py"
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None and spec.submodule_search_locations is not None


@cache
def is_users_code(top: str) -> bool:
    """Whether a top-level module is code that a user may be editing: not installed, not Python's, not the bench."""
    if top in sys.stdlib_module_names or top == _OWN:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return False
    places = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or ()) if spec else []
    return bool(places) and not any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


@cache
def installed_version(top: str) -> str | None:
    """`distribution version` of an installed top package; None for the user's own code and packages with suites."""
    if is_users_code(top) or top == _OWN:
        return None
    if any(entry.value.partition(".")[0] == top for entry in entry_points(group=SUITES_ENTRY_POINT)) or top == "suites":
        return None
    names = packages_distributions().get(top, [])
    return ", ".join(sorted({f"{name} {version(name)}" for name in names})) or None


def source_digest(path: str) -> str:
    """Hash of the source that a callable is made of: its module, and all modules of the user's that it imports.

    Those are the modules of the same top package and of any other that is neither installed nor Python's own. Of an
    installed package its version stands for the source.

    Changing a method's source makes new cases of that method and leaves the others alone. It is a hash of the syntax:
    comments, layout and docstrings may change.
    """
    module, _ = split_path(path)
    top = module.split(".")[0]
    installed = installed_version(top)
    if installed is not None:
        return hashlib.sha256(f"{path}\0{installed}\0".encode()).hexdigest()[:16]
    waiting, files = [module], dict[str, Path]()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not (name.split(".")[0] == top or is_users_code(name.split(".")[0])):
            continue
        seen.add(name)
        file = _module_file(name)
        if file is not None:
            files[name] = file
            waiting += sorted(
                _imports(source_tree(file), name if file.name == "__init__.py" else name.rpartition(".")[0])
            )
    hashed = hashlib.sha256()
    for name in sorted(files):
        hashed.update(f"{name}\0{syntax_digest(source_tree(files[name]))}\0".encode())
    return hashed.hexdigest()[:16]
