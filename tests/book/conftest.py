"""The demo book, built once for all tests that look at it."""

from pathlib import Path

import pytest
from demo_book import build


@pytest.fixture(scope="session")
def demo_html(tmp_path_factory):
    pytest.importorskip("jupyter_book")
    folder = tmp_path_factory.mktemp("demo-book")
    result = build(folder, Path(__file__).parent / "demo.ipynb")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder / "_build" / "html"
