"""The one palette."""

import numpy as np

from cmllm_tools.show.palette import ramp


def test_palette_runs_from_transparent_to_opaque():
    palette = ramp()
    assert palette[0, 3] == 0
    assert (np.diff(palette[:, 3].astype(int)) >= 0).all()
    luminance = palette[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1).all()
