"""The two benchmarks that strangers run: tiny runs to the end, and what they do with trouble."""

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wsss_lab.models.onednn import multiply_by_onednn

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bring(monkeypatch):
    """Import a module from the folder of the benchmarks, and forget all of that folder later."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def run(script, *options):
    command = [sys.executable, str(FOLDER / script), "--tiny", *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_rivals_compare_before_they_time(tmp_path):
    file = tmp_path / "rivals.json"
    groups = ("refinement", "losses")
    options = ("--repeats", "2", "--least", "0", "--only", *groups, "--json", str(file))
    done = run("rivals.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert {row["group"] for row in result["rows"]} == set(groups)
    assert result["threads"] == 1
    assert len(result["load_before"]) == 3
    assert {"torchmetrics", "grad-cam", "pydensecrf2", "torch"} <= set(result["versions"])
    for row in result["rows"]:
        assert row["state"] == "timed", row
        assert 0 <= row["difference"] <= row["tolerance"]
        for who in ("ours", "theirs"):
            assert 0 < row[who]["cpu_s_smallest"] <= row[who]["cpu_s_median"]
        least = row["ours"]["cpu_s_smallest"] / row["theirs"]["cpu_s_smallest"]
        assert row["ratio_of_smallest"] == pytest.approx(least, rel=1e-2)
        assert row["what"][:66] in done.stdout


def test_a_rival_that_is_not_there_has_a_row(bring, monkeypatch, tmp_path):
    rivals = bring("rivals")
    options = argparse.Namespace(tiny=True, repeats=1, least=0.0)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)  # as if it were not installed
    (row,) = rivals.rows_of("crf", options, tmp_path)
    assert row["state"] == "not installed: pip install pydensecrf2"
    assert row["state"] in rivals.line(row)
    monkeypatch.setitem(rivals.GROUPS, "crf", ("pydensecrf2", lambda *_: [][0]))
    (row,) = rivals.rows_of("crf", options, tmp_path)
    assert (row["state"], row["error"][:10]) == ("error", "IndexError")


@pytest.mark.parametrize(("theirs", "state"), [(1.0, "timed"), (1.1, "differs"), (None, "error")])
def test_other_results_are_not_timed(bring, monkeypatch, tmp_path, theirs, state):
    rivals, largest = bring("rivals"), bring("rivals_pairs").largest

    def other():
        if theirs is None:
            raise RuntimeError("too large")
        return torch.tensor(theirs)

    pair = rivals.Pair("one", "another", lambda: torch.ones(()), other, 0.01, "", largest)
    monkeypatch.setitem(rivals.GROUPS, "crf", ("", lambda *_: [pair]))
    options = argparse.Namespace(tiny=True, repeats=1, least=0.0)
    (row,) = rivals.rows_of("crf", options, tmp_path)
    assert row["state"].startswith(state)
    assert ("ours" in row) == (state == "timed")


def test_results_that_are_not_numbers_differ(bring):
    rivals, largest = bring("rivals"), bring("rivals_pairs").largest
    nan = torch.tensor(torch.nan)
    pair = rivals.Pair("one", "another", lambda: nan, lambda: nan, 1.0, "", largest)
    assert rivals.measure(pair, 1, 0.0)["state"] == "differs, not timed"


def test_no_entry_of_a_result_is_overlooked(bring):
    gap = bring("rivals_pairs").relative_of_all
    one = torch.tensor([1.0, 2.0])
    assert gap({"a": one, "more": one}, {"a": one, "b": one}) == 0
    assert gap({"a": one, "b": one + 0.5}, {"a": one, "b": one}) == pytest.approx(0.25)
    for nan in ("a", "b", "c"):
        entries = {name: one * torch.nan if name == nan else one for name in "abc"}
        assert not gap(entries, dict.fromkeys("abc", one)) <= 1e9


def test_gpu_rehearsal_writes_what_it_promises(tmp_path):
    file = tmp_path / "gpu.json"
    parts = ("peak", "backbones")
    done = run("gpu.py", "--device", "cpu", "--json", str(file), "--only", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert {row["part"] for row in result["rows"]} == set(parts)
    assert [row for row in result["rows"] if row["state"] != "measured"] == []
    assert {"device", "host", "git", "versions", "settings", "tf32"} <= set(result)
    assert result["settings"]["tiny"] is True
    peak = next(row for row in result["rows"] if row["name"] == "matrix product, bf16")
    assert peak["tflop_per_s"] == pytest.approx(
        2e-9 * peak["side"] ** 3 / peak["ms_smallest"], rel=0.01
    )
    assert result["peaks_flop_per_s"]["bf16"] == pytest.approx(1e12 * peak["tflop_per_s"])
    whole = next(row for row in result["rows"] if row["name"] == "toy_cnn, forward and backward")
    rate = whole["gflop_per_image"] * whole["images_per_s"] / 1e3
    assert whole["tflop_per_s"] == pytest.approx(rate, rel=0.01)
    assert whole["mfu_of_measured_peak"] == pytest.approx(rate / peak["tflop_per_s"], rel=0.01)


def test_every_method_has_a_step_at_full_size(bring):
    """Names alone: the steps themselves need a GPU."""
    parts = bring("gpu_parts")
    names = [name for name, _ in parts.step_jobs(parts.Bench(torch.device("cpu")))]
    for method in ("asdt", "cosa", "tscd", "acr", "cam_baseline"):
        assert any(name.startswith(f"{method}, voc,") for name in names), method
    assert "asdt, voc-released, fit, both teachers" in names
    assert {"tscd, voc, fit, tags only", "acr, voc, affinity", "acr, voc, masks"} <= set(names)
    assert names.index("asdt, voc, fit, both teachers") < names.index("cosa, voc, fit, tags only")


def test_a_step_of_a_preset_is_measured(bring):
    parts = bring("gpu_parts")
    bench = parts.Bench(torch.device("cpu"), tiny=True, seconds=0.0, peaks={"float32": 1e11})
    row = parts.step(bench, "acr", "toy", 1, 0)
    assert (row["side_px"], row["batch"], row["precision"]) == (128, 2, "32-true")
    assert row["runs"] >= 1
    rate = row["gflop_per_image"] * row["images_per_s"] / 1e3
    assert row["mfu_of_measured_peak"] == pytest.approx(10 * rate, rel=0.01)


def test_operations_are_those_of_forward_and_backward(bring):
    parts = bring("gpu_parts")
    layer, x = torch.nn.Conv2d(3, 5, 1, bias=False), torch.rand(2, 3, 4, 4)
    forward = 2 * 2 * 16 * 3 * 5
    assert parts.count_operations(lambda: layer(x)) == forward
    # gradient of the weights; the image needs none
    assert parts.count_operations(lambda: layer(x).sum().backward()) == 2 * forward
    x.requires_grad_()
    layers = {
        "grouped": torch.nn.Conv2d(3, 12, 3, groups=3, padding=1, bias=False),
        "transposed": torch.nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3, bias=False),
    }
    for name, layer in layers.items():
        forward = 2 * 2 * 16 * (12 * 9 if name == "grouped" else 3 * 2 * 4)
        assert parts.count_operations(lambda m=layer: m(x).sum().backward()) == 3 * forward, name
    linear = multiply_by_onednn(torch.nn.Linear(512, 512))
    many = torch.rand(64, 512, requires_grad=True)
    assert parts.count_operations(lambda: linear(many).sum().backward()) == 6 * 64 * 512**2


def test_half_the_batch_is_tried_where_memory_ends(bring):
    parts = bring("gpu_parts")

    def needs(most):
        def measured(count):
            if count > most:
                raise torch.OutOfMemoryError(f"no room for {count}")
            return {"ms_median": 1.0}

        return measured

    assert parts.with_less_memory(needs(16), 16) == {"batch": 16, "ms_median": 1.0}
    row = parts.with_less_memory(needs(3), 16)
    assert (row["batch"], row["batch_wanted"], row["out_of_memory"]) == (2, 16, "no room for 4")
    with pytest.raises(torch.OutOfMemoryError):
        parts.with_less_memory(needs(0), 16)
    with pytest.raises(ZeroDivisionError):
        parts.with_less_memory(lambda count: 1 // 0, 16)


def test_trouble_in_one_part_is_a_row(bring, monkeypatch):
    gpu, count = bring("gpu"), bring("gpu_parts").operations_of

    def jobs(bench):
        yield "fine", lambda: {"ms_median": 1.0}
        yield "broken", lambda: {"ms_median": 1 // 0}
        # counting swallows errors, but not the end of the time
        yield "endless", lambda: count(lambda: time.sleep(30))[1]

    def broken(bench):
        raise RuntimeError("no such network")
        yield

    parts = {"one": (0.4, jobs), "two": (0.3, broken), "three": (0.3, jobs)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "LEAST", 0.05)
    monkeypatch.setattr(gpu, "free", lambda: None)
    bench = gpu.Bench(torch.device("cpu"), tiny=True)
    kept = []
    options = argparse.Namespace(minutes=3 / 60, only=list(parts))
    rows = gpu.measure(bench, options, lambda rows: kept.append(len(rows)))
    states = {(row["part"], row["name"]): row["state"] for row in rows}
    for part in ("one", "three"):
        assert states[part, "fine"] == "measured"
        assert states[part, "broken"] == states["two", "two"] == "error"
        assert states[part, "endless"] == "stopped: out of time"
    assert kept == list(range(1, 8))  # written after every job
    assert "ZeroDivisionError" in gpu.line(rows[1])
    options.minutes = 0.0
    rows = gpu.measure(bench, options, lambda rows: None)
    assert {row["state"] for row in rows} == {"skipped: out of time", "error"}


def test_without_a_gpu_it_says_so(bring, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu"])
    with pytest.raises(SystemExit, match="no GPU that torch can use"):
        bring("gpu").main()
    assert list(tmp_path.iterdir()) == []


def counted(bring, work):
    """What `limits.py` finds in a piece of work where a product runs at 1 G/s, memory at 1 GB/s."""
    with bring("limits").Meter(1e9, [(2.0**40, 1e9)]) as meter:
        work()
    return meter


def test_limits_count_products_and_traffic(bring):
    a, b = torch.ones(200, 300), torch.ones(300, 50)
    meter = counted(bring, lambda: a @ b)
    assert meter.arithmetic == 2 * 200 * 300 * 50
    assert meter.bytes == 4 * (200 * 300 + 300 * 50 + 200 * 50)
    found = meter.found(0.012)
    assert found["limit_s"] == found["arithmetic_s"] == 0.006  # the product takes longer
    assert found["share_of_limit"] == 0.5
    assert found["where"]["products"]["limit_s"] == 0.006

    row = torch.ones(1, 300)
    meter = counted(bring, lambda: a.t()[:100].t().add_(row.expand(200, 300)[:, :100]))
    assert meter.arithmetic == 0
    assert meter.bytes == 4 * (
        200 * 100 + 100 + 200 * 100
    )  # read, a row, written; views for nothing
    assert meter.found(1)["limit_s"] == pytest.approx(4e-9 * 40_100, rel=1e-2)


def test_limits_count_both_ways_of_layers_and_what_they_are(bring):
    layers = {
        "dense": torch.nn.Conv2d(8, 16, 3, padding=1, bias=False),
        "depthwise": torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    }
    for name, layer in layers.items():
        image = torch.rand(2, 8, 20, 30, requires_grad=True)
        products = 2 * 2 * 20 * 30 * layer.weight.numel()
        meter = counted(bring, lambda m=layer, x=image: m(x).sum().backward())
        assert meter.arithmetic == 3 * products, name
        kind = "depthwise" if name == "depthwise" else "products"
        assert meter.rows[kind]["calls"] == 2

    linear = multiply_by_onednn(torch.nn.Linear(512, 512))
    x = torch.rand(64, 512, requires_grad=True)
    meter = counted(bring, lambda: linear(x).sum().backward())
    assert meter.arithmetic == 3 * 2 * 64 * 512 * 512
    meter = counted(bring, lambda: torch.nn.functional.embedding_bag(
        torch.zeros(10, 3, dtype=torch.long), torch.rand(5, 21), mode="sum"))  # fmt: skip
    assert meter.rows["sums of rows"]["calls"] == 1
    assert meter.arithmetic == 2 * 10 * 3 * 21


def test_limits_of_a_method_have_a_row_for_every_stage():
    options = ("--only", "cam_baseline", "--preset", "tiny", "--steps", "1", "--images", "1")
    command = [sys.executable, str(FOLDER / "limits.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout.splitlines()[-1])
    stages = ("tags", "masks", "labels", "evaluate")
    assert list(parts) == [f"cam_baseline tiny, {name}" for name in stages]
    for name, found in parts.items():
        assert 0 < found["arithmetic_s"] <= found["limit_s"], name
        took = sum(group["took_s"] for group in found["where"].values())
        assert took > 0, name
        assert found["operations"] > 100, name


def test_the_table_of_limits_is_the_record(bring):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = page.partition("## `limits.py`")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    wanted = []
    for file in ("limits.json", "limits_photos.json"):
        wanted += bring("limits").rows(json.loads((FOLDER / "results" / file).read_text()))
    assert lines[1:] == wanted


def test_the_table_of_toy_minutes_is_the_record():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = page.partition("## `tiny.py --preset toy`")[2].partition("\n## ")[0]
    found = json.loads((FOLDER / "results" / "toy.json").read_text())
    wanted = []
    for name, one in found["methods"].items():
        seconds, stages = one["processor_s"]["all"], one["processor_s"]["stages"]
        spent = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in stages.items())
        wanted.append(f"| {name} | {seconds / 60:.1f} | {one['wall_s'] / 60:.1f} | {spent} |")
    assert [line for line in table.splitlines() if line.startswith("| ")][1:] == wanted
