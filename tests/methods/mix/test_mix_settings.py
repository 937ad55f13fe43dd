"""Settings of the mix, techniques of a reader's own file, runs from the command line."""

import json

import pytest
import torch
from stopped import Stop, stop_at
from tiny_mix import ON, START, K, batch, make, state_of, step

from wsss_lab.__main__ import main
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.technique import (
    OWN,
    TECHNIQUES,
    Lesson,
    Technique,
    register_technique,
)
from wsss_lab.recipes.mix import METHOD
from wsss_lab.runs.folder import read_run
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.weights import load_trained
from wsss_lab.train.fit import fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.7}, r"^low, high: expected low <= high, got 0.7 and 0.55"),
        ({"slow.decay": 1.0}, r"^slow\.decay: expected a number in \[0, 1\)"),
        ({"turns.mix": 0.5}, r"^turns\.mix: expected None with signal='a', got 0.5"),
        ({"turns.signal": "pulse", "turns.mix": 0.5}, r"^turns\.mix: expected None with signal='p"),
        ({"turns.signal": "b"}, r"^turns\.signal: expected one of a, pulse, mix"),
        ({"refine.kind": "crf"}, r"^refine\.kind: expected one of none, par, varm"),
        ({"refine.iterations": 0}, r"^refine\.iterations: expected at least 1"),
        ({"separation.weight": 0.0}, r"^separation\.weight: expected above 0"),
        ({"weights.seg": 0.0}, r"^weights\.seg: expected above 0"),
        ({"extra": ["mine", "mine"]}, r"^extra: expected every technique once"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        with_changes(MixConfig(), changes)


def test_the_preset_is_the_base_alone():
    config = find_preset("mix", "toy").method
    assert config == MixConfig()
    torch.manual_seed(0)
    method = METHOD.build(find_preset("mix", "toy"), K, False)
    assert list(method.techniques) == []
    for name in OWN:
        assert hasattr(config, name)  # each has its group of settings


def test_steps_are_named_by_what_they_cost():
    config = with_changes(
        find_preset("mix", "toy"),
        {"method.warmup": 1, "method.turns.signal": "pulse", "method.turns.period": 4,
         "method.turns.duty": 0.25},
    )  # fmt: skip
    kinds = [METHOD.step_kind(config, step) for step in range(6)]
    tags, plain, both = "fit, tags only", "fit, all losses", "fit, all losses and teacher B"
    assert kinds == [tags, tags, plain, plain, both, plain]


class Mirror(Technique):
    """A technique with a weight, a buffer, labels, a lesson and a loss of its own."""

    def __init__(self):
        super().__init__()
        self.factor = 0.5
        self.gain = torch.nn.Parameter(torch.tensor(2.0))
        self.register_buffer("steps", torch.zeros(()))

    def labels(self, state):
        return state.labels.masked_fill(state.labels == 2, 0)

    def lessons(self, state):
        return [Lesson(state.labels, 0.4)]

    def losses(self, state):
        return {"mirror": self.gain * state.outputs.cam.square().mean()}

    def after_step(self, network, step):
        self.steps += 1


@pytest.fixture
def mirror():
    register_technique("mirror", lambda config, network: Mirror())
    yield
    TECHNIQUES._found.pop("mirror")


def test_a_technique_of_a_reader(mirror):
    method = make(extra=["mirror"], **ON["slow"])
    assert list(method.techniques) == ["slow", "mirror"]
    state = state_of(method)
    assert not (state.labels == 2).any()
    assert [lesson.share for lesson in state.lessons] == [0.4]
    out = step(method)
    expected = out.parts["tags"] + 0.1 * out.parts["seg"] + 0.5 * out.parts["mirror"]
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    own = method.techniques["mirror"]
    assert own.gain.grad > 0
    assert any(own.gain is p for group in method.param_groups(1, 2, 0) for p in group["params"])
    method.after_step(START)
    assert method.state_dict()["techniques.mirror.steps"] == 1


def test_two_losses_of_one_name_are_refused(mirror):
    class Seg(Technique):
        def losses(self, state):
            return {"seg": state.logits.mean()}

    register_technique("mirror", lambda config, network: Seg())
    with pytest.raises(ValueError, match="losses: Seg calls a loss seg, as another does"):
        step(make(extra=["mirror"]))


def test_names_of_techniques(mirror):
    for name, message in (
        ("scd", "there is a technique 'scd' already"),
        ("two words", "expected a Python name"),
        ("update", "expected a Python name"),
    ):
        with pytest.raises(ValueError, match=message):
            register_technique(name, lambda config, network: None)
    with pytest.raises(
        ValueError, match=r"method\.extra: .*got 'scd', which method.scd switches on"
    ):
        make(extra=["scd"])
    with pytest.raises(ValueError, match=r"method\.extra: .*\(mirror\), got 'nobody'; .*--use"):
        make(extra=["nobody"])


OWN_FILE = """
from wsss_lab.methods.mix.technique import Technique, register_technique


class Quiet(Technique):
    factor = 0.01

    def losses(self, state):
        return {"quiet": state.logits.square().mean()}


register_technique("quiet", lambda config, network: Quiet())
"""


def command(out, *more):
    words = ["train", "mix", "--out", out, "--start", "toy", "--data.crop", 64, "--data.size", 64]
    words += ["--data.count", 4, "--data.val-count", 2, "--run.steps", 3, "--run.batch", 2]
    words += ["--run.log-every", 1, "--method.warmup", 0, "--method.scales", 1.0]
    return [str(word) for word in (*words, *more)]


def test_from_the_command_line_to_a_network(tmp_path, capsys):
    file = tmp_path / "quiet.py"
    file.write_text(OWN_FILE)
    out = tmp_path / "run"
    on = ["--method.refine.kind", "par", "--method.search.how", "split", "--acr.alpha", "5"]
    on += ["--method.extra", "quiet", "--use", str(file)]
    assert main(command(out, *on)) == 0
    columns = (out / "log.csv").read_text().splitlines()[0].split(",")
    assert {"tags", "seg", "low", "high", "quiet", "acr_affinity"} <= set(columns)
    results = json.loads((out / "metrics.json").read_text())["results"]["val"]
    assert {"seg", "cam", "tags"} <= set(results)
    assert read_run(out)["config"]["method"]["extra"] == ["quiet"]
    trained = load_trained(out).method
    assert list(trained.techniques) == ["refine", "search", "quiet"]
    assert main(["eval", "mix", "--weights", str(out), "--first", "2"]) == 0
    TECHNIQUES._found.pop("quiet")
    capsys.readouterr()
    assert main(command(tmp_path / "other", "--method.extra", "quiet")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--method.extra" in line or "method.extra" in line
    assert not (tmp_path / "other").exists()


def test_a_network_without_attention_is_refused_before_anything_is_written(tmp_path, capsys):
    words = command(tmp_path / "run", "--method.backbone", "toy_cnn", "--acr.alpha", 1)
    words[words.index("--start") + 1] = ""
    assert main(words) == 2
    assert "toy_cnn has no attention" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on_exactly(tmp_path):
    changes = {**ON["slow"], **ON["search"], **ON["scd"], **ON["turns"], "warmup": 0}
    run = RunConfig(steps=4, batch=3, save_every=2, log_every=0)
    optim = OptimConfig(lr=1e-3, warmup=0, schedule="constant")
    ends = []
    for stop in (None, 2):
        method = make(**changes)
        options = {"out": tmp_path / str(stop), "log": None}
        if stop is not None:
            with pytest.raises(Stop):
                fit(method, batch, run, optim, on_step=stop_at(stop), **options)
            method = make(seed=1, **changes)
        fit(method, batch, run, optim, **options)
        ends.append(method.state_dict())
    assert float(ends[0]["techniques.search.search.thresholds"][0]) != pytest.approx(0.45, abs=1e-6)
    for key, value in ends[0].items():
        assert torch.equal(ends[1][key], value), key
