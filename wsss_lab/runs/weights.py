"""Trained networks from weights files, ours and the authors', ready to predict and to be scored.

| file | becomes |
|---|---|
| folder of a run, or a `.safetensors` file from one | the network with the settings of its run |
| checkpoint of a released code | the network with the settings of a `-released` preset |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from wsss_lab.config import provenance, shortened, write_json
from wsss_lab.data.catalog import DATASETS
from wsss_lab.data.class_names import BACKGROUND, require_same_classes
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.map_refinement import map_refinement
from wsss_lab.evaluate.scores import side_by_side
from wsss_lab.evaluate.trained import Trained, choose_device
from wsss_lab.models.state import widened
from wsss_lab.ranges import Batch, Range, Settings, Share, Whole
from wsss_lab.runs.identify import misunderstood, released_by
from wsss_lab.runs.images import FirstImages, load_data
from wsss_lab.runs.recipe import RECIPES, find_crf, find_recipe
from wsss_lab.runs.safe_read import read_checkpoint
from wsss_lab.runs.scoring import protocol_of
from wsss_lab.runs.settings import plain, restore
from wsss_lab.runs.weights_file import read_facts, require_sound


def load_trained(weights: Path, expected: str | None = None, widen: bool = False) -> Trained:
    """The network of a weights file; nothing stored in the file is run.

    Args:
        weights: a run's folder, a `.safetensors` file from one, or a released checkpoint.
        expected: name of the method it has to be of; None takes any.
        widen: take half-precision numbers as float32; otherwise no type is cast.

    Raises:
        FileNotFoundError: no such file or folder, or a run that is not done.
        ValueError: the file is damaged, not safe to load, does not fit, or is of something else;
            says what it is, if that is known.
    """
    file = weights / "model.safetensors" if weights.is_dir() else weights
    if not file.is_file():
        more = "; is the run done?" if (weights / "config.json").is_file() else ""
        raise FileNotFoundError(f"weights: there is no {file}{more}")
    facts = read_facts(file)
    state, rest = read_checkpoint(file)
    require_sound(file, facts, state)
    try:
        name = released_by(file, state, rest) if facts is None else str(facts.get("method"))
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(misunderstood(file, error)) from error
    if expected not in (None, name):
        raise ValueError(f"weights: {file} is of {name}, not of {expected}")
    if name not in RECIPES:
        raise ValueError(f"weights: {file} is of {name!r}, which this version cannot run")
    recipe = find_recipe(name)
    try:
        if facts is None:
            if recipe.load_released is None or recipe.views is None:
                raise ValueError(f"{name}: released checkpoints of it cannot be read")
            method, config = recipe.load_released(state)
            classes = ("background", *DATASETS[config.data.name].classes)
            views = recipe.views(config)
        else:
            method, config = (
                recipe.load_method(facts, widened(state) if widen else state),
                restore(recipe.config, facts["config"]),
            )
            classes, views = class_names(facts), recipe.load_views(facts)
    except ValueError as error:
        raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
    except Exception as error:  # tensors of wrong dimensions, edited descriptions: anything
        raise ValueError(misunderstood(file, error)) from error
    return Trained(name, method, views, classes, config, file, facts is None)


def class_names(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names in the description of a weights file, background first.

    Raises:
        ValueError: they are no list of 2 to 255 texts.
    """
    names = facts.get("classes")
    if (
        not isinstance(names, list)
        or not 2 <= len(names) <= 255
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"classes: expected a list of 2 to 255 names, got {shortened(names)}")
    return tuple(names)


@dataclass(frozen=True)
class ScoreConfig(Settings):
    """Images and protocol of a score. Scales, flips and map refinement come with the weights."""

    data: DataConfig
    """Which images. Only name, root, val split, tags and, for the toy world, count and seed
    matter."""
    crf: str = "none"
    """Post-processing of the segmentation, METHOD-NAME, such as `tscd-eval`; "none" for none."""
    cam_threshold: Share | None = None
    """Background score, 0..1, at which class maps get a report; None reports the sweep only."""
    batch: Batch = 8
    """Images of one size per forward pass, at most."""
    first: Whole = 0
    """Only so many images, from the start of the list; 0 for all."""
    workers: Annotated[int, Range("[0, 4096]")] = 0
    """Processes that read images."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""


def score_config(config: Any) -> ScoreConfig:
    """The settings under which a run is scored, from those of the run."""
    test = config.test
    threshold = getattr(test, "cam_threshold", getattr(config, "threshold", None))
    return ScoreConfig(config.data, test.crf, threshold, test.batch)


def score_weights(
    trained: Trained,
    config: ScoreConfig,
    *,
    out: Path | None = None,
    log: Callable[[str], None] = print,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Score a network with the true tags of every image and without, in one pass.

    Args:
        trained: see `load_trained`.
        config: on what.
        out: JSON file to write.
        log: gets the tables.
        progress: gets lines with the time left; None for silence.

    Returns:
        Numbers, protocols and provenance, as in a run's `metrics.json`.

    Raises:
        ValueError: the data set has other classes or another order of them, or no masks; a wrong
            argument.
        OutputError: `out` cannot be written.
    """
    crf = find_crf(config.crf)
    place = choose_device(config.device)
    images = load_data(config.data, "val", masks=True, wanted=config.first or None)
    k1 = images.num_classes + 1
    require_same_classes(
        trained.classes,
        (BACKGROUND, *images.class_names),
        f"those the network was trained for ({trained.file})",
        f"{config.data.name} {config.data.split_of('val')}",
        "Choose the data set with --data.name and --data.root, or write classes.txt in that order",
    )
    found = evaluate(
        trained.method.to(place),
        FirstImages(images, config.first) if config.first else images,
        trained.views,
        num_classes=k1,
        class_names=("background", *images.class_names),
        cam_threshold=config.cam_threshold,
        batch=config.batch,
        tags_at_test=True,
        crf=crf,
        refine=map_refinement(getattr(trained.config, "refine_steps", 0)),  # as its run was scored
        workers=config.workers,
        protocol=replace(protocol_of(config.data), crf=config.crf),
        log=progress,
    )
    recipe = find_recipe(trained.name)
    log(found.table())
    log(f"\n{side_by_side(found)}")
    if trained.released and recipe.tags_note:
        log(recipe.tags_note)
    settings = plain({"score": config, "run": trained.config})
    facts = {"method": trained.name, "weights": str(trained.file), "released": trained.released}
    content = provenance(settings, seed=0, device=str(place), results=found.as_dict(), **facts)
    if out is not None:
        write_json(out, content)
    return content
