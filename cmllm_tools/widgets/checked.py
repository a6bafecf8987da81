"""A trait whose every value is checked by the widget's own rule."""

import traitlets


class Checked(traitlets.Any):
    """Of any kind, as `traitlets.Any`, which lets None pass by the `validate` of its widget."""

    allow_none = False
