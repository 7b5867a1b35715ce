import re

import pytest

from uffdlab.widgets import _assets

MODULES = sorted(path.name for path in _assets.HERE.glob("*.js"))
# Modules that are a whole widget, not a part of others.
WIDGETS = [name for name in MODULES if "export default" in (_assets.HERE / name).read_text()]


def test_the_widgets_include_the_page_grid():
    assert "page_grid.js" in WIDGETS


@pytest.mark.parametrize("name", WIDGETS)
def test_the_parts_of_a_widget_are_joined_into_one_module(name):
    text = _assets.javascript(name)
    assert not re.search(r"^import ", text, re.MULTILINE)
    assert len(re.findall(r"^export ", text, re.MULTILINE)) == 1
    declared = re.findall(r"^(?:async )?(?:const|let|function|class) (\w+)", text, re.MULTILINE)
    assert sorted(set(declared)) == sorted(declared), "two parts declare the same name"


def test_no_asset_refers_to_another_server():
    for path in [*_assets.HERE.glob("*.js"), *_assets.HERE.glob("*.css")]:
        assert not re.search(r"https?:|@import|url\(", path.read_text()), path.name
