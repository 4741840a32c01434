"""Mutation testing of the policy core: not a test, a script that asks whether the tests would notice.

    python -m tests.policy.mutate engine.evaluate engine.index     # EVERY=4: a quarter of the mutants; SHOW=1: progress

Every function of a module is changed in one place at a time, in this process: the code of the function is replaced by
that of its mutant, the tests of the policy core are called one after another until one fails, and the code is put back.
The test that failed last is asked first, so most mutants die in milliseconds. A mutant that takes more than
``MAX_SECONDS`` of CPU time in one test counts as killed. Exits with 1 when fewer than 95 % are.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import gc
import importlib
import inspect
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

TESTS = ("test_cases.py", "test_topics.py", "test_index.py", "test_truth.py", "test_review.py")
LEFT_OUT = ("import", "presets", "large_policy", "identical", "random_pairs", "rewrites", "compiling")
MAX_SECONDS = 10
MAX_BYTES = 3 << 30
WANTED = 0.95
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the function it is in, as a path of names, its line, what it reads now, and the changed module."""

    function: tuple[str, ...]
    line: int
    before: str
    after: str
    tree: ast.Module


class _LateError(Exception):
    """One test took too long."""


def changes(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912  # one branch per kind of change
    """What can stand in the place of ``node``."""
    match node:
        case ast.Compare(ops=[only]):
            yield ast.Compare(node.left, [COMPARISONS[type(only)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.BinOp() if type(node.op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in OPERATORS:
            yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
            yield ast.Pass()
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=str()):
            yield ast.Constant("XX" + node.value)
        case ast.IfExp():
            yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.If():
            yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Return() if node.value is not None and ast.unparse(node.value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.Assign():
            yield ast.Assign(node.targets, ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Every mutant of every function and method."""
    for path, function in _functions(tree, ()):
        for parent, field, index in _places(function):
            old = getattr(parent, field) if index is None else getattr(parent, field)[index]
            for new in changes(old):
                _put(parent, field, index, ast.copy_location(new, old))
                yield Mutant(path, old.lineno, ast.unparse(old), ast.unparse(new), copy.deepcopy(tree))
                _put(parent, field, index, old)


def _functions(
    node: ast.Module | ast.ClassDef, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef):
            yield (*path, child.name), child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, (*path, child.name))


def _places(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where an expression or statement of ``function`` stands: its parent, the field, and the place in a list."""
    start = 1 if ast.get_docstring(function) is not None else 0
    todo: list[tuple[ast.AST, str, int | None]] = [(function, "body", at) for at in range(start, len(function.body))]
    while todo:
        parent, field, index = todo.pop(0)
        yield parent, field, index
        node = getattr(parent, field) if index is None else getattr(parent, field)[index]
        for name, value in ast.iter_fields(node):
            if name == "annotation":
                continue
            if isinstance(value, list):
                todo += [(node, name, at) for at, each in enumerate(value) if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST):
                todo.append((node, name, None))


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def code_of(mutant: Mutant, filename: str) -> CodeType:
    """The compiled code of the changed function."""
    code = compile(ast.fix_missing_locations(mutant.tree), filename, "exec")
    for name in mutant.function:
        code = next(each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name)
    return code


def function_of(module: ModuleType, path: Sequence[str]) -> FunctionType:
    found: object = module
    for name in path:
        found = getattr(found, name)
    assert isinstance(found, FunctionType)
    return found


class Runner:
    """The collected tests, called without pytest between them."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules
        self.failed = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of the usual loop."""
        calls = [_call(item) for item in session.items if isinstance(item, pytest.Function)]
        calls = [call for call in calls if not any(part in call[0] for part in LEFT_OUT)]
        timed = []
        for name, call in calls:
            start = time.process_time()
            call()
            timed.append((time.process_time() - start, name, call))
        timed.sort(key=lambda each: each[0])
        order = [call for _, _, call in timed]
        print(f"{len(order)} tests, {sum(each[0] for each in timed):.1f} s together", flush=True)
        for name in self.modules:
            self._module(name, order)
        return True

    def _module(self, name: str, order: list[Callable[[], object]]) -> None:
        module = importlib.import_module(f"acl.policy.{name}")
        assert module.__file__ is not None
        source = Path(module.__file__).read_text("utf-8")
        every = int(os.environ.get("EVERY", "1"))
        total, alive = 0, 0
        for number, mutant in enumerate(mutants(ast.parse(source))):
            if number % every:
                continue
            total += 1
            if self._survives(module, mutant, order):
                alive += 1
                place = f"{name}.py:{mutant.line} {'.'.join(mutant.function)}"
                print(f"  alive: {place}: {_short(mutant.before)}  ->  {_short(mutant.after)}", flush=True)
            elif os.environ.get("SHOW") and total % 50 == 0:
                print(f"  {total} tried, {alive} alive", flush=True)
        share = (total - alive) / total
        self.failed = self.failed or share < WANTED
        print(f"{name}: {total} mutants, {total - alive} killed, {100 * share:.1f} %", flush=True)

    def _survives(self, module: ModuleType, mutant: Mutant, order: list[Callable[[], object]]) -> bool:
        function = function_of(module, mutant.function)
        kept = function.__code__
        function.__code__ = code_of(mutant, str(module.__file__))
        try:
            for at, call in enumerate(order):
                if _fails(call):
                    order.insert(0, order.pop(at))
                    return False
        finally:
            function.__code__ = kept
        return True


def _call(item: pytest.Function) -> tuple[str, Callable[[], object]]:
    """The name of a test, and a call of it with its parameters."""
    arguments = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    test = item.function
    patched = "monkeypatch" in inspect.signature(test).parameters

    def call() -> None:
        with pytest.MonkeyPatch.context() as patch:
            test(**arguments, **({"monkeypatch": patch} if patched else {}))

    return item.name, call


def _fails(call: Callable[[], object]) -> bool:
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        call()
    except BaseException as error:  # whatever a mutant does, it was noticed
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, MemoryError | _LateError):
            gc.collect()
        return True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return False


def _late(number: int, frame: object) -> None:
    raise _LateError


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:67] + "..."


def main(modules: Sequence[str]) -> int:
    """Run over ``modules`` of ``acl.policy``; 1 when fewer than ``WANTED`` of the mutants of one are killed."""
    signal.signal(signal.SIGPROF, _late)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    runner = Runner(modules)
    here = Path(__file__).parent
    options = ["-qq", "-p", "no:randomly", "--timeout=0", "--capture=no"]
    pytest.main([*options, *(str(here / name) for name in TESTS)], plugins=[runner])
    return int(runner.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["evaluate", "topics", "index"]))
