"""Queue, mixtures and searched thresholds."""

import pytest
import torch

from wsss_lab.methods.cosa.mixture import best_split, fit_mixture, mixture_bands, mixture_split
from wsss_lab.methods.cosa.threshold import SEARCHES, RingQueue, ThresholdSearch


def two_humps(n=4000, share=0.7):
    g = torch.Generator().manual_seed(1)
    low = torch.randn(int(n * share), generator=g) * 0.06 + 0.25
    high = torch.randn(n - int(n * share), generator=g) * 0.08 + 0.75
    return torch.cat([low, high]).clamp(0.051, 1).double()


def test_queue_is_the_latest_rows():
    queue, everything = RingQueue(7, 2), []
    for count in (3, 3, 1, 7, 2):
        rows = torch.rand(count, 2)
        everything.extend(rows.tolist())
        queue.push(rows)
        latest = sorted(everything[-7:])
        held = sorted(row for row in queue.values.tolist() if sum(row))
        torch.testing.assert_close(torch.tensor(held), torch.tensor(latest))
    assert int(queue.cursor) == len(everything) % 7


def test_queue_start_and_bad_input():
    assert RingQueue(3, 2, "empty").values.sum() == 0
    assert RingQueue(3, 2, "uniform").values.min() > 0
    with pytest.raises(ValueError, match="start"):
        RingQueue(3, 2, "full")
    with pytest.raises(ValueError, match="at least 1"):
        RingQueue(0, 2)
    with pytest.raises(ValueError, match="at most 3"):
        RingQueue(3, 2).push(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="rows must be"):
        RingQueue(3, 2).push(torch.zeros(1, 5))


def test_two_processes_share_one_queue(monkeypatch):
    """Gathered rows lie in the order of the global batch: rank r of 2 has the images r, r + 2."""
    images = torch.arange(8.0).view(4, 2)
    ranks = [images[0::2], images[1::2]]

    def all_gather(parts, mine):
        assert torch.equal(mine, ranks[0])
        for part, rows in zip(parts, ranks, strict=True):
            part.copy_(rows)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    shared, own = RingQueue(8, 2), RingQueue(8, 2, shared=False)
    shared.push(ranks[0])
    own.push(ranks[0])
    assert torch.equal(shared.values[:4], images)
    assert (int(shared.cursor), int(own.cursor)) == (4, 2)


@pytest.mark.parametrize("components", [2, 3])
@pytest.mark.parametrize("tol", [1e-3, 1e-7])
def test_mixture_is_that_of_scikit_learn(components, tol):
    mixture = pytest.importorskip("sklearn.mixture")
    x = two_humps()
    keep = torch.rand(len(x)) > 0.3
    got = fit_mixture(x, keep, components, tol=tol)
    kept = x[keep]
    means = [kept.min(), kept.quantile(0.5), kept.max()]
    means = means if components == 3 else [means[0], means[2]]
    oracle = mixture.GaussianMixture(
        components,
        weights_init=[1 / components] * components,
        means_init=[[float(m)] for m in means],
        precisions_init=[[[1.0]]] * components,
        tol=tol,
    ).fit(kept[:, None].numpy())
    assert int(got.n_iter) == oracle.n_iter_
    torch.testing.assert_close(got.means, torch.from_numpy(oracle.means_[:, 0]))
    torch.testing.assert_close(got.variances, torch.from_numpy(oracle.covariances_[:, 0, 0]))
    torch.testing.assert_close(got.weights, torch.from_numpy(oracle.weights_))
    member = torch.from_numpy(oracle.predict(kept[:, None].numpy()))
    low, high = mixture_bands(x, got, keep)
    first, last = kept[member == 0], kept[member == components - 1]
    assert low == (first.max() if len(first) else -torch.inf)
    assert high == (last.min() if len(last) else torch.inf)


def test_mixture_without_early_stop_is_the_same():
    """What an accelerator computes: all iterations, the late ones without effect."""
    x = two_humps()
    for a, b in zip(fit_mixture(x), fit_mixture(x, stop_early=False), strict=True):
        assert torch.equal(a, b)


