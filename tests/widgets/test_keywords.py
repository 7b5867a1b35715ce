"""An unknown keyword is a TypeError that names the nearest right one, in every widget."""

import inspect

import pytest

from uffdlab import widgets
from uffdlab.widgets._base.widget import check_keywords

PARTS = {name: getattr(widgets, name) for name in widgets.__all__}


@pytest.mark.parametrize("name", PARTS)
def test_every_parameter_is_a_keyword_that_is_known(name):
    parameters = [
        each.name
        for each in inspect.signature(PARTS[name]).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    assert parameters
    assert set(parameters) <= set(PARTS[name]._keywords)
    for parameter in parameters:
        with pytest.raises(TypeError, match=rf"{name}\(\) has no keyword '{parameter}x'; did you mean '{parameter}'"):
            check_keywords(name, [f"{parameter}x"], PARTS[name]._keywords)


def test_a_keyword_without_a_near_name_lists_all():
    with pytest.raises(TypeError, match=r"no keyword 'zzz'; there are kernel, layout, tabbable, tooltip"):
        widgets.KernelPicker(zzz=1)


def test_every_widget_checks_them(snapshot):
    pages = snapshot((0, 4))
    for make in (
        lambda: widgets.PageGrid(pages, befor=pages),
        lambda: widgets.CompareGrids({"one": pages, "two": pages}, layoutt={}),
        lambda: widgets.KernelPicker(kernle="6.1-base"),
    ):
        with pytest.raises(TypeError, match="did you mean"):
            make()
