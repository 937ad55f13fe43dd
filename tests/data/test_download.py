import dataclasses
import hashlib
import json
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import pytest
from official_archives import entry, serve, zip_of

from wsss_lab.__main__ import main
from wsss_lab.data.catalog import ARCHIVES
from wsss_lab.data.errors import DataError, MissingFileError
from wsss_lab.data.prepare.download import fetch
from wsss_lab.data.prepare.transfer import _HttpOnly
from wsss_lab.data.prepare.unpack import require_bounds, unpack_tar, unpack_zip

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


class Changing(BaseHTTPRequestHandler):
    """Cuts the first version off, then has the second one; heeds no If-Range, like some servers."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((asked, self.headers.get("If-Range")))
        heeds = self.server.heeds and self.headers.get("If-Range") not in (None, '"2"')
        asked = None if heeds else asked
        first = not self.server.asked[1:]
        data = self.server.versions[not first]
        start = int(asked[6:-1]) if asked else 0
        self.send_response(206 if asked else 200)
        if self.server.tagged:
            self.send_header("ETag", '"1"' if first else '"2"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:] if not first else data[: len(data) // 2])


@contextmanager
def changing(heeds, tagged):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Changing)
    server.asked, server.heeds, server.tagged = [], heeds, tagged
    server.versions = [zip_of({"a.txt": letter * 50_000}) for letter in (b"A", b"B")]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("heeds", [True, False])
def test_two_versions_of_a_file_are_never_mixed(heeds, tagged, tmp_path):
    with changing(heeds, tagged) as (server, url):
        path = fetch(entry(NAME, DATA, url, md5=False), tmp_path, pause=0.0)
        assert path.read_bytes() == server.versions[1]
    if tagged:
        assert server.asked[1] == (f"bytes={len(server.versions[0]) // 2}-", '"1"')
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CHECKSUMS.json", NAME]


def test_a_mark_with_a_line_break_does_not_become_a_header(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:100])
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps({"mark": '"1"\r\nX-Other: 1'}))
    with serve({NAME: DATA}) as (url, _):
        assert fetch(entry(NAME, DATA, url), tmp_path).read_bytes() == DATA


def test_no_more_is_received_than_the_catalogue_allows(tmp_path):
    with serve({NAME: DATA}) as (url, _):
        small = dataclasses.replace(entry(NAME, DATA, url), size=100)
        with pytest.raises(DataError, match=rf"sends {len(DATA)} bytes or more, .* at most 100"):
            fetch(small, tmp_path)
        unknown = dataclasses.replace(entry(NAME, DATA, url, md5=False), limit=100)
        with pytest.raises(DataError, match="has at most 100"):
            fetch(unknown, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_https_does_not_lead_to_http():
    request = Request("https://example.org/a.zip")
    with pytest.raises(DataError, match="anyone on the way could change"):
        _HttpOnly().redirect_request(request, None, 302, "", {}, "http://example.org/a.zip")
    assert _HttpOnly().redirect_request(request, None, 302, "", {}, "https://example.org/b.zip")


def test_every_official_archive_comes_by_https():
    assert all(archive.url.startswith("https://") for archive in ARCHIVES.values())


def test_an_archive_without_checksum_is_not_fetched_unasked(tmp_path, capsys):
    assert main(["data", "stuff10k", "--root", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no checksum of it is published" in told
    assert "--accept-unverified" in told
    assert not list(tmp_path.rglob("*.zip*"))


def sparse_zip(path, members, size):
    """A zip whose directory claims `size` bytes for every member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(members):
            archive.writestr(f"images/{i}.txt", b"")
        for info in archive.infolist():
            info.file_size = size


@pytest.mark.parametrize(("members", "size"), [(3, 4_000_000_000), (400, 2_000_000)])
def test_an_archive_out_of_proportion_is_not_unpacked(members, size, tmp_path):
    sparse_zip(tmp_path / "bomb.zip", members, size)
    with pytest.raises(DataError, match=r"bomb\.zip: would unpack to .*Do not use this archive"):
        unpack_zip(tmp_path / "bomb.zip", tmp_path / "out", ("images",))
    assert not (tmp_path / "out").exists()


def test_a_tar_out_of_proportion_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "bomb.tar", "w") as tar:
        info = tarfile.TarInfo("images/a")
        info.size = 10**12
        tar.fileobj.write(info.tobuf())
        tar.fileobj.write(bytes(1024))
    with pytest.raises(DataError, match=r"bomb\.tar: (would unpack|cannot be unpacked)"):
        unpack_tar(tmp_path / "bomb.tar", tmp_path / "out", ("images",))


def test_the_number_of_members_is_bounded(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    require_bounds(tmp_path / "a.zip", 1_000_000, 0)
    with pytest.raises(DataError, match="would unpack to 1000001 members"):
        require_bounds(tmp_path / "a.zip", 1_000_001, 0)
