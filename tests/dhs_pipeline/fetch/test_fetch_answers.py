"""What each answer of a server comes to: tried again or not, continued or begun anew, and what the row says."""

from __future__ import annotations

import hashlib
import json
from email.utils import formatdate
from pathlib import Path
from time import time

import bad_server as bad
import pytest
from bad_server import BadServer
from fetch_cases import (
    BRICK,
    IMAGE,
    ONE_BAND,
    FakeClock,
    fetch,
    files_below,
    partials_below,
    rows_of,
    serve,
    serve_sums,
    statuses_of,
    sums_path,
)

from dhs_pipeline import __version__
from dhs_pipeline.config import ConfigError
from dhs_pipeline.fetch.files import files_of
from dhs_pipeline.fetch.server import told
from dhs_pipeline.fetch.settings import load_fetch_settings


def test_whole_files_verified_rows(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    maps = dict(server.files)
    serve_sums(server)
    summary = fetch(server, tmp_path)
    assert files_below(tmp_path) == maps
    assert partials_below(tmp_path) == []
    rows = rows_of(tmp_path)
    assert set(rows) == set(maps)
    for path, row in rows.items():
        assert (row["status"], row["brick"], row["http_status"], row["attempts"]) == ("OK", BRICK, 200, 1)
        assert row["sha256"] == hashlib.sha256(maps[path]).hexdigest()
        assert (row["bytes"], row["verified"], row["source"]) == (len(maps[path]), True, server.url)
        assert row["etag"] == bad.etag(maps[path])
    assert summary["files_verified_by_release"] == summary["files"] == 5
    assert summary["bytes"] == summary["bytes_fetched"] == sum(map(len, maps.values()))
    assert json.loads((tmp_path / "_fetch/summary.json").read_text()) == summary
    assert {r.agent.split()[0] for r in server.log} == {f"dark-halo-scope/{__version__}"}


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_other_4xx_are_asked_once(server: BadServer, tmp_path: Path, code: int) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(code)] * 9
    clock = FakeClock()
    summary = fetch(server, tmp_path, clock=clock, requests_per_second=1e9, megabytes_per_second=1e9)
    assert len(server.asked(IMAGE)) == 1
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["http_status"], row["attempts"]) == ("NOT_FOUND" if code == 404 else "FAILED", code, 1)
    assert str(code) in row["message"]
    assert row["bytes"] is row["sha256"] is None
    assert max(clock.slept, default=0) < 0.01
    assert summary["files_by_status"]["OK"] == 4
    assert IMAGE not in files_below(tmp_path)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_429_and_5xx_are_tried_again_with_doubling_waits(server: BadServer, tmp_path: Path, code: int) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(code)] * 3
    clock = FakeClock()
    fetch(server, tmp_path, clock=clock, requests_per_second=1e9, megabytes_per_second=1e9)
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["attempts"]) == ("OK", 4)
    assert [s for s in clock.slept if s > 0.01] == [1.0, 2.0, 4.0]


def test_gives_up_after_the_configured_retries(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(503)] * 99
    clock = FakeClock()
    fetch(server, tmp_path, clock=clock, retries=7, backoff_max_s=5, requests_per_second=1e9, megabytes_per_second=1e9)
    row = rows_of(tmp_path)[IMAGE]
    assert len(server.asked(IMAGE)) == row["attempts"] == 8
    assert (row["status"], row["http_status"]) == ("FAILED", 503)
    assert [s for s in clock.slept if s > 0.01] == [1, 2, 4, 5, 5, 5, 5]


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_honoured(server: BadServer, tmp_path: Path, code: int, as_date: bool) -> None:
    serve(server)
    asked = formatdate(time() + 90.5, usegmt=True) if as_date else "90"
    server.plays[IMAGE] = [bad.status(code, {"Retry-After": asked})]
    clock = FakeClock()
    fetch(server, tmp_path, clock=clock)
    assert rows_of(tmp_path)[IMAGE]["status"] == "OK"
    assert 80 < max(clock.slept) <= 91


def test_too_long_a_retry_after_gives_up(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(429, {"Retry-After": "86400"})]
    fetch(server, tmp_path)
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["attempts"]) == ("FAILED", 1)
    assert "86400 s" in row["message"]


def test_unreadable_retry_after_is_as_none(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(429, {"Retry-After": "soon"})]
    fetch(server, tmp_path)
    assert rows_of(tmp_path)[IMAGE]["attempts"] == 2


@pytest.mark.parametrize(
    "play",
    [bad.cut_after(5000), bad.reset_after(5000), bad.cut_after(10**9, promised_more=700)],
    ids=["cut", "reset", "promised too much"],
)
def test_broken_body_is_continued_where_it_ended(server: BadServer, tmp_path: Path, play: bad.Play) -> None:
    serve(server)
    server.plays[IMAGE] = [play]
    fetch(server, tmp_path)
    first, second = server.asked(IMAGE)[:2]
    assert first.range is None
    assert second.range is not None
    assert second.range.startswith("bytes=")
    assert second.if_range == bad.etag(server.files[IMAGE])
    assert files_below(tmp_path)[IMAGE] == server.files[IMAGE]
    assert rows_of(tmp_path)[IMAGE]["status"] == "OK"


