"""Processes of the tests: `FOLDER ...` is one run, `runner DECLARED WORK RECORDS` a whole study."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from wsss_lab.runs.recipe import RECIPES

RECIPES.register("fake", "fake_recipe:RECIPE")

if __name__ == "__main__":
    if sys.argv[1] == "runner":
        from wsss_lab.studies.declare import read_declaration
        from wsss_lab.studies.runner import run_study

        declared, work, records = map(Path, sys.argv[2:])
        study = read_declaration("fake", declared)
        run_study(study, "cpu", work=work, records=records, jobs=2, program=(__file__,))
    else:
        from wsss_lab.studies.one import main

        sys.exit(main(sys.argv[1:]))