def test_mixture_finds_two_humps_when_it_may():
    fit = fit_mixture(two_humps(), components=2, tol=1e-9, start_variance=0.01)
    torch.testing.assert_close(fit.means, torch.tensor([0.25, 0.75]).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(fit.weights, torch.tensor([0.7, 0.3]).double(), atol=0.02, rtol=0)


def test_best_split_is_the_best_of_all_splits():
    x = two_humps(300).double()
    ordered = x.sort().values
    scores = {}
    for i in range(3, len(x) - 2):
        sides = (ordered[:i], ordered[i:])
        scores[float(ordered[i - 1])] = sum(
            len(s) * (torch.tensor(float(len(s))).log() - s.var(correction=0).log() / 2)
            for s in sides
        )
    assert float(best_split(x)) == max(scores, key=scores.get)
    assert 0.4 < best_split(x) < 0.6


def test_searches_do_not_care_for_order_or_for_what_is_left_out():
    x = two_humps(500)
    mixed = torch.cat([x, torch.zeros(77).double()])[torch.randperm(577)]
    keep = mixed > 0.05
    torch.testing.assert_close(best_split(mixed, keep), best_split(x))
    torch.testing.assert_close(mixture_split(mixed, keep), mixture_split(x))


@pytest.mark.parametrize("how", SEARCHES)
def test_search_moves_slowly_and_only_if_it_found_something(how):
    search = ThresholdSearch(RingQueue(8, 250), 0.2, 0.6, how=how, momentum=0.9)
    start = search.thresholds.clone()
    assert torch.equal(search(torch.zeros(2, 250)), start)  # nothing above 0.05: keep
    if how != "bands":
        assert start.tolist() == pytest.approx([0.4, 0.4])
    values = two_humps(2000)[torch.randperm(2000)].float().view(8, 250)
    after = search(values)
    raw = torch.stack(search.search(values)).float()
    torch.testing.assert_close(after, 0.9 * start + 0.1 * raw)
    assert torch.equal(after, search.thresholds)


def test_search_has_all_its_state_in_the_checkpoint():
    a, b = (ThresholdSearch(RingQueue(8, 50), 0.2, 0.6, how="split") for _ in range(2))
    a(two_humps(200).float().view(4, 50))
    b.load_state_dict(a.state_dict())
    again = two_humps(150).float().view(3, 50)
    assert torch.equal(a(again), b(again))
    assert torch.equal(a.queue.values, b.queue.values)


def test_component_without_values_leaves_the_thresholds_alone(monkeypatch):
    search = ThresholdSearch(RingQueue(4, 3), 0.2, 0.6, how="bands")
    start = search.thresholds.clone()
    nothing = torch.tensor(-torch.inf).double()
    half = torch.tensor(0.5).double()
    for pair in ((nothing, -nothing), (half, -nothing), (nothing, half), (half, half / 2)):
        monkeypatch.setattr(search, "search", lambda _, pair=pair: pair)
        assert torch.equal(search(torch.rand(4, 3)), start)
    # the released code gives up here: one value wins no second component
    low, high = mixture_bands(torch.full((9,), 0.5), fit_mixture(torch.full((9,), 0.5)))
    assert not (low.isfinite() and high.isfinite())


def test_search_refuses_nonsense():
    with pytest.raises(ValueError, match="how"):
        ThresholdSearch(RingQueue(4, 4), 0.2, 0.6, how="guess")
    with pytest.raises(ValueError, match="low <= high"):
        ThresholdSearch(RingQueue(4, 4), 0.6, 0.2)
    with pytest.raises(ValueError, match="components"):
        fit_mixture(torch.rand(9), components=4)


@pytest.mark.parametrize("how", ["bands", "mixture", "split"])
def test_values_up_to_the_least_are_left_out(how):
    search = ThresholdSearch(RingQueue(1, 1), 0.3, 0.7, how, least=0.25)
    kept = torch.linspace(0.3, 0.9, 40).double() ** 2 + 0.2
    kept = kept[kept > 0.25]
    low = torch.tensor([0.0, 0.1, 0.25, 0.25, 0.25, 0.25]).double()
    assert search.search(torch.cat([low, kept])) == search.search(kept)