def test_connection_reset_before_an_answer(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.reset_after(0)] * 2
    fetch(server, tmp_path)
    assert (rows_of(tmp_path)[IMAGE]["status"], rows_of(tmp_path)[IMAGE]["attempts"]) == ("OK", 3)


def test_server_without_ranges_sends_the_whole_again(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.cut_after(5000), bad.whole]
    fetch(server, tmp_path)
    assert [r.status for r in server.asked(IMAGE)] == [200, 200]
    assert files_below(tmp_path)[IMAGE] == server.files[IMAGE]


@pytest.mark.parametrize("hears_if_range", [True, False])
def test_file_that_changed_meanwhile_is_begun_anew(server: BadServer, tmp_path: Path, hears_if_range: bool) -> None:
    serve(server)
    old = server.files[IMAGE]
    new = server.files[IMAGE.replace("image", "invvar")]

    def change(handler: bad.Handler, content: bytes | None) -> None:
        bad.cut_after(5000)(handler, old)
        server.files[IMAGE] = new

    server.plays[IMAGE] = [change] if hears_if_range else [change, bad.send_rest]
    fetch(server, tmp_path)
    assert server.asked(IMAGE)[1].range is not None
    assert files_below(tmp_path)[IMAGE] == new
    assert rows_of(tmp_path)[IMAGE]["sha256"] == hashlib.sha256(new).hexdigest()


def test_same_name_of_another_version_is_caught_by_the_checks(server: BadServer, tmp_path: Path) -> None:
    """A server whose ETag stays while the file changes: the pieces do not fit, the whole is asked for."""
    serve(server)
    serve_sums(server)
    content = server.files[IMAGE]
    wrong_start = b"SIMPLE  =" + content[9:100] + bytes(4900)

    def other_start(handler: bad.Handler, _: bytes | None) -> None:
        handler.start(200, {"Content-Length": str(len(content)), "ETag": bad.etag(content)})
        handler.wfile.write(wrong_start)
        handler.close_connection = True

    server.plays[IMAGE] = [other_start]
    fetch(server, tmp_path)
    assert [r.range is not None for r in server.asked(IMAGE)] == [False, True, False]
    assert files_below(tmp_path)[IMAGE] == content


def test_range_beyond_the_end_is_begun_anew(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.cut_after(5000), bad.status(416, {"Content-Range": "bytes */4000"})]
    fetch(server, tmp_path)
    assert [r.status for r in server.asked(IMAGE)] == [200, 416, 200]
    assert files_below(tmp_path)[IMAGE] == server.files[IMAGE]


def test_without_strong_validator_nothing_is_continued(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    content = server.files[IMAGE]

    def weak(handler: bad.Handler, _: bytes | None) -> None:
        handler.start(200, {"Content-Length": str(len(content)), "ETag": 'W/"x"'})
        handler.wfile.write(content[:5000])
        handler.close_connection = True

    server.plays[IMAGE] = [weak]
    fetch(server, tmp_path)
    assert [r.range for r in server.asked(IMAGE)] == [None, None]
    assert files_below(tmp_path)[IMAGE] == content


HTML = b"<!DOCTYPE html><html><body>Scheduled maintenance</body></html>"


@pytest.mark.parametrize(
    ("play", "found"),
    [
        (bad.status(200, body=HTML), "<!DOCTYPE html>"),
        (bad.status(200), "nothing"),
        (bad.too_short_a_length(8000), "truncated: 8000 bytes"),
        (bad.no_length(8000), "truncated: 8000 bytes"),
        (bad.status(200, body=b"SIMPLE  =                    T" + b" " * 4000), "no readable HDU 1"),
        (bad.too_short_a_length(2880), "no readable HDU 1"),
    ],
)
def test_what_is_not_the_file_never_gets_its_name(
    server: BadServer, tmp_path: Path, play: bad.Play, found: str
) -> None:
    serve(server)
    server.plays[IMAGE] = [play]
    fetch(server, tmp_path)
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["http_status"], row["attempts"]) == ("NOT_FITS", 200, 1)
    assert found in row["message"]
    assert IMAGE not in files_below(tmp_path)
    assert partials_below(tmp_path) == []
    fetch(server, tmp_path)  # it is asked for again
    assert statuses_of(tmp_path)[IMAGE] == "OK"


def test_checksum_mismatch(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    serve_sums(server)
    damaged = bytearray(server.files[IMAGE])
    damaged[-3000] ^= 1
    server.files[IMAGE] = bytes(damaged)
    summary = fetch(server, tmp_path)
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["attempts"]) == ("CHECKSUM_MISMATCH", 1)
    assert hashlib.sha256(damaged).hexdigest() in row["message"]
    assert IMAGE not in files_below(tmp_path)
    assert summary["files_by_status"] == {"CHECKSUM_MISMATCH": 1, "OK": 4}
    assert [f["path"] for f in summary["failures"]] == [IMAGE]


