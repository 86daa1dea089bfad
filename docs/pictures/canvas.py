"""A picture as SVG: boxes, arrows and texts on a card of its own.

1. The card is opaque, because an image can't know the colour of the page: `prefers-color-scheme` is that of the system.
2. Fonts are generic. A text must fit into its box in the widest usual font, or drawing fails.
3. The text between backticks is in the font of code. A line that begins with "# " is bold.
"""

from html import escape

WIDTH = 760
# kind: fill and stroke on a light card, then on a dark one.
KINDS = {
    "other": ("#eef1f4", "#6e7781", "#2d333b", "#8b949e"),
    "layer": ("#ddeeff", "#0b65c2", "#12314f", "#58a6ff"),
    "site": ("#e1f5e0", "#2c7a2c", "#173a20", "#56d364"),
    "operator": ("#f3e8fd", "#8250df", "#33244f", "#c297ff"),
    "store": ("#fff1d6", "#9a6700", "#40300c", "#e3b341"),
    "bad": ("#ffe6e3", "#cf222e", "#4a1c1e", "#ff7b72"),
}
# The card, its border, texts, quiet texts, arrows.
LIGHT = ("#fbfcfd", "#d0d7de", "#1f2328", "#57606a", "#3d444d")
DARK = ("#1c2128", "#444c56", "#e6edf3", "#a6b0bb", "#c9d1d9")
SMALL, BOLD = 12, 14
# Widths of characters in the widest usual font, in parts of the size.
NARROW, WIDE = "fijlrtI.,:;|'()… ", "mwMWAOQ@"


def rules(card, scheme, kinds):
    """The rules of a colour scheme, which is 0 for light and 1 for dark."""
    back, border, text, quiet, line = card
    lines = [
        f".card{{fill:{back};stroke:{border}}}",
        f"text{{fill:{text}}}",
        f".quiet{{fill:{quiet}}}",
        f".line{{stroke:{line}}}",
        f".head{{fill:{line}}}",
    ]
    for kind in kinds:
        fill, stroke = KINDS[kind][2 * scheme : 2 * scheme + 2]
        lines.append(f".{kind}{{fill:{fill};stroke:{stroke}}}")
        lines.append(f".line.{kind}{{fill:none}}.head.{kind}{{fill:{stroke};stroke:none}}")
    return "".join(lines)


def style(kinds):
    return (
        f"text{{font:{SMALL}px sans-serif}}.bold{{font-weight:bold;font-size:{BOLD}px}}.code{{font-family:monospace}}"
        ".box{stroke-width:1.5}.line{fill:none;stroke-width:1.5}.dash{stroke-dasharray:5 4}"
        f"{rules(LIGHT, 0, kinds)}@media(prefers-color-scheme:dark){{{rules(DARK, 1, kinds)}}}"
    )


def width(line):
    """The width of a line of text."""
    bold = line.startswith("# ")
    total = 0
    for number, part in enumerate(line.removeprefix("# ").split("`")):
        for character in part:
            plain = 0.4 if character in NARROW else 0.95 if character in WIDE else 0.64
            total += 0.61 if number % 2 else plain * (1.1 if bold else 1)
    return total * (BOLD if bold else SMALL)


def number(value):
    return f"{value:.1f}".removesuffix(".0")


class Picture:
    """A picture. `name` is that of its file, `title` and `description` are for readers who can't see it."""

    def __init__(self, name, height, title, description):
        self.name, self.height, self.title, self.description = name, height, title, description
        self.parts = []

    def text(self, x, y, *lines, anchor="start", quiet=False, step=16):
        """Lines of text; the base of the first is at `y`."""
        for line in lines:
            left = x - {"start": 0, "middle": 0.5, "end": 1}[anchor] * width(line)
            assert 8 <= left and left + width(line) <= WIDTH - 8, f"{self.name}: {line!r} is wider than the card"
            classes = [name for name, on in (("bold", line.startswith("# ")), ("quiet", quiet)) if on]
            attributes = f' class="{" ".join(classes)}"' if classes else ""
            attributes += "" if anchor == "start" else f' text-anchor="{anchor}"'
            pieces = escape(line.removeprefix("# "), quote=False).split("`")
            inner = "".join(
                f'<tspan class="code">{piece}</tspan>' if at % 2 else piece for at, piece in enumerate(pieces)
            )
            self.parts.append(f'<text x="{number(x)}" y="{number(y)}"{attributes}>{inner}</text>')
            y += step

    def box(self, x, y, w, h, *lines, kind="other", dash=False):
        """A rounded box with lines of text in its middle."""
        classes = f"box {kind} dash" if dash else f"box {kind}"
        self.parts.append(f'<rect class="{classes}" x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>')
        for line in lines:
            assert width(line) <= w - 6, f"{self.name}: {line!r} is wider than its box: {width(line):.0f} > {w - 6}"
        heights = [19 if line.startswith("# ") else 16 for line in lines]
        assert sum(heights) <= h - 4, f"{self.name}: {lines!r} are higher than their box"
        base = y + (h - sum(heights)) / 2
        for line, height in zip(lines, heights):
            self.text(x + w / 2, base + height - 4.5, line, anchor="middle")
            base += height

    def line(self, *points, kind="", dash=False):
        """A line without a head."""
        classes = " ".join(filter(None, ["line", kind, "dash" if dash else ""]))
        text = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.parts.append(f'<polyline class="{classes}" points="{text}"/>')

    def arrow(self, *points, kind="", dash=False, both=False):
        """An arrow through points; with `both` it has a head at each end. Its parts are level or upright."""
        points = list(points)
        heads = [self.head(points[-1], points[-2], kind)]
        points[-1] = toward(points[-1], points[-2], 6)
        if both:
            heads.append(self.head(points[0], points[1], kind))
            points[0] = toward(points[0], points[1], 6)
        self.line(*points, kind=kind, dash=dash)
        self.parts += heads

    @staticmethod
    def head(tip, before, kind):
        (x, y), (back_x, back_y) = tip, toward(tip, before, 9)
        side_x, side_y = (back_y - y) / 2, (x - back_x) / 2
        corners = [(x, y), (back_x + side_x, back_y + side_y), (back_x - side_x, back_y - side_y)]
        text = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
        return f'<polygon class="{" ".join(filter(None, ["head", kind]))}" points="{text}"/>'

    def badge(self, x, y, label, kind="layer"):
        """A number in a circle."""
        self.parts.append(f'<circle class="box {kind}" cx="{x}" cy="{y}" r="10"/>')
        self.text(x, y + 4.5, str(label), anchor="middle")

    def svg(self):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" role="img" aria-labelledby="title desc">'
        )
        card = f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{self.height - 1}" rx="10"/>'
        texts = [
            f'<title id="title">{escape(self.title, quote=False)}</title>',
            f'<desc id="desc">{escape(self.description, quote=False)}</desc>',
        ]
        classes = {name for part in self.parts for name in part.partition('class="')[2].partition('"')[0].split()}
        rules = style([kind for kind in KINDS if kind in classes])
        return "\n".join([head, *texts, f"<style>{rules}</style>", card, *self.parts, "</svg>"]) + "\n"


def toward(point, other, distance):
    """The point at this distance from `point` on the way to `other`."""
    (x, y), (other_x, other_y) = point, other
    share = distance / ((other_x - x) ** 2 + (other_y - y) ** 2) ** 0.5
    return x + (other_x - x) * share, y + (other_y - y) * share
