"""The CAM baseline, listed stage by stage in `wsss_lab.recipes.cam_baseline.recipe`."""

from wsss_lab.recipes.cam_baseline import config, plan, recipe
from wsss_lab.runs.recipe import Recipe

RECIPE = Recipe(
    name=config.NAME,
    summary="tag classifier, its class activation maps as labels, a segmentation network on them",
    config=config.Config,
    presets=config.PRESETS,
    build=recipe.build,
    train=recipe.train,
    load_method=recipe.load_method,
    load_views=recipe.load_views,
    plan=plan.plan,
    missing_presets=config.NO_PRESET,
    stages=recipe.training_stages,
)
