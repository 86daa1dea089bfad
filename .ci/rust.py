"""Reads Rust source, as far as the checks beside this file need it."""

import re

LEXEME = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\bb?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]*?|[^\\'\n])'""", re.DOTALL
)
TEST = re.compile(r"#\[\s*cfg\s*\(\s*(?:all\s*\(\s*)?test\b[^\]]*\]|#\[\s*test\s*\]")
MODULE = re.compile(r"\bmod\s+(\w+)\s*([;{])")


def closing(text, at):
    """The end of the block whose brace opens at `at`."""
    depth = 0
    for index in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise SystemExit("a brace is not closed")


def without_tests(text):
    """Leaves out every item for tests alone. The text must have no comments, and no braces in literals."""
    while found := TEST.search(text):
        rest = re.compile(r"(?:\s*#\[[^\]]*\])*\s*").match(text, found.end()).end()
        end = re.compile(r"[;{]").search(text, rest)
        is_use = re.match(r"(pub\s*(\([^)]*\)\s*)?)?use\b", text[rest:])
        stop = text.index(";", rest) + 1 if is_use or end[0] == ";" else closing(text, end.start())
        text = text[: found.start()] + text[stop:]
    return text
