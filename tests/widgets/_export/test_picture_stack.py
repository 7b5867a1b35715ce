"""Several pictures stacked into one."""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread

from uffdlab.errors import UsageError
from uffdlab.widgets._export import drawings
from uffdlab.widgets._export.picture_stack import PictureStack
from uffdlab.widgets._export.sheet import Sheet

ONE = Sheet("One", (("name", "what it is"),), (("code", "int main(void)\n{\n\treturn 0;\n}"),))
OTHER = Sheet("Other", (("a", "b" * 300), ("c & <d>", "")))
SVG = "{http://www.w3.org/2000/svg}"


def test_a_stack_has_every_picture_below_the_one_before():
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


def test_the_picture_for_a_dark_theme_has_no_dark_text():
    faults = drawings.faults("Faults", [(1.0, 3, "minor, read"), (2.0, 4, "wp, write")], "two")
    stack = PictureStack([ONE.picture(), OTHER.picture(), faults])
    light, dark = (np.asarray(imread(io.BytesIO(png), format="png")) for png in (stack.png(), stack.dark_png()))
    assert light.shape[:2] == dark.shape[:2]
    assert light[..., :3].min() < 0.2
    assert dark[0, 0, 3] == 0
    assert dark[dark[..., 3] > 0.9][:, :3].max(axis=1).min() > 0.4


def test_no_id_occurs_twice():
    svg = PictureStack([ONE.picture(), ONE.picture()]).svg()
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', svg)) <= set(ids)


def test_no_pictures_and_an_unknown_file_type_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no pictures"):
        PictureStack([])
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        PictureStack([ONE.picture()]).save(tmp_path / "a.pdf")


def test_a_sheet_can_be_csv_html_and_a_picture():
    assert ONE.csv() == 'name,value\nname,what it is\ncode,"int main(void)\n{\n\treturn 0;\n}"\n'
    assert "<th" in OTHER.html()
    assert "c &amp; &lt;d&gt;" in OTHER.html()
    assert ONE.picture().alt == "One: name: what it is. code: int main(void) { return 0; }."
    # A long line is wrapped, not cut off.
    assert OTHER.picture().figure.get_figwidth() < 10
