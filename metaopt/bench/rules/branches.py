"""The rule against workload-dependent behaviour, as far as the source shows it.

AlgoPerf lets ``get_batch_size`` depend on the workload's name, and nothing else. An *identity* here
is an expression that tells one workload from another by what it is called: ``workload.name``,
``type(workload)``, ``workload.__class__``, a local variable made of these, an argument
``workload_name``. It may be printed or handed to ``get_batch_size``; it may not be compared, looked
up, or used to choose. What only ``get_batch_size`` refers to (a table, a helper) belongs to it.

Docstrings and comments are no code. What a submission infers from shapes or speeds is not seen.
"""

import ast
from collections.abc import Iterator, Mapping

from metaopt.bench.findings import Problem
from metaopt.bench.rules.subject import Subject

# AlgoPerf's registry at v0.6 and the ninth workload of v1.0; with all variants.
_VARIANTS = {
    "cifar": "",
    "criteo1tb": "test layernorm embed_init resnet",
    "fastmri": "model_size tanh layernorm",
    "finewebedu_lm": "",
    "imagenet_resnet": "silu gelu large_bn_init",
    "imagenet_vit": "glu post_ln map",
    "librispeech_conformer": "attention_temperature layernorm gelu",
    "librispeech_deepspeech": "tanh no_resnet norm_and_spec_aug",
    "mnist": "",
    "ogbg": "gelu silu model_size",
    "wmt": "post_ln attention_temp glu_tanh",
}
ALGOPERF_WORKLOADS = tuple(_VARIANTS)
# This suite's; ``_fixed`` may follow.
OUR_WORKLOADS = (
    "breast_cancer_logistic",
    "cifar10_vgg16",
    "cifar10_vgg16_small",
    "digits_conv",
    "digits_mlp",
    "digits_transformer",
    "ende_transformer",
    "ende_transformer_small",
    "mnist_mlp",
)
WORKLOAD_NAMES = frozenset(
    [*ALGOPERF_WORKLOADS, *OUR_WORKLOADS, *(f"{name}_fixed" for name in OUR_WORKLOADS)]
    + [f"{base}_{variant}" for base, names in _VARIANTS.items() for variant in names.split()]
)

_FIX = (
    "Decide by what every workload tells about its problem (shapes, loss_type, step_hint), or not "
    "at all: only get_batch_size may depend on which workload it is."
)
_BATCH_SIZE = frozenset({"get_batch_size", "get_eval_batch_size"})
_NAMES_OF_A_WORKLOAD = ("name", "base_name", "workload_name")
_OF_A_CLASS = ("__class__", "__name__", "__qualname__", "__module__")
_LOOKUPS = ("get", "pop", "setdefault")
_PREDICATES = ("startswith", "endswith", "find", "index", "count", "match", "search", "fullmatch")

_Functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def find_workload_branches(subject: Subject) -> Iterator[Problem]:
    """Nothing but the batch size depends on which workload it is."""
    exempt = _belongs_to_batch_size(subject.trees)
    for name, tree in subject.trees.items():
        for line, what in sorted(set(_Reader(tree, exempt).read())):
            yield Problem(what, f"{name}:{line}", _FIX)


def is_workload_name(text: object) -> bool:
    """Return whether a string is the name of a workload, AlgoPerf's or this suite's."""
    return isinstance(text, str) and text in WORKLOAD_NAMES


