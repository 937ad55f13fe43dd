"""The faults that the mutation script puts in: legal Python, one place each, in calculations."""

import ast
from collections import Counter

import pytest
from mutants import ROOT, files, mutants_of, sample

SOURCE = '''
"""A text with 1 + 2 in it."""
SIZE = 7  # 3 < 4


class Box:
    share: float = 0.5

    def area(self, side: "tuple[1]" = 2) -> float:
        if side < 0:
            raise ValueError(f"side: expected 0 or more, got {side + 1}")
        assert side != 3
        half = side * self.share
        return half - 1 if half >= 1 and side else -half

    def volume(self, height: int = 4) -> float:
        """A box has none."""
        raise TypeError("no volume")
'''


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setattr("mutants.ROOT", tmp_path)
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    return mutants_of(path)


def test_places(found):
    """Numbers and operators of the calculation; no messages, checks, comments, annotations."""
    assert [(m.kind, m.old, m.new, m.function) for m in found] == [
        ("constant", "7", "8", ""),
        ("constant", "0.5", "1.0", ""),
        ("constant", "2", "3", "Box.area"),
        ("operator", "*", "/", "Box.area"),
        ("operator", "and", "or", "Box.area"),
        ("operator", ">=", ">", "Box.area"),
        ("constant", "1", "2", "Box.area"),
        ("operator", "-", "+", "Box.area"),
        ("constant", "1", "2", "Box.area"),
    ]


def test_each_changes_one_place(found):
    for mutant in found:
        lines = zip(SOURCE.splitlines(), mutant.apply(SOURCE).splitlines(), strict=True)
        changed = [number for number, (a, b) in enumerate(lines, 1) if a != b]
        assert changed == [mutant.line]


def test_faults_of_the_library_are_legal():
    for path in list(files())[::5]:
        text = path.read_text()
        for mutant in mutants_of(path):
            faulty = mutant.apply(text)
            assert faulty != text
            ast.parse(faulty)


def test_a_sample_is_spread_over_the_rooms_and_repeats():
    chosen = sample(40, 40)
    assert Counter(m.kind for m in chosen) == {"constant": 40, "operator": 40}
    assert len(set(chosen)) == 80
    assert chosen == sample(40, 40)
    assert chosen != sample(40, 40, seed=1)
    assert max(Counter((m.path, m.kind) for m in chosen).values()) <= 2
    assert all((ROOT / m.path).is_file() for m in chosen)