def test_file_that_the_list_lacks_is_not_called_verified(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    serve_sums(server)
    kept = [line for line in server.files[sums_path(BRICK)].splitlines() if b"image-r" not in line]
    server.files[sums_path(BRICK)] = b"\n".join(kept)
    assert fetch(server, tmp_path)["files_verified_by_release"] == 4
    assert (rows_of(tmp_path)[IMAGE]["status"], rows_of(tmp_path)[IMAGE]["verified"]) == ("OK", False)


@pytest.mark.parametrize(
    ("play", "found"), [(bad.status(503), "HTTP 503"), (bad.status(200, body=HTML), "not a list of SHA-256 sums")]
)
def test_no_file_goes_unverified_because_the_list_failed(
    server: BadServer, tmp_path: Path, play: bad.Play, found: str
) -> None:
    serve(server)
    serve_sums(server)
    server.plays[sums_path(BRICK)] = [play] * 6
    fetch(server, tmp_path)
    assert {r["status"] for r in rows_of(tmp_path).values()} == {"FAILED"}
    assert all(found in r["message"] for r in rows_of(tmp_path).values())
    assert files_below(tmp_path) == {}
    server.plays.clear()
    assert fetch(server, tmp_path)["files_by_status"] == {"OK": 5}


def test_configuration_without_checksums(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    assert fetch(server, tmp_path, checksums_path="null")["files_by_status"] == {"OK": 5}
    assert server.asked(sums_path(BRICK)) == []


def test_redirects_are_followed_and_not_repeated_to_anyone(
    server: BadServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    serve(server)
    names = [f.path for f in files_of(BRICK, ONE_BAND)]
    server.plays[names[0]] = [bad.moved_to(f"/mirror/{names[0]}?signature=SECRET")]
    server.files[f"mirror/{names[0]}"] = server.files[names[0]]
    server.plays[names[1]] = [bad.moved_to(f"/gone/{names[1]}?signature=SECRET")] * 9
    server.plays[f"gone/{names[1]}"] = [bad.reset_after(0)] * 9
    server.plays[names[2]] = [bad.moved_to(f"/{names[2]}?signature=SECRET")] * 99
    server.plays[names[3]] = [bad.moved_to("http://user:SECRET@127.0.0.1:1/x?signature=SECRET")] * 9
    server.plays[names[4]] = [bad.moved_to("http://nowhere:port/x?signature=SECRET")] * 9
    fetch(server, tmp_path)
    rows = rows_of(tmp_path)
    assert [rows[n]["status"] for n in names] == ["OK", "FAILED", "FAILED", "FAILED", "FAILED"]
    assert "redirect" in rows[names[2]]["message"]
    assert rows[names[2]]["attempts"] == 1
    assert (rows[names[4]]["attempts"], "nowhere:port" in rows[names[4]]["message"]) == (1, True)
    printed = capfd.readouterr()
    written = b"".join(p.read_bytes() for p in (tmp_path / "_fetch").rglob("*") if p.is_file())
    assert "SECRET" not in repr(rows) + printed.out + printed.err
    assert b"SECRET" not in written


@pytest.mark.parametrize(
    "text",
    [
        "Failed to parse: http://a b/x?signature=SECRET",
        "url: /x?signature=SECRET (Caused by y)",
        "//me:SECRET@host:1/x",
    ],
)
def test_what_is_told_of_an_error_is_no_secret(text: str) -> None:
    assert "SECRET" in text
    assert "SECRET" not in told(OSError(text))
    assert "0x7f" not in told(OSError("<urllib3.connection.HTTPConnection object at 0x7fd3a1>: " + text))


def test_redirect_to_no_address(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.moved_to("http://[nowhere/x")]
    fetch(server, tmp_path)
    row = rows_of(tmp_path)[IMAGE]
    assert (row["status"], row["attempts"]) == ("FAILED", 1)
    assert "redirected to no address" in row["message"]


def test_encoding_that_was_not_asked_for(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(200, {"Content-Encoding": "gzip"}, b"x")]
    fetch(server, tmp_path)
    assert "Content-Encoding gzip" in rows_of(tmp_path)[IMAGE]["message"]


def test_server_that_is_down_ends_the_run(server: BadServer, tmp_path: Path) -> None:
    bricks = [f"059{i}m305" for i in range(9)]
    server.always = bad.status(500)
    summary = fetch(server, tmp_path, bricks, stop_after_failures=7, checksums_path="null")
    assert summary["stopped"].startswith("7 files in a row FAILED")
    assert "HTTP 500" in summary["stopped"]
    assert 7 <= len(rows_of(tmp_path)) < 45


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("base_url=https://user:pass@example.org/x", "without user"),
        ("base_url=https://example.org/x?key=1", "without user"),
        ("base_url=ftp://example.org", "http:// or https://"),
        ("checksums_path='{nowhere}'", "{folder} and {brick}"),
        ("expected_megabytes={image: 1}", "has no size for invvar"),
        ("retries=-1", "greater than or equal to 0"),
        ("retry=1", "unknown key"),
    ],
)
def test_settings_are_checked(change: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found.replace("(", r"\(").replace("{", r"\{")):
        load_fetch_settings("dr10", [change])
