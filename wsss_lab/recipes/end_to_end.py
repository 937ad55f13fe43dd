"""Methods that are trained in one go: fit -> evaluate -> `metrics.json`.

Such a method's own module says what is special about it: settings, presets, how its network is
built. Everything else is the same for all of them and stands here. What a run leaves in its folder:

| stage | leaves |
|---|---|
| fit | `checkpoints/`, `log.csv`, at its end `model.safetensors` |
| evaluate: segmentation and class maps on the validation list, in one pass | `metrics.json` |
| instead, where there is no mask to compare with | `labels/`, `overlays/`, `metrics.json` |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_lab.evaluate.evaluate import Crf
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.methods.acr.plugin import with_consistency
from wsss_lab.methods.common.base import Method
from wsss_lab.methods.common.checkpoints import CheckpointKind
from wsss_lab.methods.common.published import Published
from wsss_lab.models.keymaps import Table
from wsss_lab.models.weights import load_strictly
from wsss_lab.progress import Headings
from wsss_lab.recipes.end_to_end_config import EndToEndConfig
from wsss_lab.recipes.end_to_end_plan import StepKind, any_step, plan
from wsss_lab.runs.contents import LABELS, OVERLAYS
from wsss_lab.runs.folder import RunFolder, device_name
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import finish_unscored, load_lists
from wsss_lab.runs.owner import own_run
from wsss_lab.runs.recipe import Recipe, TrainingStage, find_views
from wsss_lab.runs.scoring import TestConfig, bounded, count_classes, released_preset, score
from wsss_lab.runs.settings import restore
from wsss_lab.runs.stages import (
    Log,
    OnStep,
    fit_stage,
    launch,
    seeded,
)
from wsss_lab.runs.start import read_start, start_method

__all__ = ["EndToEnd", "EndToEndConfig", "TestConfig"]


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
    test_views: Mapping[str, MultiScale] = field(default_factory=dict)
    """Name -> scales and flips of a test protocol; `--test.views` calls it METHOD-NAME."""
    crfs: Mapping[str, Crf] = field(default_factory=dict)
    """Name -> post-processing of probabilities; `--test.crf` calls it METHOD-NAME."""
    published: tuple[Published, ...] = ()
    """Published results, to compare runs with."""
    warm_ups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Backbone -> changes to the preset `toy` that leave the tag losses alone."""
    checkpoint: CheckpointKind | None = None
    """How a released checkpoint is recognised; goes with `keymap`."""
    packaged_start: str = ""
    """Method whose packaged network `--start toy` begins with; "" for the method's own."""

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
            test_views=self.test_views,
            crfs=self.crfs,
            published=self.published,
            warm_ups=self.warm_ups,
            checkpoint=self.checkpoint,
            stages=self.training_stages,
        )

    def train(
        self,
        config: Any,
        out: Path,
        resume: bool = False,
        log: Log = print,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Train and score, or go on with what is not done.

        Args:
            config: the settings.
            out: folder of the run.
            resume: go on with the run in `out`.
            log: gets lines of text.
            overwrite: replace a run that `out` holds.

        Returns:
            The content of `metrics.json`.

        Raises:
            ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
            OutputError: a result cannot be written.
        """
        with own_run(
            out, self.name, config, resume, log, self.training_stages, overwrite
        ) as folder:
            return self._train(folder, config, log)

    def training_stages(self, config: Any) -> list[TrainingStage]:
        """List what a run with these settings trains: the one network."""

        def build(classes: int) -> Method:
            method = self.build(config, classes, True)
            if config.start:  # that it fits is seen when the classes are known
                read_start(config.start, self._start_name(config), config.method.backbone)
            return with_consistency(method, config.acr)  # backbones without attention end here

        return [TrainingStage(build, config.run, config.optim, "method.backbone")]

    def _start_name(self, config: Any) -> str:
        return (config.start == "toy" and self.packaged_start) or self.name

    def _train(self, folder: RunFolder, config: Any, log: Log) -> dict[str, Any]:
        out = folder.path
        fabric, log = launch(config.run, log)
        wanted = config.run.steps * config.run.batch
        images, val = load_lists(
            config.data,
            log,
            batch=config.run.batch,
            wanted=wanted,
            masks=config.trains_on_masks,
        )
        seeded(config.run.seed)
        method = self.build(config, images.num_classes, True)
        backbone, classes = config.method.backbone, images.class_names
        start_method(method, config.start, self._start_name(config), backbone, classes)
        plugged = with_consistency(method, config.acr)
        folder.begin(images.class_names)
        fabric.barrier()  # a replaced run is gone before any process looks for its stages
        facts = {
            "method": self.name,
            "part": type(method).__name__,
            "classes": ["background", *images.class_names],
            "config": config,
            "weights": config.weights,
        }
        stages = Headings(log, 2)
        stages.open("train", "one network learns classes and masks", "model.safetensors")
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
        if val is None:
            stages.open(
                "labels", "training images are labelled, no scores", f"{LABELS}/, {OVERLAYS}/"
            )
        else:
            stages.open("evaluate", "the network against the truth", "metrics.json")
        return folder.write_metrics(
            self._results(method, config, images, val, out, fabric, log),
            seed=config.run.seed,
            device=device_name(fabric.device),
            weights=config.weights,
        )

    def _results(
        self, method: Method, config: Any, images: Any, val: Any, out: Path, fabric: Any, log: Log
    ) -> dict[str, Any]:
        """Scores on the validation list; without one, labels of the training images to look at."""
        views, test = self.views(config), config.test
        if val is None:
            threshold = 0.4 if test.cam_threshold is None else test.cam_threshold
            label_stage(method, images, out / LABELS, views=views, threshold=threshold,
                        segment=True, batch=test.batch, workers=config.run.workers,
                        fabric=fabric, log=log)  # fmt: skip
            return finish_unscored(images, out, LABELS, fabric=fabric, log=log)
        found = score(method, val, views, config, fabric, test.cam_threshold, log)
        log(f"\nvalidation list\n{found.table()}")
        more = self.report(method, config, fabric, out, log) if self.report else {}
        return {"val": found.as_dict(), **more}

    def load_method(self, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
        """The network of a weights file that `train` wrote, in eval mode.

        Args:
            facts: see `wsss_lab.runs.weights_file.read_facts`.
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
        return bounded(find_views(config.test.views), config.test)

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
