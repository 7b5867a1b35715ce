"""The static form of a widget: HTML, SVG, PNG."""
