"""`report RUN` of unfinished, unscored and damaged runs; what their files hold is text only."""

import base64
import shutil

import pytest
from report_pages import Page, edit, page_of

from wsss_lab.__main__ import main
from wsss_lab.report.gather import gather
from wsss_lab.report.page import report_page, write_report
from wsss_lab.runs.contents import discard_run


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
    start = "data:image/svg+xml;base64,"
    assert all(picture["src"].startswith(start) for picture in page.all("img"))  # none is x
    drawings = [base64.b64decode(p["src"].removeprefix(start)).decode() for p in page.all("img")]
    (losses,) = [Page(drawing) for drawing in drawings if "frac" in drawing]
    assert not losses.all("i")
    assert "<i>$\\frac$" in losses.text
    for shown in (*names[:4], "<b>val</b>", "</dl><script>"):
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
