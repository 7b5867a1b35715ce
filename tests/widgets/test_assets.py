import re

import pytest

from uffdlab.widgets import _assets

MODULES = sorted(path.name for path in _assets.HERE.glob("*.js"))
# Modules that are a widget's own, not a part of others.
WHOLE = [name for name in MODULES if "export default" in (_assets.HERE / name).read_text()]


def test_there_are_widgets():
    assert "page_grid.js" in WHOLE


@pytest.mark.parametrize("name", WHOLE)
def test_the_assets_of_a_widget_are_joined(name):
    text = _assets.javascript(name)
    assert not re.search(r"^import ", text, re.MULTILINE)
    assert len(re.findall(r"^export ", text, re.MULTILINE)) == 1
    declared = re.findall(r"^(?:async )?(?:const|let|function|class) (\w+)", text, re.MULTILINE)
    assert sorted(set(declared)) == sorted(declared), "two parts declare the same name"


def test_nothing_is_fetched_from_elsewhere():
    for path in [*_assets.HERE.glob("*.js"), *_assets.HERE.glob("*.css")]:
        assert not re.search(r"https?:|@import|url\(", path.read_text()), path.name
