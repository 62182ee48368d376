"""Pages that are written hold any text as text, and open and close what they open."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest

from cryolithe.report.page import REPORT_STYLE, document, embedded, escaped, listing, table

UNKIND = ["</title><script>x()</script>", "a & b &amp; c", "\"quoted\" 'twice'", "<td class=n>", "{braces} %s", "–é漢"]
VOID = ("meta", "img", "br")


class Read(HTMLParser):
    """Cells, items, titles and attributes as a browser would take them; fails at elements that are not closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.classes = [], {}, []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.found.setdefault(tag, []).append("")
        self.classes += [(tag, value) for name, value in attrs if name == "class"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.found[self.open[-1]][-1] += data


@pytest.mark.parametrize("text", UNKIND)
def test_any_text_comes_out_as_it_went_in(text):
    rows = [[escaped(text), escaped(3)], [escaped("plain"), escaped(text)]]
    parts = [table((text, "b"), rows, ("", "n")), listing([escaped(text)]), f'<p title="{escaped(text)}">x</p>']
    found = Read(document(text, REPORT_STYLE, parts, alone=True)).found
    assert found["title"] == [text]
    assert found["th"] == [text, "b"]
    assert found["td"] == [text, "3", "plain", text]
    assert found["li"] == [text]
    assert "script" not in found


def test_columns_have_their_class_in_titles_and_cells():
    read = Read(table(("a", "b", "c"), [("1", "2", "3"), ("4", "5", "6")], ("", "n")))
    assert read.classes == [("th", "n"), ("td", "n"), ("td", "n")]
    assert "th" not in Read(table(("", ""), [("1", "2")])).found


def test_a_picture_in_a_page_is_the_picture():
    kind, content = embedded(b"\x00\xff<>", "png").split(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(content) == b"\x00\xff<>"
