"""The page *Why are my numbers different?*: its commands and code run, its numbers are recorded."""

import re
import shlex
from importlib import import_module
from pathlib import Path

from wsss_lab.__main__ import main
from wsss_lab.methods.common.published import PUBLISHED
from wsss_lab.methods.cosa import values as cosa
from wsss_lab.records import load_record
from wsss_lab.studies import load_study

PAGE = (Path(__file__).parents[1] / "book" / "numbers.md").read_text(encoding="utf-8")
LINES = re.sub(r" \\\n +", " ", PAGE)  # commands on one line
ROWS = {
    "nothing: as `predict` does it": "base",
    "mean over images, not over the set": "mean over images",
    "two thresholds, pixels between them left out": "open pixels ignored",
    "the same, pixels between them wrong": "open pixels wrong",
    "only the first 5 images": "first 5, skip",
    "the same, absent classes as 0": "first 5, zero",
    "training images, true tags, views, best threshold": "pseudo-labels of training scenes",
    "background class left out of the mean": "foreground classes only",
    "threshold 0.2": "threshold 0.2",
    "threshold 0.6": "threshold 0.6",
    "scales 1, 0.5, 1.5 and mirror images": "scales and flip",
    "true tags": "true tags",
    "true tags, threshold chosen on the truth": "true tags, best threshold",
    "own tags, threshold chosen on the truth": "own tags, best threshold",
    "scored at a quarter of the size": "quarter of the size",
}
"""Row of the table -> name in the record."""
SMALLER = {
    "--data.count 200": "--data.count 32 --data.size 64 --data.crop 64 --run.batch 8 "
    "--report-train 0 --cam-scales 1.0",
    "--data.val-count 40": "--data.val-count 4",
    "steps 20": "steps 2",
    "--count 100": "--count 3 --size 64",
    "--first 10": "--first 2",
}
"""So that the page is followed in seconds."""
HELP = "train cosa --preset voc-released --help"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", LINES, re.S | re.M)


def commands():
    found = []
    for line in "".join(blocks("console")).splitlines():
        for old, new in SMALLER.items():
            line = line.replace(old, new)
        found.append(shlex.split(line.partition("-m wsss_lab ")[2]))
    return found


def percent(name):
    return 100 * load_record("protocols")["miou"][name]


def test_the_page_is_followed_literally(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = {}
    for words in commands():
        try:
            status = main(words)
        except SystemExit as end:  # --help
            status = end.code
        printed = capsys.readouterr()
        assert not status, (words, printed.err)
        told[" ".join(words)] = printed.out
    both = told["eval cam_baseline --weights runs/mine"]
    assert "no true tags  true tags (oracle)" in both
    first = [line for line in both.splitlines() if line.startswith("mIoU")]
    assert len(set(first)) > 1
    (wrong, ignored) = (told[c] for c in told if "--unlabelled" in c)
    assert "unlabelled: wrong" in wrong
    assert "unlabelled: ignored" in ignored
    assert wrong.replace("wrong", "") == ignored.replace("wrong", "").replace("ignored", "")
    assert Path("runs/mine/report.html").is_file()
    options = " ".join(re.sub(r"[│╭╮╰╯─]", " ", told[HELP]).split())
    assert re.search(r"--run\.batch INT [^-]*\(default: 4\)", options)

    printed = []
    for code in blocks("python"):
        exec(code, {})
        printed.append(capsys.readouterr().out)
    assert "CoSA" in printed[0]
    (stated,) = re.findall(r"^It prints ([\d.]+) and ([\d.]+)\.$", PAGE, re.M)
    assert re.findall(r"\d\.\d{3}", printed[1]) == list(stated)
    assert "nan" in printed[-1]
    assert "tensor(0.)" in printed[-1]


def test_the_table_is_the_record():
    table = PAGE.split("(numbers-one-network)=")[1].split("\n## ")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| ")
    ][1:]
    assert [row[0] for row in rows] == list(ROWS)
    for what, miou, points in rows:
        value = percent(ROWS[what])
        assert miou == f"{value:.1f}", what
        assert points == ("" if what.startswith("nothing") else f"{value - percent('base'):+.1f}")
    shown = [float(row[1]) for row in rows]
    assert f"numbers from {min(shown)} to {max(shown)}" in PAGE
    assert f"at {int(load_record('protocols')['config']['scenes'])} validation scenes" in PAGE


