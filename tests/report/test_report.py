"""`report RUN`: one page from whatever a run has left; nothing in its files acts on the page."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.toy import write_voc
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.report.gather import gather
from wsss_lab.report.page import report_page, write_report
from wsss_lab.report.scores import split_protocols
from wsss_lab.report.settings import nearest_preset
from wsss_lab.report.times import in_words, logged_seconds, parts
from wsss_lab.runs.contents import discard_run
from wsss_lab.runs.stages import silent

VOID = {"meta", "img", "br", "path", "use", "rect", "line"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_voc(folder, split="train", count=6, size=48)
    write_voc(folder, split="val", count=3, size=48)
    return folder


@pytest.fixture(scope="module")
def original(world, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "A"
    config = Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(steps=2, batch=2, log_every=1),
        cam_scales=(1.0,),
        mask_steps=2,
        test=TestConfig(tags_at_test=True),
        report_train=4,
    )
    train(config, out, log=silent)
    return out


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, to be damaged; its files keep their times."""
    return shutil.copytree(original, tmp_path / "run")


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


def test_a_finished_run(run, capsys):
    assert main(["report", str(run), "--shown", "1"]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    text = (run / "report.html").read_text("utf-8")
    page, metrics = Page(text), json.loads((run / "metrics.json").read_text())
    miou = metrics["results"]["val"]["seg"]["miou"]
    assert f"{100 * miou:.2f} % mIoU, seg, voc val" in page.text
    for fact in (metrics["git"], metrics["versions"]["torch"], "toy, ", "time of the file"):
        assert fact in page.text
    assert len(page.all("svg")) == 6  # loss, learning rate and speed of two trainings
    pictures = page.all("img")
    assert len(pictures) == 5 + 4 + 2  # a training image, a validation image, two scales of maps
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


def test_an_unfinished_run(run, capsys):
    for name in ("metrics.json", "model.safetensors", "masks/log.csv"):
        (run / name).unlink()
    assert main(["report", str(run), "--shown", "1"]) == 0
    text = (run / "report.html").read_text("utf-8")
    assert "not finished: tags: step 2 of 2" in text
    assert f"train cam_baseline --out {run} --resume" in text
    assert "has not been scored yet" in text
    assert "no predictions" in text
    assert "<figcaption>pseudo-label</figcaption>" in text


def test_a_run_without_any_log(run):
    for log in run.glob("*/log.csv"):
        log.unlink()
    text = page_of(run)
    assert "No stage has logged a step" in text
    assert Page(text)


def test_a_run_on_tags_alone(run, world, tmp_path):
    root = shutil.copytree(world, tmp_path / "tags only")
    shutil.rmtree(root / "SegmentationClass")
    edit(run / "metrics.json", lambda m: m.update(results={"val": {}, "no_score": "no masks"}))
    text = report_page(gather(run, root=root), shown=1)
    assert "No score: no masks" in text
    assert text.count("there is no truth to show") == 2
    assert "<figcaption>truth</figcaption>" not in text


def damage_results(run, value):
    edit(run / "metrics.json", lambda m: m.update(results=value))


DAMAGES = {
    "metrics": lambda run: (run / "metrics.json").write_text("{"),
    "results": lambda run: damage_results(run, [1]),
    "kinds": lambda run: damage_results(
        run, {"val": {"seg": {"protocol": 3, "miou": "x", "iou": 4, "class_names": None}}}
    ),
    "log": lambda run: (run / "tags/log.csv").write_bytes(b"step,loss\n1,\xff\x00\n"),
    "rows": lambda run: (run / "tags/log.csv").write_text("loss\n0.5\n"),
    "plan": lambda run: (run / "plan.json").write_text("[]"),
    "stages": lambda run: (run / "plan.json").write_text('{"stages": [{"stage": 1}], "notes": 7}'),
    "method": lambda run: edit(run / "config.json", lambda c: c.update(method="mine")),
    "setting": lambda run: edit(run / "config.json", lambda c: c["config"].update(odd=1)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_costs_its_part_of_the_page(run, name, capsys):
    DAMAGES[name](run)
    assert main(["report", str(run), "--shown", "0"]) == 1
    *damaged, report = capsys.readouterr().out.splitlines()
    assert damaged
    assert all(line.startswith("damaged: ") for line in damaged)
    assert report == f"report: {run / 'report.html'}"
    page = Page((run / "report.html").read_text("utf-8"))
    assert len(page.all("section")) == 6
    assert "amaged" in page.text


@pytest.mark.parametrize("name", ["model.safetensors", "labels", "data"])
def test_a_gallery_without_what_is_damaged(run, name):
    if name == "model.safetensors":
        (run / name).write_bytes(b"no weights")
    elif name == "labels":
        next((run / name).glob("*_train_000000.png")).write_bytes(b"no png")
    else:
        edit(run / "config.json", lambda c: c["config"]["data"].update(root=str(run / "gone")))
    text = report_page(gather(run), shown=1)
    assert Page(text)
    expected = "Maps and predictions are left out" if "model" in name else "cannot be shown"
    assert expected in text
    assert ("<figcaption>truth</figcaption>" in text) == (name != "data")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"method": 3}'])
def test_no_run_is_one_line_with_a_remedy(run, content, capsys):
    (run / "config.json").unlink()
    if content is not None:
        (run / "config.json").write_text(content)
    assert main(["report", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(run) in line
    assert ("choose another folder" if content else "`train --out` wrote") in line
    assert main(["report", str(run / "no such folder")]) == 2
    assert "give the one that" in capsys.readouterr().err


def test_text_of_files_is_text(run):
    names = ["<script>alert(1)</script>", "a|b", "$x^", '"><img src=x>', "\u202eevil\x1b[2J"]

    def rename(metrics):
        for report in metrics["results"]["val"].values():
            if "class_names" in report:
                report["class_names"][: len(names)] = names
                report["protocol"]["split"] = "<b>val</b>"

    edit(run / "metrics.json", rename)
    edit(run / "config.json", lambda c: c["versions"].update(torch="</dl><script>"))
    log = run / "tags" / "log.csv"
    rows = ("step,loss,<i>$\\frac$,b,lr_factor,images_per_s", "0,1,1,1,1,1", "1,1,1,1,1,1")
    log.write_text("\n".join(rows))
    text = page_of(run)
    page = Page(text)
    for tag in ("script", "b", "i"):
        assert not page.all(tag)
    assert not page.all("img")
    for shown in (*names[:4], "<b>val</b>", "</dl><script>", "<i>$\\frac$"):
        assert shown in page.text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_nothing_is_replaced_unasked(run, world, tmp_path, capsys):
    arguments = ["report", str(run), "--shown", "0"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    photo = next((world / "JPEGImages").iterdir())
    for file in (run / "metrics.json", run / "tags" / "log.csv", photo):
        before = file.read_bytes()
        assert main([*arguments, "--out", str(file), "--overwrite"]) == 2
        assert "an input of this command" in capsys.readouterr().err
        assert file.read_bytes() == before
    out, problems = write_report(run, tmp_path / "new" / "page.html", shown=0)
    assert out.is_file()
    assert not problems
    assert main([*arguments, "--plan", str(tmp_path / "none.json"), "--overwrite"]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_a_failed_start_beside_a_plan_leaves_the_plan_alone(world, tmp_path, capsys):
    out = tmp_path / "new"
    out.mkdir()
    (out / "plan.json").write_text("{}")
    settings = ["--data.name", "voc", "--data.root", str(world), "--data.train-split", "train"]
    command = ["train", "cam_baseline", "--out", str(out), "--run.batch", "2", *settings]
    assert main([*command, "--weights", str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["plan.json"]


def test_a_replaced_run_takes_its_page_along_and_leaves_the_plan(run):
    (run / "report.html").touch()
    (run / "plan.json").write_text("{}")
    (run / "mine.txt").touch()
    discard_run(run)
    assert sorted(file.name for file in run.iterdir()) == ["mine.txt", "plan.json"]
