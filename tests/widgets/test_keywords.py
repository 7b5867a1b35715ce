"""An unknown keyword is a TypeError that names the nearest right one, in every widget."""

import inspect

import pytest

from uffdlab import widgets
from uffdlab.widgets._base.widget import check_keywords

WIDGETS = {name: getattr(widgets, name) for name in widgets.__all__}


@pytest.mark.parametrize("name", WIDGETS)
def test_every_parameter_is_a_known_keyword(name):
    parameters = [
        parameter.name
        for parameter in inspect.signature(WIDGETS[name]).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    assert parameters
    assert set(parameters) <= set(WIDGETS[name]._keywords)
    for parameter in parameters:
        with pytest.raises(TypeError, match=rf"{name}\(\) has no keyword '{parameter}x'; did you mean '{parameter}'"):
            check_keywords(name, [f"{parameter}x"], WIDGETS[name]._keywords)


def test_the_error_lists_all_keywords_if_none_is_similar():
    with pytest.raises(TypeError, match=r"no keyword 'zzz'; there are kernel, layout, tabbable, tooltip"):
        widgets.KernelPicker(zzz=1)


def test_widgets_check_their_keywords(snapshot):
    pages = snapshot((0, 4))
    for make in (
        lambda: widgets.PageGrid(pages, befor=pages),
        lambda: widgets.CompareGrids({"one": pages, "two": pages}, layoutt={}),
        lambda: widgets.KernelPicker(kernle="6.1-base"),
    ):
        with pytest.raises(TypeError, match="did you mean"):
            make()
