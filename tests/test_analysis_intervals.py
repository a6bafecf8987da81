import numpy as np

from cmllm_tools.analysis.intervals import bootstrap


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = [low <= 0 <= high for low, high in (bootstrap(rng.normal(size=60)) for _ in range(300))]
    assert 0.9 <= np.mean(hits) <= 0.98
