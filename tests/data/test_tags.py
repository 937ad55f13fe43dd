import pytest
from official_archives import xml

from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.errors import DataError
from wsss_lab.data.tags import read_classes, read_tags, stem, tags_from_boxes, write_tags

CLASSES = ("cat", "dog", "bird")


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "name,tags\na.jpg,cat;bird\nb,dog\n",
        "name,cat,dog,bird\na,1,0,1\nb.PNG,0,1,0\n",
        "name,bird,dog,cat\r\n a , 1,0,1\r\n\r\nb,0,1,0\r\n",
        "\ufeffname,tags\na,bird; cat;cat\nb,dog\n",
    ],
    ids=["listed", "0/1", "other column order", "byte order mark"],
)
def test_both_forms_mean_the_same(tmp_path, text):
    classes, tags = read_tags(csv(tmp_path, text), CLASSES)
    assert classes == CLASSES
    assert tags == {"a": (0, 2), "b": (1,)}


def test_what_is_written_is_read(tmp_path):
    tags = {"a": (0, 2), "b,c": (1,)}
    write_tags(tmp_path / "tags.csv", tags, CLASSES)
    assert read_tags(tmp_path / "tags.csv", CLASSES)[1] == tags


def test_classes_from_header_or_from_the_file_beside(tmp_path):
    path = csv(tmp_path, "name,dog,cat\na,1,0\n")
    assert read_tags(path) == (("dog", "cat"), {"a": (0,)})
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    assert read_tags(path) == (("cat", "dog"), {"a": (1,)})


def test_class_order_is_never_guessed(tmp_path):
    with pytest.raises(DataError, match=r"classes\.txt.*order of the classes.*cat, dog"):
        read_tags(csv(tmp_path, "name,tags\na,dog\nb,cat\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,tags\na,cat\na.jpg,dog\n", r"line 3.*'a' comes twice"),
        ("name,tags\na,cow\n", r"line 2.*unknown class 'cow'.*cat, dog, bird"),
        ("name,tags\na,\n", r"line 2.*'a' has no class"),
        ("name,cat,dog\na,0,0\n", r"line 2.*'a' has no class"),
        ("name,cat,cow\na,0,1\n", r"line 1.*unknown class 'cow'"),
        ("name,cat,dog\na,yes,0\n", r"line 2.*'yes', expected 0 or 1"),
        ("name,cat,dog\na,1\n", r"line 2.*2 cells, expected 3"),
        ("name,cat,cat\na,1,1\n", r"column twice: cat"),
        ("name,tags\n,cat\n", r"line 2.*no image name"),
        ("name;tags\na;cat\n", r"expected name,tags"),
        ("Name,Tags\na,cat\n", r"expected name,tags.*small letters"),
        ("name,Tags\na,cat\n", r"expected name,tags.*small letters"),
        ("Name,cat,dog\na,1,0\n", r"expected name,tags.*small letters"),
        ("name,tags\na,cow;cat;horse\n", r"line 2.*unknown classes 'cow', 'horse'.*cat, dog, bird"),
        ("name,tags\na,Cat;DOG\n", r"unknown classes 'Cat', 'DOG'.*Capitals count: write cat, dog"),
        ("name,tags\na,Cat;cow\n", r"unknown classes 'Cat', 'cow'.*Use one of cat, dog, bird"),
        ("name,cat,dog\na,yes,2\n", r"line 2.*'yes', '2', expected 0 or 1"),
        ("", r"expected name,tags"),
        ("a,1,0\n", r"expected name,tags"),
    ],
)
def test_bad_rows_name_file_line_and_remedy(tmp_path, text, message):
    path = csv(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_tags(path, CLASSES)
    assert str(path) in str(caught.value)


def test_wrong_encoding(tmp_path):
    with pytest.raises(DataError, match="UTF-8"):
        read_tags(csv(tmp_path, "name,tags\nä,cat\n", "latin-1"), CLASSES)


def test_all_bad_rows_can_be_collected(tmp_path):
    problems = []
    text = "name,tags\na,cat\na,dog\nb,\nc,cow\nd,dog\n"
    _, tags = read_tags(csv(tmp_path, text), CLASSES, on_problem=problems.append)
    assert len(problems) == 3
    assert tags["d"] == (1,)


def test_images_without_class_on_request(tmp_path):
    path = csv(tmp_path, "name,tags\na,\nb,cat\n")
    assert read_tags(path, CLASSES, allow_empty=True)[1] == {"a": (), "b": (0,)}


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("cat\ndog\ncat\n", "twice: cat")])
def test_bad_class_lists(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_boxes_give_tags_with_and_without_difficult(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(xml([("person", 0), ("dog", 1), ("person", 1), ("cat", 0)]))
    for difficult, expected in ((True, ["cat", "dog", "person"]), (False, ["cat", "person"])):
        found = tags_from_boxes(path, VOC_CLASSES, difficult)
        assert [VOC_CLASSES[c] for c in found] == expected


@pytest.mark.parametrize(
    ("data", "message"), [(b"<annotation>", "not XML"), (xml([("cow boy", 0)]), "'cow boy'")]
)
def test_bad_annotations(tmp_path, data, message):
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(DataError, match=message):
        tags_from_boxes(tmp_path / "a.xml", VOC_CLASSES)


def test_only_image_endings_are_cut():
    assert [stem(n) for n in ("a.jpg", "a.JPEG", "a.b", "2007_000032")] == [
        *("a", "a", "a.b", "2007_000032")
    ]
