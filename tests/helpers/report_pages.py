"""Pages of `report RUN`, taken apart."""

import json
import re
from html.parser import HTMLParser

from wsss_lab.report.gather import gather
from wsss_lab.report.page import report_page

VOID = {"meta", "img", "br", "path", "use", "rect", "line"}


class Page(HTMLParser):
    """Elements of a page, and whether every one is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def page_of(run, **options):
    return report_page(gather(run, **options), shown=0)


def cells(text, caption):
    """Rows of the table with a caption, as texts."""
    (table,) = re.findall(rf"<table><caption>{caption}</caption>.*?</table>", text, re.DOTALL)[:1]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