def _belongs_to_batch_size(trees: Mapping[str, ast.Module]) -> frozenset[str]:
    """Return the module-level names that nothing but ``get_batch_size`` refers to."""
    definitions: dict[str, list[ast.stmt]] = {}
    for tree in trees.values():
        for statement in tree.body:
            for name in _defined(statement):
                definitions.setdefault(name, []).append(statement)
    users: dict[str, set[str]] = {name: set() for name in definitions}
    for tree in trees.values():
        for statement in tree.body:
            owner = next(iter(_defined(statement)), "")
            for node in ast.walk(statement):
                used = _referred(node)
                if used in users and used != owner:
                    users[used].add(owner)
    belonging = set(_BATCH_SIZE)
    while True:
        more = {n for n, by in users.items() if n not in belonging and by and by <= belonging}
        if not more:
            return frozenset(belonging)
        belonging |= more


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _referred(node: ast.AST) -> str:
    """Return the name that an expression reads, as a name or as an attribute of a module."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


class _Reader:
    """Reads one file for identities that decide something."""

    def __init__(self, tree: ast.Module, exempt: frozenset[str]) -> None:
        self.tree = tree
        self.exempt = exempt
        self.caches = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and _is_empty_dict(node.value)
            for name in map(
                _referred_target, node.targets if isinstance(node, ast.Assign) else [node.target]
            )
        }

    def read(self) -> Iterator[tuple[int, str]]:
        """Yield the lines, with what is on them."""
        yield from self._visit(self.tree, frozenset())

    def _visit(self, node: ast.AST, known: frozenset[str]) -> Iterator[tuple[int, str]]:
        """Yield what ``node`` and its parts decide; ``known`` are the variables with identities."""
        if isinstance(node, ast.stmt) and self.exempt & {*_defined(node)}:
            return
        if isinstance(node, ast.Call) and _called(node) in self.exempt:
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.arg | ast.alias):
            return
        if isinstance(node, _Functions):
            known = self._known_in(node, known)
        decided = self._decides(node, known)
        if decided and isinstance(node, ast.expr | ast.stmt):
            yield node.lineno, decided
            if isinstance(node, ast.Dict):  # said once, not for each key
                for value in node.values:
                    yield from self._visit(value, known)
                return
            if not isinstance(node, ast.Match):
                return  # said; its parts would say it again
        for child in ast.iter_child_nodes(node):
            yield from self._visit(child, known)

    def _known_in(self, function: _Functions, known: frozenset[str]) -> frozenset[str]:
        """Return the variables that hold an identity inside a function."""
        arguments = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        known = (known - arguments) | (arguments & {"workload_name"})
        while True:  # until nothing new is found: assignments may stand in any order
            more = {
                target.id
                for node in ast.walk(function)
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name) and self._is_identity(node.value, known)
            }
            if more <= known:
                return known
            known |= more

    def _is_identity(self, node: ast.AST | None, known: frozenset[str]) -> bool:
        """Return whether the value of an expression tells which workload it is."""
        if isinstance(node, ast.Name):
            return node.id in known
        if isinstance(node, ast.Attribute):
            if _is_workload(node.value):
                return node.attr in _NAMES_OF_A_WORKLOAD or node.attr in _OF_A_CLASS
            return node.attr in _OF_A_CLASS and self._is_identity(node.value, known)
        if isinstance(node, ast.Call):
            if _called(node) in self.exempt:
                return False
            if _called(node) in ("getattr", "vars") and node.args and _is_workload(node.args[0]):
                named = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
                return any(n in (*_NAMES_OF_A_WORKLOAD, *_OF_A_CLASS) for n in named)
            if _called(node) in ("type", "repr", "str") and any(map(_is_workload, node.args)):
                return True
            of_identity = isinstance(node.func, ast.Attribute) and self._is_identity(
                node.func.value, known
            )  # workload.name.lower()
            as_text = isinstance(node.func, ast.Name) and node.func.id in ("str", "repr")
            return of_identity or (
                as_text and any(self._is_identity(argument, known) for argument in node.args)
            )
        if isinstance(node, ast.BoolOp):
            return any(self._is_identity(value, known) for value in node.values)
        if isinstance(node, ast.Subscript):  # workload.name.split("_")[0]
            return self._is_identity(node.value, known)
        if isinstance(node, ast.IfExp):
            return self._is_identity(node.body, known) or self._is_identity(node.orelse, known)
        if isinstance(node, ast.JoinedStr):
            values = (v.value for v in node.values if isinstance(v, ast.FormattedValue))
            return any(self._is_identity(value, known) for value in values)
        if isinstance(node, ast.Tuple | ast.List):
            return any(self._is_identity(element, known) for element in node.elts)
        return False

    def _decides(self, node: ast.AST, known: frozenset[str]) -> str:
        """Return what an expression makes of an identity, if it decides something with it."""
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            is_none = any(isinstance(s, ast.Constant) and s.value is None for s in sides)
            in_cache = _referred(sides[-1]) in self.caches
            if not is_none and not in_cache and any(self._is_identity(s, known) for s in sides):
                return f"compares which workload it is: {ast.unparse(node)}"
        elif isinstance(node, ast.Subscript) and self._is_identity(node.slice, known):
            if _referred(node.value) not in self.caches:
                return f"looks up by workload: {ast.unparse(node)}"
        elif isinstance(node, ast.Match) and self._is_identity(node.subject, known):
            return f"branches on which workload it is: match {ast.unparse(node.subject)}"
        elif isinstance(node, ast.Call):
            return self._call_decides(node, known)
        elif isinstance(node, ast.Dict):
            names = [
                str(key.value)
                for key in node.keys
                if isinstance(key, ast.Constant) and is_workload_name(key.value)
            ]
            if names:
                return f"has settings by workload: a dictionary with {_listed(names)}"
        elif isinstance(node, ast.Constant) and is_workload_name(node.value):
            return f"names the workload {node.value!r}"
        return ""

    def _call_decides(self, node: ast.Call, known: frozenset[str]) -> str:
        called, identities = _called(node), [a for a in node.args if self._is_identity(a, known)]
        method = isinstance(node.func, ast.Attribute)
        if called in ("isinstance", "issubclass") and node.args:
            if _is_workload(node.args[0]) or identities:
                return f"asks for the workload's class: {ast.unparse(node)}"
        elif called == "getattr" and self._is_identity(
            node.args[1] if node.args[1:] else None, known
        ):
            return f"looks up by workload: {ast.unparse(node)}"
        elif method and called in _LOOKUPS and identities:
            if _referred(node.func.value) not in self.caches:  # type: ignore[attr-defined]
                return f"looks up by workload: {ast.unparse(node)}"
        elif called == "import_module" and identities:
            return f"imports by workload: {ast.unparse(node)}"
        elif method and called in _PREDICATES:
            on = node.func.value  # type: ignore[attr-defined]
            if identities or self._is_identity(on, known):
                return f"compares which workload it is: {ast.unparse(node)}"
        return ""


def _is_workload(node: ast.AST) -> bool:
    """Return whether an expression is the workload: ``workload``, ``self._workload``."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return isinstance(node, ast.Name | ast.Attribute) and name.lstrip("_") == "workload"


def _called(node: ast.Call) -> str:
    return _referred(node.func)


def _referred_target(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _is_empty_dict(node: ast.AST | None) -> bool:
    if isinstance(node, ast.Dict):
        return not node.keys
    return (
        isinstance(node, ast.Call)
        and _called(node) in ("dict", "WeakKeyDictionary")
        and not (node.args or node.keywords)
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
