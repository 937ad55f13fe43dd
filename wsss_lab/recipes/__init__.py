"""How each method is trained from data to `metrics.json`: one module, or folder, per method.

Each offers a `wsss_lab.runs.recipe.Recipe` named `RECIPE`, which is imported when it is needed.
Recipes of one stage are made by `wsss_lab.recipes.end_to_end`.
"""

from wsss_lab.runs.recipe import RECIPES

for _name in ("cam_baseline", "tscd", "asdt", "cosa", "acr", "mix"):
    RECIPES.register(_name, f"wsss_lab.recipes.{_name}:RECIPE")
RECIPES.close()
