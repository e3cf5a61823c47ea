"""docs/errors.md explains every message of the library, which are read from the source: the page cannot fall behind."""

import ast
import re
from pathlib import Path

import pytest

import idl_ref

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
HOLE = "…"
ENTRIES = re.findall(r"^(`.*)\n: ((?:.+\n)+)", PAGE, flags=re.M)
PATTERNS = [span for terms, _ in ENTRIES for span in re.findall(r"`([^`]+)`", terms)]
PLAIN = {"must", "be", "got", "the", "a", "of", "to", "have", "is", "and", "in", "hold"}  # words that tell nothing


def template(node):
    """The text of a message, with a hole for each part that varies."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return HOLE


def sentences(function):
    """The texts of at least five words in a function, without docstrings: of them it builds what it raises."""
    inner = {id(part) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for part in node.values}
    skipped = inner | {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Expr)}  # and docstrings
    for node in ast.walk(function):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in skipped:
            text = template(node)
            if len(re.findall(r"[A-Za-z]{2,}", text)) >= 5:
                yield text


def messages(source):
    """The templates that a module raises or warns of; of a message made of parts, the parts in the same function."""
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            call = None
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                call = node.exc
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "warn":
                call = node
            if call is None or not call.args:
                continue
            text = template(call.args[0])
            if words(text):
                yield text
            else:
                yield from sentences(function)
    helped = re.compile(r"^[^\n]*(; got |\bmust be\b)[^\n]*$")  # a text that a helper gets, which raises it
    yield from filter(helped.match, sentences(tree))


def words(text):
    return set(re.findall(r"[A-Za-z]{2,}", text)) - PLAIN


def matches(pattern, text):
    """A pattern is found by its literal words; one without any is a frame, which must be the whole message."""
    parts = ".*".join(re.escape(part) for part in pattern.split(HOLE))
    return bool(re.search(parts, text, flags=re.S)) if words(pattern) else pattern == text


TEMPLATES = sorted(
    {text for path in (ROOT / "idl_ref").rglob("*.py") for text in messages(path.read_text(encoding="utf-8"))}
)


def unexplained(texts):
    return [text for text in texts if not any(matches(pattern, text) for pattern in PATTERNS)]


def test_every_message_has_an_entry():
    assert len(TEMPLATES) > 400
    assert unexplained(TEMPLATES) == []


def test_a_new_message_would_be_missed():
    source = 'def f(x):\n    raise ValueError(f"the weather of {x} must be dry; got {x}: take an umbrella.")\n'
    assert sorted(set(unexplained(messages(source)))) == ["the weather of … must be dry; got …: take an umbrella."]
    built = 'def f(x):\n    text = f"no bread was left for all {x} guests"\n    raise KeyError(text)\n'
    assert sorted(set(unexplained(messages(built)))) == ["no bread was left for all … guests"]


def test_no_entry_catches_everything():
    for pattern in PATTERNS:
        assert sum(matches(pattern, text) for text in TEMPLATES) <= 45, pattern


@pytest.mark.parametrize("status", idl_ref.Status, ids=lambda status: status.name)
def test_every_status_has_an_entry(status):
    (text,) = [text for terms, text in ENTRIES if terms.startswith(f"`{status.name}` ({int(status)})")]
    assert ("success" in text or "Nothing is to be done" in text) == status.success


def test_every_exception_and_warning_of_the_library_is_named():
    kinds = [getattr(idl_ref, name) for name in idl_ref.__all__]
    names = [kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(names) >= 3
    assert [name for name in names if name not in PATTERNS] == []


def test_every_entry_says_what_to_do():
    for terms, text in ENTRIES:
        assert len(text.split()) >= 8, terms


def test_no_entry_outlives_its_message():
    known = {status.name for status in idl_ref.Status} | {"ConvergenceWarning", "NotConvergedError", "FileFormatError"}
    frames = [pattern for pattern in PATTERNS if not words(pattern)]
    dead = [p for p in PATTERNS if p not in known and p not in frames and not any(matches(p, t) for t in TEMPLATES)]
    assert dead == []
