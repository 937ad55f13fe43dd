"""Write the table of presets on the page on full scale from the records of their runs.

python book/_ext/preset_table.py
"""

from pathlib import Path

from marked import with_part

from wsss_lab.studies.photos.preset_runs import load_records, table

PAGE = Path(__file__).parents[1] / "full_scale.md"
BEGIN, END = "% presets: written by book/_ext/preset_table.py", "% end of presets"


def with_table(page: str) -> str:
    """The page with its table written anew; errors: see `with_part`."""
    return with_part(page, BEGIN, END, table(load_records()))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
