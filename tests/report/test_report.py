"""`report RUN`: one page from a finished run, readable by everyone and without other files."""

import json
import re
import shutil

from report_pages import Page, cells, page_of

from wsss_lab.__main__ import main
from wsss_lab.report.gather import gather
from wsss_lab.report.page import report_page
from wsss_lab.report.scores import split_protocols
from wsss_lab.report.settings import nearest_preset
from wsss_lab.report.times import in_words, logged_seconds, parts


def test_a_finished_run(run, capsys):
    assert main(["report", str(run), "--shown", "1"]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    text = (run / "report.html").read_text("utf-8")
    page, metrics = Page(text), json.loads((run / "metrics.json").read_text())
    miou = metrics["results"]["val"]["seg"]["miou"]
    assert f"{100 * miou:.2f} % mIoU, seg, voc val" in page.text
    for fact in (metrics["git"], metrics["versions"]["torch"], "toy, ", "time of the file"):
        assert fact in page.text
    pictures = page.all("img")
    drawn = [p for p in pictures if p["src"].startswith("data:image/svg+xml;base64,")]
    assert len(drawn) == 6  # loss, learning rate and speed of two trainings
    # and a training image, a validation image, two scales of maps
    assert len(pictures) == len(drawn) + 5 + 4 + 2
    assert all(picture["alt"] for picture in pictures)
    assert any("pseudo-label: " in p["alt"] and "%" in p["alt"] for p in pictures)
    assert {"image", "class maps", "pseudo-label", "prediction", "truth"} <= set(
        re.findall(r"<figcaption>(.*?)</figcaption>", text)
    )


def test_the_page_needs_no_other_file_and_runs_nothing(run):
    page = Page(page_of(run))
    assert not page.all("script") + page.all("link") + page.all("iframe")
    sources = [a.get("src") or a.get("href") or a.get("xlink:href") for _, a in page.found]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_tables_are_marked_up_for_screen_readers(run):
    text = page_of(run)
    page = Page(text)
    assert len(page.all("table")) == len(page.all("caption")) >= 6
    assert {a.get("scope") for a in page.all("th")} == {"col", "row"}
    assert page.all("html") == [{"lang": "en"}]
    assert all(a.get("aria-label") for a in page.all("div") if a.get("role"))
    ids = re.findall(r' id="([^"]*)"', text)
    assert {i: ids.count(i) for i in ids if f"#{i}" not in text} == {}


def test_class_scores_are_those_of_the_metrics(run):
    metrics = json.loads((run / "metrics.json").read_text())["results"]
    seg, cam = metrics["val"]["seg"], metrics["val"]["cam"]
    head, *rows = cells(page_of(run), "Per class, in percent")
    assert head[:3] == ["class", "IoU, seg", "IoU, cam"]
    assert head[5:] == ["precision, seg", "recall, seg", "over, seg", "under, seg"]
    assert [row[0] for row in rows] == seg["class_names"]
    for place, row in enumerate(rows):
        for value, shown in ((seg["iou"], row[1]), (cam["iou"], row[2]), (seg["recall"], row[6])):
            number = value[place]
            assert shown == ("–" if number is None else f"{100 * number:.2f}")


def test_a_protocol_is_stated_once():
    protocols = {"seg": {"split": "voc val", "flip": True}, "cam": {"split": "voc val"}}
    same, own = split_protocols({kind: {"protocol": p} for kind, p in protocols.items()})
    assert (same, own) == ({"split": "voc val"}, ["flip"])


def test_protocols_are_not_repeated(run):
    text = page_of(run)
    assert text.count("mean over the classes that occur in the truth") == 2  # val, training images
    assert text.count("<h4>Protocol of all of them</h4>") == 2


def test_changed_settings_are_beside_the_nearest_preset(run):
    preset = nearest_preset(gather(run))
    assert preset.name == "toy"
    assert preset.changes["run.steps"][0] == 2
    rows = {row[0]: row[1:] for row in cells(page_of(run), "Settings that differ")[1:]}
    assert rows["run.steps"][::2] == ["2", "results"]
    assert rows["run.log_every"][::2] == ["1", "speed"]
    assert "optim.lr" not in rows


def test_time_is_that_between_log_entries():
    entries = [{"step": 0, "images_per_s": 4.0}, {"step": 5, "images_per_s": 2.0}]
    assert logged_seconds(entries, batch=2) == 0.5 + 5.0
    assert [in_words(s) for s in (90, 600, 14_400, float("nan"))] == [
        "90.0 s", "10.0 min", "4.0 h", "–"
    ]  # fmt: skip


def test_a_plan_stands_beside_what_happened(run, tmp_path):
    numbers = {"unit": "steps", "memory_gb": 1.5, "seconds_each": 3.0}
    stages = [
        {"stage": "tags, first", "amount": 1, **numbers},
        {"stage": "tags, then", "amount": 1, **numbers, "memory_gb": 2.5},
        {"stage": "labels", "amount": 6, "unit": "images", "seconds_each": None},
    ]
    plan = {"method": "cam_baseline", "batch": 64, "stages": stages, "notes": []}
    (tmp_path / "p.json").write_text(json.dumps(plan))
    found = gather(run, plan=tmp_path / "p.json")
    tags, labels = parts(found)[:2]
    assert (tags.name, tags.planned, tags.planned_memory) == ("tags", 6.0, 2.5)
    assert 0 < tags.took < 60
    assert tags.memory == json.loads((run / "tags/stage.json").read_text())["peak_memory_gb"] > 0
    assert (labels.name, labels.from_files) == ("labels", True)
    assert "batch 64, here 2" in report_page(found, 0)
    assert "No plan was kept" in page_of(run)
    (run / "plan.json").write_text(json.dumps(plan))
    assert "No plan was kept" not in page_of(run)


def test_times_of_a_copied_folder_are_not_believed(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copyfile)
    log = copy / "tags" / "log.csv"
    head, *rows = log.read_text().splitlines()
    slow = [",".join([*row.split(",")[:-1], "0.0001"]) for row in rows]
    log.write_text("\n".join([head, *slow]) + "\n")
    assert not any(part.from_files for part in parts(gather(copy)))
