#!/usr/bin/env python3
"""Draws the pictures of the docs into `src/docs/pictures`.

    python3 docs/pictures/draw.py            # after a change in this folder
    python3 docs/pictures/draw.py --check    # fails if a file differs, or if no page shows it

GitHub shows the files, but rustdoc has none: `for_rustdoc/NAME.md` repeats a picture as data, and defines the page's name for
it. So does `src/docs/plots/for_rustdoc.md` for the plots. The words are those of the glossary.
"""

import base64
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

sys.dont_write_bytecode = True
from one_request import front, layers, request, states, times
from sequences import keys, logout, refresh

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "src/docs/pictures"
# Where a picture may be shown.
PAGES = ["README.md", "src/lib.rs", "src/docs/*.md"]
# Nothing but these may be in a picture: no script, no link, no font, nothing from elsewhere.
ELEMENTS = {"svg", "title", "desc", "style", "rect", "text", "tspan", "polyline", "polygon", "circle"}

PICTURES = [front, layers, request, times, refresh, logout, keys, states]


def faults(name, svg):
    """What is wrong with a picture."""
    root = ElementTree.fromstring(svg)
    names = [element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()]
    for wanted in ("title", "desc"):
        text = root.findtext(f"{{http://www.w3.org/2000/svg}}{wanted}")
        if not (text or "").strip():
            yield f"has no {wanted}"
    yield from (f"has an element {element}" for element in sorted(set(names) - ELEMENTS))
    if re.search(r"url\(|@import|href", svg):
        yield "has a link"
    shown = re.compile(rf"!\[[^\]]+\](\[{name}\]|\(src/docs/pictures/{name}\.svg\))")
    pages = [page for pattern in PAGES for page in ROOT.glob(pattern) if shown.search(page.read_text())]
    if not pages:
        yield "is on no page, with a text in its place"
    lib = (ROOT / "src/lib.rs").read_text()
    for page in pages:
        # What rustdoc reads right before the page.
        before = re.search(rf'((?: *#\[doc = include_str!\("docs/pictures/.*\n)*).*"docs/{page.name}"', lib)
        if before and f"for_rustdoc/{name}.md" not in before[1]:
            yield f"is on {page.name}, but rustdoc does not know it there"


def main():
    files, wrong = {}, []
    for picture in (draw() for draw in PICTURES):
        svg = picture.svg()
        data = base64.b64encode(svg.encode()).decode()
        files[FOLDER / f"{picture.name}.svg"] = svg
        files[FOLDER / f"for_rustdoc/{picture.name}.md"] = f"[{picture.name}]: data:image/svg+xml;base64,{data}\n"
        wrong += [f"{picture.name}.svg {fault}" for fault in faults(picture.name, svg)]
    if sys.argv[1:] != ["--check"]:
        (FOLDER / "for_rustdoc").mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
    there = {path for path in FOLDER.rglob("*") if path.is_file()}
    wrong += [f"{path.relative_to(ROOT)} is not drawn here" for path in sorted(there - files.keys())]
    differ = [path for path, text in files.items() if path not in there or path.read_text() != text]
    wrong += [f"{path.relative_to(ROOT)} differs from what draw.py draws" for path in differ]
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
