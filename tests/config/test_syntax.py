"""A digest of source follows what the code does and nothing else, and is the same in every Python."""

import ast
import textwrap

import pytest

from bench.config.syntax import syntax_digest

SOURCE = '''
"""A module."""
import math

def method(model, *, rate: float = 0.7, **rest):
    """What it does."""
    global count
    kept = {**rest, 1: None, 0xFF: 2.5, "a": 'b'}
    return kept[0:1], f"{rate!r:>{8}}", [x for x in (1, 2) if not x], lambda y, /: -y

class Net:
    """A net."""

    async def run(self):
        """Runs."""
        match self:
            case {"k": [1, *rest]} | None:
                return rest
'''


def digest(text):
    return syntax_digest(ast.parse(textwrap.dedent(text)))


def test_the_digest_is_the_same_in_every_python_version():
    """The frozen value was computed by Python 3.10, 3.11, 3.12 and 3.13; `ast.dump` gives them different texts."""
    assert digest(SOURCE) == "312e580e5ab6ea357794b7d1c1c7148bb658a8665af0619feacc8ef982314236"


@pytest.mark.parametrize(
    "old, new",
    [
        ('"""A module."""', '"""Another text."""'),
        ('"""What it does."""', ""),
        ('    """A net."""\n', ""),
        ("import math", "import math  # for nothing"),
        ("rate: float = 0.7,", "rate: float = 0.7,\n    "),
        ("0xFF", "255"),
        ("'b'", '"b"'),
        ('"a"', 'u"a"'),
        ("global count", "(global_ := 0)"),
    ],
)
def test_comments_layout_and_docstrings_change_no_digest_and_code_does(old, new):
    assert old in SOURCE
    changed = digest(SOURCE.replace(old, new)) != digest(SOURCE)
    assert changed == (old == "global count")


@pytest.mark.parametrize(
    "one, other",
    [
        ("global a, b", "global ab"), ("x = 1", "x = 1.0"), ("x = 1", "x = True"), ("x = '1'", "x = 1"), ("x = b'1'",
        "x = '1'"), ("f(a, b)", "f(a, b=b)"), ("f(a=1)", "f(b=1)"), ("{**a, b: c}", "{b: c, **a}"), ("x = None",
        "x: None"), ("def f(a, /): 1", "def f(a): 1"), ("def f(*, a): 1", "def f(a): 1"), ("def f(*, a=None): 1",
        "def f(*, a): 1"), ("from . import a", "from .. import a"), ("import a as b", "import b as a"), ("x = [[1], 2]",
        "x = [[1, 2]]"), ("a = (b, c)", "a = [b, c]"), ("a[b:]", "a[:b]"), ("a; b", "b; a"), ("f'{a!r}'", "f'{a!s}'"),
        ("x = ...", "x = Ellipsis"), ("if a:\n  b\nelse:\n  c", "if a:\n  b\n  c"), ("'text'\ndef f(): return __doc__",
        "def f(): return __doc__"),
    ],
)  # fmt: skip
def test_different_code_has_different_digests(one, other):
    assert digest(one) != digest(other)


def test_an_expression_of_any_depth_has_a_digest():
    tree = ast.Module([ast.Expr(ast.Name("x"))], [])
    for _ in range(5000):
        tree.body[0].value = ast.UnaryOp(ast.USub(), tree.body[0].value)
    assert len(syntax_digest(tree)) == 64
    assert digest(f"x = {hex(10**5000)}") != digest(f"x = {hex(10**5000 + 1)}")
