"""Every number of every settings class has a range, and what lies outside is refused by name."""

import dataclasses
import importlib
import math
import pkgutil
import typing

import pytest

import wsss_lab
from wsss_lab.__main__ import main
from wsss_lab.commands.methods import train
from wsss_lab.config import OptimConfig
from wsss_lab.ranges import Range, Settings, check, checks_later, has_range
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.refine.crf import DenseCRF
from wsss_lab.runs.recipe import RECIPES
from wsss_lab.runs.settings import with_changes

NO_SETTINGS = {"DataSet", "Recipe", "EndToEnd"}
"""Dataclasses in the same modules that hold functions."""


def children(kind):
    return [
        kind,
        *(grandchild for child in kind.__subclasses__() for grandchild in children(child)),
    ]


@pytest.fixture(scope="module")
def every_settings_class():
    for module in pkgutil.walk_packages(wsss_lab.__path__, "wsss_lab."):
        if not module.name.endswith("__main__") or module.name.count(".") == 1:
            importlib.import_module(module.name)
    importlib.import_module("wsss_lab.studies.__main__")
    return [kind for kind in children(Settings) if dataclasses.is_dataclass(kind)]


def hints(kind):
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def test_every_number_of_every_setting_has_a_range(every_settings_class):
    names = {kind.__name__ for kind in every_settings_class}
    assert {"OptimConfig", "RunConfig", "DataConfig", "DenseCRF", "LocalKernel", "Fusion"} <= names
    assert {
        "MultiScale",
        "ScoreConfig",
        "TestConfig",
        "ACRConfig",
        "TSCDConfig",
        "Predict",
    } <= names
    bare = [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in every_settings_class
        for name, hint in hints(kind).items()
        if kind.__module__.startswith("wsss_lab") and not has_range(hint)
    ]
    assert not bare


def test_a_number_without_a_range_would_be_found():
    @dataclasses.dataclass(frozen=True)
    class Bare(Settings):
        share: float = 0.5
        counts: tuple[int, ...] | None = None
        fine: typing.Annotated[tuple[float, float] | None, Range("[0, 1]")] = None
        name: str = ""

    assert [n for n, hint in hints(Bare).items() if not has_range(hint)] == ["share", "counts"]


def dataclasses_in(value):
    yield type(value)
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from dataclasses_in(inner)


@pytest.mark.parametrize("method", list(RECIPES))
def test_all_parts_of_a_methods_settings_are_checked(method):
    for preset in RECIPES[method].presets.values():
        check(preset)
        for kind in dataclasses_in(preset):
            assert issubclass(kind, Settings), f"{kind} is not checked on construction"


def test_settings_modules_hold_no_unchecked_dataclass(every_settings_class):
    for kind in every_settings_class:
        module = importlib.import_module(kind.__module__)
        if not module.__name__.endswith("config"):
            continue
        for name, other in vars(module).items():
            own = isinstance(other, type) and other.__module__ == module.__name__
            if own and dataclasses.is_dataclass(other):
                assert issubclass(other, Settings) or name in NO_SETTINGS, f"{module}.{name}"


