"""Methods that are trained in one go: fit -> evaluate -> `metrics.json`.

Such a method's own module says what is special about it: settings, presets, how its network is
built. Everything else is the same for all of them and stands here. What a run leaves in its folder:

| stage | leaves |
|---|---|
| fit | `checkpoints/`, `log.csv`, at its end `model.safetensors` |
| evaluate: segmentation and class maps on the validation list, in one pass | `metrics.json` |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.evaluate import resolve_crf
from wsss_lab.evaluate.inference import VIEWS, MultiScale
from wsss_lab.methods.acr.plugin import ConsistencyConfig, with_consistency
from wsss_lab.methods.common.base import Method
from wsss_lab.models.keymaps import Table
from wsss_lab.models.weights import load_strictly
from wsss_lab.ranges import SettingError, Settings
from wsss_lab.recipes.end_to_end_plan import StepKind, any_step, plan
from wsss_lab.runs.folder import RunFolder, device_name, restore
from wsss_lab.runs.recipe import Recipe
from wsss_lab.runs.scoring import TestConfig, count_classes, released_preset, score
from wsss_lab.runs.stages import (
    Log,
    OnStep,
    fit_stage,
    launch,
    load_data,
    require_images,
    seeded,
)
from wsss_lab.runs.start import start_method

__all__ = ["EndToEnd", "EndToEndConfig", "TestConfig"]


SMALLEST = 4
"""Least side of a training view, px."""


@dataclass(frozen=True)
class EndToEndConfig(Settings):
    """Settings common to all these methods; each adds its own as `method`."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    weights: str = "toy"
    """Weights the backbone starts from: `toy`, `imagenet`, `random`, the exact name of timm
    weights, or a file."""
    start: str = ""
    """Go on from the end of a warm-up, heads included, see `wsss_lab.runs.start`: `toy`
    for the package's own weights, a run's folder, or nothing."""
    run: RunConfig = field(default_factory=RunConfig)
    """Length, batch, seed, devices, precision, log."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and learning rate."""
    test: TestConfig = field(default_factory=TestConfig)
    """How the result is scored."""
    acr: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """All-pairs consistency as a plug-in; off, unless `acr.alpha` is above 0."""

    def require(self) -> None:
        """Refuse scales at which a crop would vanish, which shows only after the warm-up."""
        method = getattr(self, "method", None)
        least = min(getattr(method, "scales", (1.0,))) * getattr(method, "view_scale", 1.0)
        if least * self.data.crop < SMALLEST:
            raise SettingError(
                ["method.scales"],
                f"expected views of at least {SMALLEST} px, the smallest of a crop of "
                f"{self.data.crop} px has {least * self.data.crop:.1f}; use larger scales or crops",
            )


