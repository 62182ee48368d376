"""Pages of HTML: escaping, layout, tables and pictures inside the page, for every page that is written."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

# Of pages that are read like a report; pages add what they need, which wins.
REPORT_STYLE = """:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; }
.about { color: #555; margin: 0 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e3e3; }
td.n, th.n { text-align: right; white-space: nowrap; }
.warning { border-left: .35rem solid #d55e00; background: #fff3ea; padding: .6rem .9rem; margin: .8rem 0; }
.warning b { color: #a34700; }
img { max-width: 100%; display: block; }
"""
# Makes a browser refuse whatever would be loaded from elsewhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# The same, but for pictures that lie beside the page, on a disk or a server.
_BESIDE = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"


def escaped(text: object) -> str:
    """A value as text of a page, or as an attribute between quotation marks."""
    return html.escape(str(text), quote=True)


def document(title: str, style: str, body: Iterable[str], alone: bool = False, script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        style: CSS.
        body: its parts, of HTML.
        alone: a browser shall load nothing beside the page, and run nothing in it.
        script: JavaScript, which runs when the page is there; a browser then runs no other, and loads nothing but
            pictures that lie beside the page. It must not hold ``</``, which could end it.

    Raises:
        ValueError: if the script could end before its end.
    """
    if "</" in script or "<!--" in script:
        raise ValueError("a script must hold neither '</' nor '<!--'")
    code = f"\n{script}"
    policy = _POLICY if alone else ""
    if script:
        digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
        policy = f"{_BESIDE}; script-src 'sha256-{digest}'"
    head = (
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        *([f'<meta http-equiv="Content-Security-Policy" content="{policy}">'] if policy else []),
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escaped(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
    )
    end = [f"<script>{code}</script>"] if script else []
    return "\n".join([*head, *body, *end, "</body></html>\n"])


def table(heads: Sequence[str], rows: Iterable[Iterable[str]], classes: Sequence[str] = ()) -> str:
    """A table.

    Args:
        heads: titles of the columns, plain text; no line of titles if all are empty.
        rows: cells, of HTML, in the order of the columns.
        classes: of the columns' cells, as far as they have one; "n" for numbers.
    """
    kinds = [f' class="{name}"' if name else "" for name in (*classes, *[""] * len(heads))]

    def line(tag: str, cells: Iterable[str]) -> str:
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for kind, cell in zip(kinds, cells, strict=False))}</tr>"

    titles = f"<thead>{line('th', map(escaped, heads))}</thead>" if any(heads) else ""
    return f"<table>{titles}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def listing(items: Iterable[str]) -> str:
    """A list of items of HTML."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def embedded(picture: bytes, kind: str) -> str:
    """The address of a picture that stands in the page itself; ``kind`` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
