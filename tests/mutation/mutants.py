"""Small faults put into a source text: a number changed, an operator replaced by its neighbour."""

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ROOMS = ("wsss_lab/methods", "wsss_lab/cam", "wsss_lab/refine", "wsss_lab/ema.py")
"""What the numbers of a run depend on most."""
OPERATORS = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.Pow: "*",
    ast.FloorDiv: "*",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.And: "or",
    ast.Or: "and",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
SIGNS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.FloorDiv: "//",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.And: "and",
    ast.Or: "or",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}


class Mutant(NamedTuple):
    """One replacement in one file."""

    path: str
    """Relative to the repository."""
    kind: str
    """constant or operator."""
    line: int
    start: int
    end: int
    """Place in the line, characters."""
    old: str
    new: str
    function: str
    """Qualified name of the function that the place belongs to; "" for module and class level."""

    def apply(self, text: str) -> str:
        """The faulty source."""
        lines = text.splitlines(keepends=True)
        line = lines[self.line - 1]
        assert line[self.start : self.end] == self.old
        lines[self.line - 1] = line[: self.start] + self.new + line[self.end :]
        return "".join(lines)


class _Visitor(ast.NodeVisitor):
    """Collect places; leaves out messages, annotations, checks of arguments and decorators."""

    def __init__(self, path: str, lines: list[str]) -> None:
        self.path, self.lines, self.names, self.functions = path, lines, [], 0
        self.found: list[Mutant] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.append(node.name)
        self.functions += 1
        if not _refuses(node):
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.functions -= 1
        self.names.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.names.pop()

    def visit_If(self, node: ast.If) -> None:
        if any(isinstance(statement, ast.Raise) for statement in node.body):
            return  # a check of arguments
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """A message."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """A remark for the type checker."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A message or a name."""

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            new = str(not node.value)
        elif isinstance(node.value, int):
            new = str(node.value + 1)
        elif isinstance(node.value, float):
            new = repr(2 * node.value if node.value else 1.0)
        else:
            return
        self._add("constant", node.lineno, node.col_offset, node.end_col_offset, new)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._between(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._between(node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self._between(node.left, node.comparators[0], node.ops[0])
        self.generic_visit(node)

    def _between(self, left: ast.expr, right: ast.expr, op: ast.AST) -> None:
        new = OPERATORS.get(type(op))
        if new is None or left.end_lineno != right.lineno:
            return
        start, end = left.end_col_offset or 0, right.col_offset
        sign = SIGNS[type(op)]
        at = self.lines[right.lineno - 1].find(sign, start, end)
        if at >= 0:
            self._add("operator", right.lineno, at, at + len(sign), new)

    def _add(self, kind: str, line: int, start: int, end: int | None, new: str) -> None:
        text = self.lines[line - 1]
        if not text.isascii() or end is None:
            return  # offsets count bytes
        function = ".".join(self.names) if self.functions else ""
        self.found.append(Mutant(self.path, kind, line, start, end, text[start:end], new, function))


def _refuses(node: ast.FunctionDef) -> bool:
    """Whether a function does nothing but raise: its defaults mean nothing."""
    return isinstance(node.body[-1], ast.Raise) and len(node.body) <= 2


def mutants_of(path: Path) -> list[Mutant]:
    """Every fault of a file."""
    text = path.read_text()
    visitor = _Visitor(str(path.relative_to(ROOT)), text.splitlines())
    visitor.visit(ast.parse(text))
    return visitor.found


def files() -> Iterator[Path]:
    """Python files of the rooms."""
    for room in ROOMS:
        path = ROOT / room
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def sample(constants: int, operators: int, seed: int = 0) -> list[Mutant]:
    """Draw faults, spread over the files: one of each in turn, in an order that the seed fixes."""
    rng = random.Random(seed)
    chosen: list[Mutant] = []
    for kind, wanted in (("constant", constants), ("operator", operators)):
        piles = [[m for m in mutants_of(path) if m.kind == kind] for path in files()]
        for pile in piles:
            rng.shuffle(pile)
        rng.shuffle(piles)
        some: list[Mutant] = []
        while len(some) < wanted and any(piles):
            some += [pile.pop() for pile in piles if pile][: wanted - len(some)]
        chosen += some
    return chosen
