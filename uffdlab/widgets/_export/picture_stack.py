"""Several pictures stacked into one."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imread, imsave

from uffdlab.errors import UsageError
from uffdlab.figures import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GAP = 10.0  # points
_PIXELS = 200 / 72  # per point, as in Picture


class PictureStack(Picture):
    """Several pictures, the first on top; the alt texts are joined."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        if not pictures:
            raise UsageError("there are no pictures to stack")
        super().__init__(pictures[0].figure, "\n".join(picture.alt for picture in pictures))
        self._pictures = tuple(pictures)

    def _written(self, form: str) -> bytes:
        if form == "svg":
            return self._svg().encode()
        if form == "png":
            return self._stacked([picture.png() for picture in self._pictures], np.ones(3))
        raise UsageError("stacked pictures can be written as .png or .svg only")

    def dark_png(self) -> bytes:
        """Return the pictures as one PNG with light text and without a background, for pages with a dark theme."""
        return self._stacked([picture.dark_png() for picture in self._pictures], np.zeros(4))

    def _stacked(self, pngs: Sequence[bytes], paper: NDArray[np.float64]) -> bytes:
        # Paper has 3 channels, or 4 with transparency.
        images = [np.atleast_3d(imread(io.BytesIO(png), format="png"))[..., : len(paper)] for png in pngs]
        wide, gap = max(image.shape[1] for image in images), round(_GAP * _PIXELS)
        high = sum(image.shape[0] + gap for image in images) - gap
        whole, at = np.tile(paper, (high, wide, 1)), 0
        for image in images:
            whole[at : at + image.shape[0], : image.shape[1]] = image
            at += image.shape[0] + gap
        out = io.BytesIO()
        imsave(out, whole, format="png", metadata={"Description": self.alt})
        return out.getvalue()

    def _svg(self) -> str:
        body, at, wide = "", 0.0, 0.0
        for number, picture in enumerate(self._pictures):
            text = picture.svg()
            text = text[text.index("<svg") :]
            width, height = (float(re.search(rf'{name}="([\d.]+)pt"', text)[1]) for name in ("width", "height"))  # type: ignore[index]
            # The ids of one picture must not occur in another.
            text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{number}-", text)
            head, rest = text.split(">", 1)
            # All sizes are in points.
            body += re.sub(r'="([\d.]+)pt"', r'="\1"', head).replace("<svg", f'<svg x="0" y="{at:g}"', 1) + f">{rest}"
            at, wide = at + height + _GAP, max(wide, width)
        size = f'width="{wide:g}pt" height="{at - _GAP:g}pt" viewBox="0 0 {wide:g} {at - _GAP:g}"'
        return (
            '<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size}>\n'
            f'<rect width="100%" height="100%" fill="#FFFFFF"/>\n{body}</svg>\n'
        )
