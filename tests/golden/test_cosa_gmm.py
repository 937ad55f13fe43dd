"""CoSA: searched thresholds, the queue and the slow average of the original code."""

from dataclasses import replace

import torch

from wsss_lab.methods.cosa.mixture import best_split, fit_mixture, mixture_bands, mixture_split
from wsss_lab.methods.cosa.threshold import RingQueue, threshold_searches
from wsss_lab.runs.recipe import find_preset


def arrays(golden):
    return {k: torch.from_numpy(v) for k, v in golden("cosa")("gmm_threshold.npz").items()}


def test_cosa_mixture_of_three(golden):
    z = arrays(golden)
    values = z["f64_queue"]
    keep = values > 0.05
    fit = fit_mixture(values, keep, components=len(z["f64_gmm_means"]))
    assert int(fit.n_iter) == int(z["gmm_n_iter"])
    for name in ("means", "weights", "vars"):
        got = {"means": fit.means, "weights": fit.weights, "vars": fit.variances}[name]
        torch.testing.assert_close(got, z[f"f64_gmm_{name}"], rtol=1e-9, atol=1e-12)
    low, high = mixture_bands(values, fit, keep)
    assert low == z["f64_thr_low_modal3"]
    assert high == z["f64_thr_high_modal3"]


def test_cosa_single_threshold_of_two(golden):
    z = arrays(golden)
    values = z["f64_queue"]
    assert mixture_split(values, values > 0.05) == z["f64_thr_modal2"]


def test_cosa_best_split_beats_the_mixture_as_a_split(golden):
    """Ours has no recording: it must be at least as likely a split as the recorded ones."""
    z = arrays(golden)
    values = z["f64_queue"][z["f64_queue"] > 0.05]

    def likelihood(threshold):
        sides = [values[values <= threshold], values[values > threshold]]
        return sum(
            len(s) * (torch.tensor(float(len(s))).log() - s.var(correction=0).log() / 2)
            for s in sides
        )

    ours = likelihood(best_split(values))
    for name in ("f64_thr_modal2", "f64_thr_low_modal3", "f64_thr_high_modal3"):
        assert ours >= likelihood(z[name]), name


def test_cosa_queue(golden):
    z = arrays(golden)
    rows, width = z["f64_queue_init_seed0"].shape
    queue = RingQueue(rows, width, start="uniform").double()
    queue.values.copy_(z["f64_queue_init_seed0"])
    for income, state in zip(z["f64_queue_income"], z["f64_queue_states"], strict=True):
        queue.push(income)
        assert torch.equal(queue.values, state)


def test_cosa_slow_average(golden, monkeypatch):
    z = arrays(golden)
    start = 0.25  # from the description that comes with the arrays
    config = replace(find_preset("cosa", "voc-released").method, search="bands", low=start)
    search, _ = (search.double() for search in threshold_searches(config))
    cells = config.queue_grid[0] * config.queue_grid[1]
    for raw, expected in zip(z["f64_ema_in"], z["f64_ema_out"], strict=True):
        monkeypatch.setattr(search, "search", lambda _, raw=raw: (raw, torch.ones_like(raw)))
        search.thresholds = search.thresholds.double()
        low, _ = search(torch.zeros(1, cells, dtype=torch.float64))
        torch.testing.assert_close(low, expected, rtol=0, atol=1e-7)