@dataclass(frozen=True)
class EndToEnd:
    """A method of one training stage, given how its network is built; `recipe` completes it.

    A method needs `name`, `summary`, `config`, `presets` and `build`; the rest has defaults.
    """

    name: str
    """Name on the command line and in `config.json`."""
    summary: str
    """One line for lists and `--help`."""
    config: type[Any]
    """A child of `EndToEndConfig`, with the method's own settings as `method`."""
    presets: Mapping[str, Any]
    """Name -> settings."""
    build: Callable[[Any, int, bool], Method]
    """(settings, foreground classes, whether to load the backbone's weights) -> the method."""
    keymap: Table | None = None
    """Names in released checkpoints, see `wsss_lab.models.keymaps`; None: there are none."""
    missing_presets: Mapping[str, str] = field(default_factory=dict)
    """Name -> why there is no such preset."""
    tags_note: str = ""
    """Which tags published numbers were made with."""
    report: Callable[..., dict[str, Any]] | None = None
    """Adds to the results: (trained method, settings, fabric, the run's folder, log) -> results."""
    watcher: Callable[..., OnStep | None] | None = None
    """Observes: (method, images, settings, fabric, the run's folder) -> `fit`'s `on_step`."""
    step_kind: StepKind = any_step
    """(settings, step) -> name of the kind of step; steps of one name take the same time."""

    def recipe(self) -> Recipe:
        """Return the recipe that commands use."""
        return Recipe(
            name=self.name,
            summary=self.summary,
            config=self.config,
            presets=self.presets,
            build=self.build,
            train=self.train,
            load_method=self.load_method,
            load_views=self.load_views,
            plan=partial(plan, self.build, self.step_kind),
            missing_presets=self.missing_presets,
            tags_note=self.tags_note,
            load_released=self.load_released if self.keymap is not None else None,
            views=self.views,
        )

    def train(
        self, config: Any, out: Path, resume: bool = False, log: Log = print
    ) -> dict[str, Any]:
        """Train and score, or go on with what is not done.

        Args:
            config: the settings.
            out: folder of the run.
            resume: go on with the run in `out`.
            log: gets lines of text.

        Returns:
            The content of `metrics.json`.

        Raises:
            ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
            OutputError: a result cannot be written.
        """
        folder = RunFolder(out, self.name, config, resume)
        resolve_crf(config.test.crf)
        fabric, log = launch(config.run, log)
        wanted = config.run.steps * config.run.batch
        images = load_data(config.data, "train", wanted=wanted)
        require_images(images, config.run.batch)
        val = load_data(config.data, "val")
        seeded(config.run.seed)
        method = self.build(config, images.num_classes, True)  # missing weights are reported here
        start_method(method, config.start, self.name, config.method.backbone)
        plugged = with_consistency(method, config.acr)  # and backbones without attention here
        folder.begin()
        facts = {
            "method": self.name,
            "part": type(method).__name__,
            "classes": ["background", *images.class_names],
            "config": config,
            "weights": config.weights,
        }
        fit_stage(
            folder,
            "",
            plugged,
            images,
            config.run,
            config.optim,
            data=config.data,
            fabric=fabric,
            weights=out / "model.safetensors",
            facts=facts,
            log=log,
            on_step=self.watcher(method, images, config, fabric, out) if self.watcher else None,
        )
        method.eval()
        views = VIEWS[config.test.views]
        found = score(method, val, views, config, fabric, config.test.cam_threshold)
        log(f"\nvalidation list\n{found.table()}")
        more = self.report(method, config, fabric, out, log) if self.report else {}
        return folder.write_metrics(
            {"val": found.as_dict(), **more},
            seed=config.run.seed,
            device=device_name(fabric.device),
            weights=config.weights,
        )

    def load_method(self, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
        """The network of a weights file that `train` wrote, in eval mode.

        Args:
            facts: see `wsss_lab.runs.folder.read_facts`.
            state: its tensors.

        Raises:
            ValueError: the tensors do not fit.
        """
        config = restore(self.config, facts["config"])
        method = self.build(config, len(facts["classes"]) - 1, False)
        load_strictly(method, state, what=f"weights of {self.name}")
        return method.eval()

    def load_views(self, facts: Mapping[str, Any]) -> MultiScale:
        """Return the scales and flips with which the network of a weights file is run."""
        return self.views(restore(self.config, facts["config"]))

    def views(self, config: Any) -> MultiScale:
        """Return the scales and flips of a network with these settings."""
        return VIEWS[config.test.views]

    def load_released(self, state: Mapping[str, Tensor]) -> tuple[Method, Any]:
        """The network of a checkpoint of the authors, in eval mode, and the settings it had.

        Args:
            state: the released tensors by name.

        Raises:
            ValueError: the tensors do not fit, or no released preset has this number of classes.
        """
        if self.keymap is None:
            raise ValueError(f"{self.name}: there are no released checkpoints of it")
        classes = count_classes(state, self.keymap, self.name)
        config = self.presets[released_preset(self.presets, classes, self.name)]
        method = self.build(config, classes, False)
        method.load_released(state)  # type: ignore[operator]
        return method.eval(), config
