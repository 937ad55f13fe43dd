"""Write the table of photographs on the page of licences from the files that come with the package.

python book/_ext/picture_credits.py
"""

import re
from pathlib import Path

from wsss_lab.data.open_photos import OpenPhoto, open_photos

PAGE = Path(__file__).parents[1] / "licences.md"
BEGIN, END = "% photographs: written by book/_ext/picture_credits.py", "% end of photographs"
HEAD = "| File | Shows | Photographer | Licence | Source | Changes |\n|---|---|---|---|---|---|\n"


def row(photo: OpenPhoto) -> str:
    """Line of the table for one photo."""
    author = photo.author.partition(" (name not in COCO")[0]
    licence = f"[{photo.licence}]({photo.licence_url})" if photo.licence_url else photo.licence
    address = re.match(r"https?://\S+", photo.source)
    site = address and re.sub(r"^www\.", "", address[0].split("/")[2])
    source = f"[{site}](<{address[0]}>)" if address else photo.source
    subject = photo.subject.partition(" (")[0].replace("_", " ")
    cells = (f"`{photo.path.name}`", subject, author, licence, source, photo.changes)
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """The table of all photos, between its two marks."""
    rows = "".join(map(row, open_photos()))
    return f"{BEGIN}\n\n{HEAD}{rows}\n{END}"


def with_table(page: str) -> str:
    """The page with its table written anew.

    Raises:
        ValueError: the marks are not there.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN!r} and {END!r} once each")
    before, rest = page.split(BEGIN)
    return before + table() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
