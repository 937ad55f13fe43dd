"""What a newcomer meets first: the picture and the commands of the README."""

import importlib.util
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import parity
import pytest
import yaml
from PIL import Image

import wsss_lab
from wsss_lab.metrics import report

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SCRIPT = ROOT / "book" / "_ext" / "readme_picture.py"


def drawn_anew() -> Image.Image:
    spec = importlib.util.spec_from_file_location("readme_picture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Image.open(io.BytesIO(module.draw()))


def on(image: Image.Image, ground: str) -> np.ndarray:
    sheet = Image.new("RGBA", image.size, ground)
    sheet.alpha_composite(image.convert("RGBA"))
    return np.asarray(sheet.convert("RGB"), dtype=np.float32)


def test_the_picture_is_what_its_script_draws():
    (found,) = re.findall(r"!\[([^\]]+)\]\((\S+)\)", README)
    alt, path = found
    assert len(alt.split()) >= 10
    assert (ROOT / path).stat().st_size <= 100_000
    stored, anew = Image.open(ROOT / path), drawn_anew()
    assert stored.size == anew.size
    assert np.abs(on(stored, "white") - on(anew, "white")).mean() < 2  # of 255; fonts may differ


def test_the_picture_reads_on_white_and_on_black():
    image = Image.open(ROOT / "book" / "_static" / "readme.png")
    titles = (0, 0, image.width, 24)
    for ground in ("#ffffff", "#0d1117"):
        pixels = on(image, ground)[: titles[3]]
        assert np.abs(pixels - pixels[0, 0]).max() > 80


def test_first_commands_come_after_the_activation_and_are_in_the_extras():
    activation = README.index("source .venv/bin/activate")
    assert activation < README.index("python -m wsss_lab")
    assert activation < README.index("jupyter lab")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    book = extras["optional-dependencies"]["book"]
    assert any(re.match(r"jupyterlab\b", item) for item in book)
    pinned = (ROOT / "constraints.txt").read_text()
    for item in (*book, *extras["dependencies"]):
        name = re.match(r"[\w-]+", item)[0].replace("_", "-")
        assert re.search(rf"^{name.replace('-', '[-_]')}==", pinned, re.M | re.I), name


def test_words_of_the_score_table_are_explained():
    source = Path(report.__file__).read_text()
    (head,) = re.findall(r"head = f\"\{'class'.*\"", source)
    for word in re.findall(r"\{'([\w.]+)':>", head):
        assert f"*{word}*" in README, word


def test_the_parity_table_is_that_of_presets_and_golden_tests():
    assert f"\n{parity.table()}\n" in README


def test_the_parity_table_follows_what_the_tests_ask(monkeypatch, tmp_path):
    """A looser tolerance, or a test that has gone, changes the table or stops it."""
    source = (parity.GOLDEN / "test_cosa_step.py").read_text()
    (tmp_path / "test_cosa_step.py").write_text(source.replace("rtol=2e-5", "rtol=2e-2"))
    monkeypatch.setattr(parity, "GOLDEN", tmp_path)
    parity.functions.cache_clear()
    assert parity.tolerance("test_cosa_step.py::test_cosa_step_losses") == "2e-2"
    with pytest.raises(KeyError):
        parity.tolerance("test_cosa_step.py::test_cosa_step_gone")
    parity.functions.cache_clear()


def test_the_version_is_the_same_in_all_places():
    version = wsss_lab.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    assert set(re.findall(r"wsss_lab-([\d.]+\d)-py3", README)) == {version}
    heads = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", CHANGELOG, re.M)
    assert heads[0] == ("Unreleased", "")
    for head, date in heads[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", head), head
        assert date, head
    if len(heads) > 1:
        assert heads[1][0] == version
