"""Parts of a page that a script writes, between two marks."""


def with_part(page: str, begin: str, end: str, part: str) -> str:
    """The page with its part written anew.

    Args:
        page: text of the page.
        begin: line before the part.
        end: line after it.
        part: what stands between them.

    Raises:
        ValueError: the marks are not there once each.
    """
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs the lines {begin!r} and {end!r} once each")
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{part}\n{end}{rest.split(end)[1]}"
