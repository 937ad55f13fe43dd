"""Write the table of photographs on the page of licences from the files that come with the package.

python book/_ext/picture_credits.py
"""

import re
from pathlib import Path

from marked import with_part

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


def with_table(page: str) -> str:
    """The page with its table of all photos written anew; errors: see `with_part`."""
    return with_part(page, BEGIN, END, HEAD + "".join(map(row, open_photos())))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
