"""Names from files cannot act on a terminal, and make neither columns nor HTML in tables."""

import pytest

from wsss_lab.__main__ import main, remedy_of
from wsss_lab.printable import cell, one_line, printable, printable_output, row
from wsss_lab.viz.page import table

HOSTILE = "cat\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egpj.exe\udcff"


def test_characters_that_act_are_shown_instead():
    shown = printable(HOSTILE)
    assert shown.isascii()
    assert "\x1b" not in shown
    assert shown.startswith(r"cat\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egpj.exe\udcff")
    assert printable("Zürich 猫\n\tnext") == "Zürich 猫\n\tnext"
    assert one_line("a\nb\x1b") == r"a b\x1b"


def test_what_a_command_prints_is_made_printable(capsys):
    with printable_output():
        print(HOSTILE)
    assert capsys.readouterr().out.strip() == printable(HOSTILE)


def test_a_hostile_file_name_in_an_error_is_shown(tmp_path, capsys):
    assert main(["data", "check", "--root", str(tmp_path / "no\x1b[2Jsuch")]) in (1, 2)
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert r"\x1b[2J" in told.out + told.err


def test_cells_of_tables():
    assert cell("a|b") == r"a\|b"
    assert cell(r"a\|b") == r"a\|b"
    assert cell("<script>x</script> & 1 < 2 &amp;") == "&lt;script>x&lt;/script> & 1 < 2 &amp;amp;"
    assert cell("two\nlines") == "two lines"
    assert row(["a", 1]) == "| a | 1 |"
    assert table(["c|d"], [["<b>"]]).text == "| c\\|d |\n| --- |\n| &lt;b> |"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"), "run.batch"),
        (ImportError('scipy is needed here: pip install "wsss-lab[data]"'), "wsss-lab[data]"),
        (OverflowError("too large"), "too large"),
        (FloatingPointError("not finite"), "not finite"),
    ],
)
def test_errors_that_a_user_can_solve_are_one_line(error, words):
    assert words in remedy_of(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), KeyError("x"), ImportError("cannot import")]
)
def test_defects_keep_their_traceback(error):
    assert remedy_of(error) is None