def test_sizes_of_effects_are_recorded():
    text = " ".join(PAGE.split())
    open_pixels = percent("open pixels ignored") - percent("open pixels wrong")
    assert f"Here {open_pixels:.1f} points between the two readings" in text
    absent = percent("first 5, zero") - percent("first 5, skip")
    assert f"{absent:.1f} for absent classes as 0 among five images" in text
    gain = percent("pseudo-labels of training scenes") - percent("base")
    assert f"a validation list without: {gain:.1f} points" in text
    parts = [percent(f"part {part} of 4") for part in range(1, 5)]
    assert f"{min(parts):.1f} to {max(parts):.1f}" in text
    views = percent("base") - percent("scales and flip")
    assert f"lower the prediction by {views:.1f} points" in text
    three = [f"{percent(name):.1f}" for name in ("threshold 0.2", "base", "threshold 0.6")]
    assert f"give {three[0]}, {three[1]} and {three[2]}" in text
    assert f"Here {percent('true tags') - percent('base'):+.1f} points; a classifier" in text


def test_sizes_of_other_records():
    text = " ".join(PAGE.split())
    means = {
        name: f"{100 * summary.mean:.1f} %"
        for name, summary in load_study("cam_baseline", "cpu").arms["gap_single"].metrics.items()
    }
    assert f"maps without true tags {means['cam_miou']}," in text
    assert f"pseudo-labels {means['label_miou']}, network {means['mask_miou']}" in text
    network = load_study("cam_baseline", "cpu").arms["gap_single"].metrics["mask_miou"]
    assert f"a standard deviation of {100 * network.sd:.1f} points over three seeds" in text
    runs = load_record("calibration")["runs"]
    found = [100 * run["cam_miou"] for run in runs]
    sd = (sum((x - sum(found) / 3) ** 2 for x in found) / 2) ** 0.5
    assert len(found) == 3
    assert f"{sd:.1f} points over three seeds of the long training" in text
    summary = load_record("calibration")["summary"]
    gain = 100 * (summary["cam_miou"] - summary["cam_miou_single_scale"])
    assert f"best threshold gain {gain:.1f}" in text
    methods = load_record("refine")["scores"]["methods"]
    crf = [100 * row["gain"][0] for name, row in methods.items() if name.startswith("CRF")]
    assert f"from {min(crf):.1f} to {max(crf):+.1f} points" in text


def test_published_numbers_are_those_of_the_library():
    log = {row.protocol: row.miou for row in cosa.PUBLISHED if "24 000" in row.source}
    without, told = (log[p] for p in sorted(log, key=lambda p: "TRUE" in p))
    assert f"step 24 000: {without} without and {told} with the tags" in " ".join(PAGE.split())
    assert any(row.method == "AFA" and row.miou == 63.9 for row in PUBLISHED)
    assert "AFA's 63.9" in PAGE


def test_every_name_in_a_role_or_import_is_there():
    named = re.findall(r"\{py:\w+\}`~?([\w.]+)`", PAGE)
    for block in blocks("python"):
        for module, names in re.findall(r"^from (wsss_lab[\w.]*) import (.+)$", block, re.M):
            named += [f"{module}.{name.strip()}" for name in names.split(",")]
    assert len(named) >= 8
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name
    for path in re.findall(r"`((?:wsss_lab|tests|book)/[\w/.]+)`", PAGE):
        assert (Path(__file__).parents[1] / path).exists(), path


def test_every_trouble_has_its_four_parts():
    parts = PAGE.split("\n### ")[1:]
    troubles = [part.split("\n## ")[0] for part in parts if "rarely" not in part.splitlines()[0]]
    assert len(troubles) >= 12
    for text in troubles:
        for word in ("Symptom", "Cause", "Size", "See it", "Remedy"):
            assert text.count(f"**{word}.**") == 1, (text.splitlines()[0], word)
