"""Recorded results that the chapters show: a part of the package, for any working directory.

`calibration`, `calibration_trials`, `refine`, `acr_localisation`, `protocols`, `sanity` and
`step_costs` are records of single scripts in `wsss_lab.studies.toy`; `studies/STUDY/PROFILE` are
the declared studies, and `studies/STUDY/PROFILE/ARM-seedN` their runs. `photo_refinement` holds the
calibration of PAR on photos, `presets/PRESET` runs of presets to their end, and `gallery` what
networks make of the open photos, see `wsss_lab.studies.photos`.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

RECORDS = Path(str(resources.files(__name__)))
"""Folder of the records in this installation."""


def record_file(name: str) -> Path:
    """Find the file of a record.

    Args:
        name: path below `RECORDS` without its ending, such as `calibration` or
            `studies/asdt/cpu/r8-seed0`; slashes on every system.

    Raises:
        FileNotFoundError: there is no such record; the message lists those of the same folder.
    """
    file = RECORDS / f"{name}.json"
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else RECORDS
        found = sorted(path.relative_to(RECORDS) for path in folder.glob("*.json"))
        names = ", ".join(path.with_suffix("").as_posix() for path in found)
        raise FileNotFoundError(f"record: expected one of {names or 'none'}, got {name!r}")
    return file


def load_record(name: str) -> Any:
    """Load a record, as `load_record("calibration")`.

    Args:
        name: the record's name, see `record_file`.

    Raises:
        FileNotFoundError: there is no such record; the message lists those of the same folder.
        ValueError: the file is damaged.
    """
    file = record_file(name)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"record: {file} is damaged ({error}); reinstall wsss-lab") from error
