"""Pictures put together."""

import re
import xml.etree.ElementTree as ET

import pytest

from uffdlab.errors import UsageError
from uffdlab.widgets._export.picture_stack import PictureStack
from uffdlab.widgets._export.sheet import Sheet

ONE = Sheet("One", (("name", "what it is"),), (("code", "int main(void)\n{\n\treturn 0;\n}"),))
OTHER = Sheet("Other", (("a", "b" * 300), ("c & <d>", "")))
SVG = "{http://www.w3.org/2000/svg}"


def test_every_picture_is_in_the_stack():
    pictures = [ONE.picture(), OTHER.picture()]
    stack = PictureStack(pictures)
    assert stack.alt == f"{pictures[0].alt}\n{pictures[1].alt}"
    root = ET.fromstring(stack.svg())
    parts = root.findall(f"{SVG}svg")
    tops = [float(part.get("y")) for part in parts]
    heights = [float(part.get("height")) for part in parts]
    assert tops[0] == 0
    assert tops[1] > heights[0]
    assert float(root.get("height").removesuffix("pt")) == pytest.approx(tops[1] + heights[1], abs=0.1)
    assert stack.png().startswith(b"\x89PNG")
    assert PictureStack(pictures).svg() == stack.svg()


def test_no_id_occurs_twice():
    svg = PictureStack([ONE.picture(), ONE.picture()]).svg()
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', svg)) <= set(ids)


def test_bad_input(tmp_path):
    with pytest.raises(UsageError, match="no pictures"):
        PictureStack([])
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        PictureStack([ONE.picture()]).save(tmp_path / "a.pdf")


def test_a_sheet_in_three_forms():
    assert ONE.csv() == 'name,value\nname,what it is\ncode,"int main(void)\n{\n\treturn 0;\n}"\n'
    assert "<th" in OTHER.html()
    assert "c &amp; &lt;d&gt;" in OTHER.html()
    assert ONE.picture().alt == "One: name: what it is. code: int main(void) { return 0; }."
    # A long line is broken, not cut off.
    assert OTHER.picture().figure.get_figwidth() < 10