def numeric(hint):
    """Whether a field takes one number, or two; its type without the range."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return numeric(inner[0])
    if hint in (int, float):
        return 1
    if typing.get_origin(hint) is tuple and inner[0] in (int, float):
        return 2
    found = [numeric(each) for each in inner if each is not type(None)] if inner else []
    return found[0] if len(found) == 1 else 0


def test_nan_and_infinity_are_refused_everywhere(every_settings_class):
    tried = 0
    for kind in every_settings_class:
        try:
            config = kind()
        except TypeError:  # fields without a default
            continue
        for name, hint in hints(kind).items():
            for bad in (math.nan, math.inf, -math.inf) if numeric(hint) else ():
                value = bad if numeric(hint) == 1 else (bad, bad)
                with pytest.raises(ValueError, match=f"^{name}: expected .*{bad}"):
                    dataclasses.replace(config, **{name: value})
                tried += 1
            optional = type(None) in typing.get_args(hint)
            for bad in ("1", [1], True) if numeric(hint) == 1 and not optional else ():
                with pytest.raises(ValueError, match=f"^{name}: expected"):
                    dataclasses.replace(config, **{name: bad})
    assert tried > 400


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1), (-1e-9, 1.1, math.nan)),
        ("(0, 1)", (0.5,), (0, 1)),
        ("[0, inf)", (0, 1e20), (-1, math.inf, 1e31)),
        ("(-inf, inf)", (-1e20, 0), (-math.inf, math.nan)),
        ("[1, inf)", (1, 2**31 - 1), (0, 2**31, 10**400)),
    ],
)
def test_intervals(interval, inside, outside):
    assert [Range(interval).expected(value) for value in inside] == [None] * len(inside)
    assert all(Range(interval).expected(value) for value in outside)


REFUSED = [
    ("cam_baseline", "--test.scales 0.0", "--test.scales: expected a number in (0, 16], got 0.0"),
    ("cam_baseline", "--test.scales", "--test.scales: expected at least one value"),
    ("cam_baseline", "--band 0.9 0.1", "--band: expected values that do not fall, got (0.9, 0.1)"),
    ("cam_baseline", "--band nan nan", "--band: expected a number in [0, 1], got nan"),
    ("cam_baseline", "--cam-scales nan", "--cam-scales: expected a number in (0, 16], got nan"),
    (
        "cam_baseline",
        "--mask-optim.lr inf",
        "--mask-optim.lr: expected at most 1000000, got inf",
    ),
    ("cam_baseline", "--optim.clip -1", "--optim.clip: expected at least 0, got -1"),
    ("cam_baseline", "--run.batch 0", "--run.batch: expected at least 1, got 0"),
    ("cam_baseline", f"--run.steps {10**30}", "--run.steps: expected at most 2147483647"),
    ("cam_baseline", "--data.scale 2 1", "--data.scale: expected values that do not fall"),
    ("cam_baseline", "--data.name vox", "--data.name: expected one of toy, voc"),
    ("asdt", "--method.cam-floor nan", "--method.cam-floor: expected a number in [0, 1], got nan"),
    ("asdt", "--method.crf-floor nan", "--method.crf-floor: expected"),
    ("asdt", "--method.background-floor nan", "--method.background-floor: expected"),
    ("asdt", "--method.seg-crf.clip 2", "--method.seg-crf.clip: expected a number in (0, 1)"),
    ("asdt", "--method.duty 6", "a duty of 1/6 is 0.1667, not 6"),
    ("cosa", "--method.low 0.8", "--method.low, --method.high: expected low <= high, got 0.8"),
    ("cosa", "--method.weights.seg nan", "--method.weights.seg: expected at least 0, got nan"),
    ("cosa", "--acr.alpha nan", "--acr.alpha: expected at least 0, got nan"),
    ("cosa", "--method.scales 1.0 0.01", "--method.scales: expected views of at least 4 px"),
    ("tscd", "--test.cam-threshold 1.5", "--test.cam-threshold: expected a number in [0, 1]"),
    ("acr", "--affinity.optim.lr nan", "--affinity.optim.lr: expected"),
    ("acr", "--background 12 1", "--background: expected values that do not fall"),
]


@pytest.mark.parametrize(("method", "words", "message"), REFUSED)
def test_a_refusal_names_the_option_before_anything_is_made(
    method, words, message, tmp_path, capsys
):
    out = tmp_path / "run"
    arguments = ["train", method, "--preset", "toy", "--out", str(out), *words.split()]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data toy --out {} --count 0", "--count: expected at least 1, got 0"),
        ("data toy --out {} --seed -1", "--seed: expected at least 0, got -1"),
        ("plan cosa --timed-steps 0", "--timed-steps: expected at least 1, got 0"),
        (
            "predict nothing.jpg --out {} --threshold nan",
            "--threshold: expected a number",
        ),
        ("eval --pred {} --truth {} --list l --classes 1", "--classes: expected a number in"),
    ],
)
def test_the_other_commands_name_their_options(words, message, tmp_path, capsys):
    assert main([w.format(tmp_path / "new") for w in words.split()]) == 2
    assert message in capsys.readouterr().err


def test_changes_by_name_carry_the_whole_name():
    with pytest.raises(ValueError, match=r"^mask_optim\.lr: expected at least 0, got nan"):
        with_changes(Config(), {"mask_optim.lr": math.nan})
    with pytest.raises(ValueError, match=r"^band: expected values that do not fall"):
        with_changes(Config(), {"band": [0.9, 0.1]})


def test_checks_that_come_later_do_not_get_lost():
    with checks_later():
        late = OptimConfig(lr=math.nan)
    with pytest.raises(ValueError, match="lr: expected"):
        check(late)
    with pytest.raises(ValueError, match="lr: expected"):
        OptimConfig(lr=math.nan)
    with pytest.raises(ValueError, match="iterations: expected"):
        DenseCRF(iterations=-1)


def test_help_shows_settings_as_before(capsys):
    with pytest.raises(SystemExit):
        train(["cam_baseline", "--help"])
    told = capsys.readouterr().out
    assert "--band" in told
    assert "Range object" not in told
