"""ACR from data to `metrics.json`; its stages are listed in `wsss_lab.recipes.acr.recipe`."""

from wsss_lab.methods.acr import values
from wsss_lab.methods.acr.released import CHECKPOINT
from wsss_lab.recipes.acr import plan, recipe
from wsss_lab.runs.recipe import Recipe

RECIPE = Recipe(
    name=recipe.NAME,
    summary="a transformer attends to an image as to its mirror image; its maps as labels (2023)",
    config=recipe.Config,
    presets=recipe.PRESETS,
    build=recipe.build,
    train=recipe.train,
    load_method=recipe.load_method,
    load_views=recipe.load_views,
    plan=plan.plan,
    missing_presets=recipe.NO_PRESET,
    tags_note=recipe.TAGS_NOTE,
    load_released=recipe.load_released,
    views=recipe.views,
    crfs=values.CRFS,
    published=values.PUBLISHED,
    warm_ups=recipe.WARM_UPS,
    checkpoint=CHECKPOINT,
    stages=recipe.training_stages,
)
