import dataclasses
import hashlib
import json

import pytest
from official_archives import entry, serve, zip_of

from wsss_lab.data.catalog import ARCHIVES
from wsss_lab.data.errors import DataError, MissingFileError
from wsss_lab.data.prepare.download import fetch

DATA = zip_of({"some/file.bin": bytes(range(256)) * 400})
NAME = "thing.zip"


def test_download_verifies_and_is_not_repeated(tmp_path):
    with serve({NAME: DATA}) as (url, log):
        path = fetch(entry(NAME, DATA, url), tmp_path)
        again = fetch(entry(NAME, DATA, url), tmp_path)
    assert path == again
    assert path.read_bytes() == DATA
    assert log == [(f"/{NAME}", None)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CHECKSUMS.json", NAME]


def test_truncated_download_resumes_where_it_stopped(tmp_path):
    cut = len(DATA) // 3
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:cut])
    with serve({NAME: DATA}) as (url, log):
        path = fetch(entry(NAME, DATA, url), tmp_path)
    assert path.read_bytes() == DATA
    assert log == [(f"/{NAME}", f"bytes={cut}-")]


def test_broken_connection_is_taken_up_again(tmp_path):
    step = len(DATA) // 3 + 1
    with serve({NAME: DATA}, cut_after=step) as (url, log):
        path = fetch(entry(NAME, DATA, url), tmp_path, pause=0.0)
    assert path.read_bytes() == DATA
    assert [asked for _, asked in log] == [None, f"bytes={step}-", f"bytes={2 * step}-"]


def test_giving_up_keeps_what_came(tmp_path):
    with (
        serve({NAME: DATA}, cut_after=100) as (url, _),
        pytest.raises(DataError, match="connection ended after 200 of"),
    ):
        fetch(entry(NAME, DATA, url), tmp_path, attempts=2, pause=0.0)
    assert (tmp_path / f"{NAME}.part").read_bytes() == DATA[:200]


def test_server_without_range_starts_from_the_beginning(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 50)
    with serve({NAME: DATA}, ranges=False) as (url, log):
        path = fetch(entry(NAME, DATA, url), tmp_path)
    assert path.read_bytes() == DATA
    assert log == [(f"/{NAME}", "bytes=50-")]


@pytest.mark.parametrize("md5", [True, False])
def test_complete_part_is_only_verified(tmp_path, md5):
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    with serve({NAME: DATA}) as (url, log):
        path = fetch(entry(NAME, DATA, url, md5), tmp_path)
    assert path.read_bytes() == DATA
    assert len(log) == (0 if md5 else 1)  # without a published size the server is asked


def test_part_that_is_too_long_is_dropped(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA + b"tail")
    with serve({NAME: DATA}) as (url, _):
        path = fetch(entry(NAME, DATA, url), tmp_path, pause=0.0)
    assert path.read_bytes() == DATA


def test_wrong_checksum_names_file_and_remedy(tmp_path):
    other = bytes(len(DATA))
    with (
        serve({NAME: other}) as (url, _),
        pytest.raises(DataError, match=r"md5 is .* expected .*as published.*Delete it"),
    ):
        fetch(entry(NAME, DATA, url), tmp_path)
    assert not (tmp_path / NAME).exists()


def test_wrong_size_of_a_file_put_by_hand(tmp_path):
    (tmp_path / NAME).write_bytes(DATA[:-1])
    with pytest.raises(DataError, match=f"size is {len(DATA) - 1}, expected {len(DATA)}"):
        fetch(entry(NAME, DATA), tmp_path)


def test_unpublished_checksum_is_recorded_first_and_compared_later(tmp_path):
    archive = entry(NAME, DATA, md5=False)
    (tmp_path / NAME).write_bytes(DATA)
    fetch(archive, tmp_path)
    record = json.loads((tmp_path / "CHECKSUMS.json").read_text())[NAME]
    assert record["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert "none is published" in record["checksum_source"]
    other = zip_of({"some/file.bin": bytes(range(1, 256)) * 400})
    (tmp_path / NAME).write_bytes(other + bytes(max(0, len(DATA) - len(other))))
    with pytest.raises(DataError, match="as when first seen"):
        fetch(archive, tmp_path)


def test_error_page_does_not_become_the_reference(tmp_path):
    with (
        serve({}, page=b"<html>log in first</html>") as (url, _),
        pytest.raises(DataError, match="neither a zip nor a tar"),
    ):
        fetch(entry(NAME, DATA, url, md5=False), tmp_path)
    assert not (tmp_path / "CHECKSUMS.json").exists()


def test_offline_says_what_to_put_where(tmp_path):
    archive = ARCHIVES["VOCtrainval_11-May-2012.tar"]
    with pytest.raises(MissingFileError) as caught:
        fetch(archive, tmp_path, download=False)
    text = str(caught.value)
    for part in (archive.url, str(archive.size), archive.md5, str(tmp_path / archive.name)):
        assert part in text


def test_unreachable_and_refused_say_the_same(tmp_path):
    with pytest.raises(DataError, match="download failed"):  # nobody listens on port 1
        fetch(entry(NAME, DATA), tmp_path, attempts=2, pause=0.0)
    with serve({}) as (url, log), pytest.raises(DataError, match="404"):
        fetch(entry(NAME, DATA, url), tmp_path)
    assert len(log) == 1  # no second attempt where the server said no


@pytest.mark.parametrize("url", ["file:///etc/", "ftp://127.0.0.1/"])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(DataError, match="http:// or https://"):
        fetch(entry(NAME, DATA, url), tmp_path)


def test_redirect_to_ftp_is_refused(tmp_path):
    with serve({}) as (url, _), pytest.raises(DataError, match="http:// or https://"):
        fetch(entry(NAME, DATA, url + "to-ftp/"), tmp_path)


def test_full_disk_is_noticed_before_the_download(tmp_path):
    archive = dataclasses.replace(entry(NAME, DATA), size=10**18)
    with pytest.raises(DataError, match="GB free"):
        fetch(archive, tmp_path)
