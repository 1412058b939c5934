"""Manifests: what comes in as a line comes out as a job with a safe name, or as a line that says what is wrong."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import redact
from download.filenames import LONGEST, check_filename, name_of_url
from ledger.jobs import Job, Naming, folded
from ledger.records import decode_job, encode_job
from producer import urls
from producer.errors import ManifestError, OtherManifestError
from producer.formats import Format
from producer.manifest import FIELDS, BadLine, Known, Names, Reader, _filename, _name_of_url

DIGEST = "Ab" * 32


def read(
    source: Any, format_: Format | None = None, names: Names | None = None, **options: Any
) -> Iterator[Job | BadLine]:
    return Reader(source, format_, print, **options).items(names or Names())


def jobs(text: str | bytes, format_: Format | None = None) -> list[Job | BadLine]:
    return list(read(io.BytesIO(text.encode() if isinstance(text, str) else text), format_))


def one(text: str, *, server_names: bool = False) -> Job:
    (job,) = read(io.BytesIO(text.encode()), server_names=server_names)
    assert isinstance(job, Job)
    return job


def line(**fields: object) -> str:
    return json.dumps({"url": "http://a/f", **fields})


def test_txt_skips_comments_and_blank_lines() -> None:
    assert jobs("# ours\n\nhttp://a/x.txt\r\n  http://a/y.txt  \n  # indented\n#") == [
        Job("http://a/x.txt", "x.txt"),
        Job("http://a/y.txt", "y.txt"),
    ]


def test_csv_takes_the_columns_in_any_order() -> None:
    text = f'size,URL,sha256,filename\n7,http://a/x,{DIGEST},"a,b/c.txt"\n,http://a/y,,\n'
    assert jobs(text) == [Job("http://a/x", "a,b/c.txt", DIGEST.lower(), 7), Job("http://a/y", "y")]


def test_csv_without_a_header_has_urls_only() -> None:
    assert jobs("http://a/x\n", Format.CSV) == [Job("http://a/x", "x")]
    with pytest.raises(ManifestError, match="line 1: expected a header with the column url, or a URL and nothing else"):
        jobs("http://a/x,name\n", Format.CSV)


def test_a_cell_below_no_name_and_a_missing_cell_are_bad_lines() -> None:
    first, second = jobs("url,filename,\nhttp://a/x,y,z\nhttp://a/x,y\n")
    assert [str(first), str(second)] == [
        "line 2: expected 3 columns (url, filename, ), got 3",
        "line 3: expected 3 columns (url, filename, ), got 2",
    ]


@pytest.mark.parametrize("header", ["url,crc32", "url,url"])
def test_csv_with_a_header_that_we_do_not_understand_is_refused_as_a_whole(header: str) -> None:
    with pytest.raises(ManifestError, match="expected each of the columns url, filename, sha256, size, headers, mir"):
        jobs(f"{header}\nhttp://a/x,1\n")


BAD_LINES = [
    ("ftp://a/x", "expected an http or https URL, got 'ftp://a/x': its scheme is 'ftp'"),
    ("a/x", "it has no scheme"),
    ("http:///x", "it has no host"),
    ("http://a b/x", "a space, a backslash or a control character"),
    ("http://a/\u202ex", "a space, a backslash or a control character"),
    ("http://good.example\\@evil.example/", "a space, a backslash or a control character"),
    ("http://a@b@c/", "two '@'"),
    ("http://a:99999/", "its host or port is malformed"),
    ("http://a:0/", "its port is 0"),
    ("http://[::1/", "its host or port is malformed"),
    (f"http://{'a' * 64}.example/", "is not a host name"),
    ("http://a/" + "x" * 9000, "longer than 8192 characters"),
    (b"http://a/\xff", "expected UTF-8, got b'\\xff"),
    ("http://a/" + "x" * 200_000, "expected at most 65536 bytes"),
    ("{", "expected a JSON object"),
    ("[1]", "expected a JSON object"),
    ("[" * 20_000, "expected a JSON object"),
    ("{}", "expected a url, got none"),
    # A header's value may be a secret.
    ('{"url": "http://a/f", "headers": {"Authorization": "Bearer s3cret"', "expected a JSON object"),
    ('{"url": "http://a/f", "headers": {"s3cret": 5}, "headers": "s3cret"}', "expected headers"),
    ('{"headers": {"Authorization": "s3cret"}}', "expected a url"),
    ('["headers", {"Authorization": "s3cret"}]', "expected a JSON object"),
]
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"url": 1}, "expected url to be a text, got '1'"),
    ({"crc32": 1}, "headers, mirrors, md5, sha1, sha512, got 'crc32'"),
    ({"md5": 1}, "expected md5 to be a text, got '1'"),
    *(
        ({name: "ab"}, f"expected {name} to be {digits} hexadecimal digits, got 'ab'")
        for name, digits in (("md5", 32), ("sha1", 40), ("sha512", 128))
    ),
    ({"sha256": "ab"}, "expected sha256 to be 64 hexadecimal digits, got 'ab'"),
    ({"size": -1}, "expected size to be a whole number of bytes, 0 or more; got '-1'"),
    ({"size": True}, "expected size"),
    ({"size": 1.5}, "expected size"),
    ({"size": "1.5"}, "expected size"),
    ({"size": float("inf")}, "expected size"),
    ({"mirrors": ["http://u:s3cret@b/f"]}, "expected mirrors without user and password"),
    ({"url": "http://u:s3cret@a/f", "headers": {"authorization": "x"}}, "got both"),
    *(
        ({"filename": name}, "expected filename to be a relative path")
        for name in ("../x", "/etc/x", "a\\b", "a//b", "")
    ),
    *(
        ({"headers": headers}, "expected")
        for headers in (
            "text", ["a"], {"a b": "x"}, {"Host": "x"}, {"RANGE": "bytes=0-"}, {"a": "x\r\nb: y"}, {"a": ""}, {"a": 1},
            {"a": "ü"}, {"a": "x", "A": "y"}, {"a": "x" * 9000}, {"Authorization": "s3cret\n"},
        )
    ),
    *(
        ({"mirrors": mirrors}, "expected")
        for mirrors in ({"a": "b"}, [1], ["ftp://b/f"], "b/f", [f"http://{n}/f" for n in range(21)])
    ),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "said"), [*BAD_LINES, *((line(**fields), said) for fields, said in BAD_FIELDS)])
def test_a_bad_line_is_named_and_the_others_stay(raw: str | bytes, said: str) -> None:
    raw = raw if isinstance(raw, bytes) else raw.encode()
    is_json = raw[:1] in b"{["
    good = b'{"url": "http://a/good"}' if is_json else b"http://a/good"
    before, bad, after = jobs(b"\n".join([good, raw, good]), Format.JSONL if is_json else Format.TXT)
    assert said in str(bad)
    assert "s3cret" not in str(bad)
    assert str(bad).startswith("line 2: ")
    assert [before, after] == [Job("http://a/good", "good"), Job("http://a/good", "good-2")]


def test_an_unclosed_quote_spoils_its_own_line_only() -> None:
    bad, good = jobs('url,filename\nhttp://a/x,"oops\nhttp://a/y,y\n')
    assert str(bad).startswith("line 2: ")
    assert good == Job("http://a/y", "y")


def test_what_a_bad_line_says_contains_no_password() -> None:
    for url in ("ftp://u:hunter2@a/x", "http://u:hun/ter2@a/x", "http://u:hunter2@b@c/", "http://a:hunter2/"):
        (bad,) = read([url])
        assert "ter2@" not in str(bad)


def test_of_thousands_of_bad_lines_twenty_are_named_and_all_counted() -> None:
    said: list[str] = []
    reader = Reader(io.BytesIO(b"nonsense\n" * 5000), None, said.append)
    assert list(reader.jobs()) == []
    assert (len(said), reader.bad) == (21, 5000)
    assert said[-1] == "5,000 bad lines, the first 20 of which are above"


# -- headers, mirrors, repeated lines


@pytest.mark.parametrize("size", ["1000", "1000.", "1000.0", 1000.0])
def test_a_size_is_whole_however_it_is_written(size: object) -> None:
    assert one(line(size=size)) == Job("http://a/f", "f", None, 1000)


def test_a_cell_that_is_not_a_number_is_no_size() -> None:
    assert one(line(size=float("nan"))) == Job("http://a/f", "f")


def test_a_path_may_begin_with_a_dot() -> None:
    assert one(line(filename="././a/b")) == Job("http://a/f", "a/b")


@pytest.mark.parametrize(("name", "length"), [("md5", 16), ("sha1", 20), ("sha512", 64)])
def test_other_digests_are_expected_where_there_is_no_sha256(name: str, length: int) -> None:
    digest = "aB" * length
    for text in (digest, f"{name}:{digest}"):
        assert one(line(**{name: text})) == Job("http://a/f", "f", digest=f"{name}:{digest.lower()}")
    assert one(line(sha256=DIGEST, **{name: digest})) == Job("http://a/f", "f", DIGEST.lower())
    strongest = one(line(**{"md5": "00" * 16, "sha1": "00" * 20, name: digest}))
    assert (strongest.digest or "").partition(":")[0] == ("sha1" if name == "md5" else name)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://u:pa%20ss@a/f", "u:pa ss"),
        ("HTTP://u@a/f", "u:"),
        ("http://:p@a/f?x=@", ":p"),
        ("http://%C3%BC:p@a/f", "ü:p"),
    ],
)
def test_user_and_password_of_a_url_are_basic_authentication(url: str, text: str) -> None:
    plain = url.partition("//")[0] + "//a/" + url.rpartition("a/")[2]
    job = Job(plain, "f", headers=(("Authorization", "Basic " + base64.b64encode(text.encode()).decode()),))
    assert one(url) == one(line(url=url)) == job
    assert list(read([url])) == [job]
    assert one("http://a/@f") == Job("http://a/@f", "@f")


# -- a batch that has some of the jobs


def again(before: str, after: str, **options: Any) -> tuple[list[str], list[str]]:
    """Names of the jobs of a first manifest, and of those that the second one has more."""
    have = [item for item in read(io.BytesIO(before.encode())) if isinstance(item, Job)]
    new = Reader(io.BytesIO(after.encode()), None, lambda _: None, **options)
    new.keep()
    return [job.filename for job in have], [job.filename for job in new.missing(lambda: have)]


def test_a_mended_line_is_new_and_takes_no_name_from_another() -> None:
    bad, good = "http//a/f\nhttp://b/f\nhttp://c/f\n", "http://a/f\nhttp://b/f\nhttp://c/f\nhttp://d/g\n"
    assert again(bad, good) == (["f", "f-2"], ["f-3", "g"])
    assert again(good, good) == (["f", "f-2", "f-3", "g"], [])
    mended = good.replace("http://d/g\n", "http://b/f\n" * 2)
    assert again(bad, mended) == (["f", "f-2"], ["f-3", "f-4", "f-5"])


def test_a_line_asks_for_its_own_filename() -> None:
    rows = "".join(line(filename=name) + "\n" for name in ("x", "y", "x"))
    assert again(rows, line(filename="z") + "\n" + rows) == (["x", "y", "x-2"], ["z"])
    with pytest.raises(OtherManifestError, match="does not have 1 of its jobs"):
        again(rows, line(filename="z") + "\n" + rows.replace('"y"', '"w"'))
    with pytest.raises(OtherManifestError, match="does not have 1 of its jobs"):
        again("http://a/x\nhttp://a/y\n", "http://a/y\nhttp://a/z\n")


def test_folders_go_on_where_the_batch_is() -> None:
    first = "".join(f"http://a/{n}/f\n" for n in range(3))
    new = Reader(io.BytesIO(("http://a/9/f\n" + first).encode()), None, lambda _: None, partial(Names, 2))
    new.keep()
    have = [item for item in read(io.BytesIO(first.encode()), names=Names(2)) if isinstance(item, Job)]
    assert [job.filename for job in new.missing(lambda: have)] == ["0001/f-2"]


def test_json_lines_have_an_object_and_a_list() -> None:
    job = one(line(headers={"Authorization": "Bearer x"}, mirrors=["http://b/f", "http://a/f", "http://b/f"]))
    assert (job.headers, job.mirrors) == ((("Authorization", "Bearer x"),), ("http://b/f",))
    assert not job.plain


@pytest.mark.parametrize("cell", ["http://b/f http://c/f", '"[""http://b/f"",""http://c/f""]"'])
def test_csv_cells_hold_json_or_urls(cell: str) -> None:
    text = f'url,headers,mirrors\nhttp://a/f,"{{""X-Key"":""v""}}",{cell}\n'
    job = one(text)
    assert (job.headers, job.mirrors) == ((("X-Key", "v"),), ("http://b/f", "http://c/f"))


def test_who_names_the_file_is_said_only_where_servers_may() -> None:
    namings = [one(text, server_names=True) for text in (line(), line(filename="x"))]
    assert [job.naming for job in namings] == [Naming.SERVER, Naming.RESERVED]
    assert one(line()).plain


def test_a_line_that_comes_again_is_left_out_and_counted() -> None:
    names = Names(dedup=True)
    lines = [line(), line(filename="x"), line(), line(filename="x", size=1), line(filename="y"), line(url="http://b/f")]
    jobs = list(read(io.BytesIO("\n".join(lines).encode()), names=names))
    assert [job.filename for job in jobs if isinstance(job, Job)] == ["f", "x", "y", "f-2"]
    assert names.repeated == 2


@pytest.mark.parametrize("sha256", [None, "ab" * 32])
@pytest.mark.parametrize("filename", ["f", "other"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": (("A", "b"),)},
        {"mirrors": ("http://b/f",)},
        {"naming": Naming.SERVER},
        {"digest": f"md5:{'00' * 16}"},
    ],
)
def test_options_are_read_back_as_they_were_written(sha256: str | None, filename: str, options: dict[str, Any]) -> None:
    job = Job("http://a/f", filename, sha256, None, **options)
    assert decode_job(encode_job(job)) == job


# -- names


def test_names_are_unique_in_the_manifests_order() -> None:
    names = Names()
    given_ = [names.give(name) for name in ("a.txt", "a.txt", "a-2.txt", "a.txt", "d/a.txt", "d", "d/a.txt")]
    assert given_ == ["a.txt", "a-2.txt", "a-2-2.txt", "a-3.txt", "d/a.txt", "d-2", "d/a-2.txt"]
    with pytest.raises(ValueError, match="is a file of this batch"):
        names.give("a.txt/b")


def test_names_are_unique_where_case_and_the_form_of_unicode_do_not_count() -> None:
    names = Names()
    wanted = ["README", "readme", "ReadMe", "Data/x", "data/X", "DATA", "é.txt", "E\u0301.TXT", "Straße", "STRASSE"]
    given_ = [names.give(check_filename(name)) for name in wanted]
    assert given_ == [
        *("README", "readme-2", "ReadMe-3", "Data/x", "data/X-2", "DATA-2"),
        *("é.txt", "É-2.TXT", "Straße", "STRASSE-2"),
    ]
    with pytest.raises(ValueError, match="is a file of this batch"):
        names.give("readme/b")


def test_a_hundred_thousand_equal_names_take_no_quadratic_time() -> None:
    names = Names()
    assert [names.give("x") for _ in range(100_000)][-1] == "x-100000"


@given(st.lists(st.text(max_size=300), max_size=30))
def test_names_never_collide_and_stay_below_the_folder(wanted: list[str]) -> None:
    names, taken = Names(), []
    for text in wanted:
        try:
            taken.append(names.give(check_filename(text)))
        except ValueError:
            continue
    assert len({folded(name) for name in taken}) == len(taken)
    folders = {folded(str(parent)) for name in taken for parent in PurePosixPath(name).parents}
    assert not folders & {folded(name) for name in taken}
    for name in taken:
        assert not {"", ".", ".."} & set(name.split("/"))
        assert max(len(segment.encode()) for segment in name.split("/")) <= LONGEST


segment = st.text(st.characters(categories=["L", "N"], include_characters="-_,\"' #"), min_size=1, max_size=30).filter(
    lambda text: text == text.strip()
)
entry = st.fixed_dictionaries(
    {
        "url": segment.map(lambda text: f"http://host.example/{text.replace(' ', '%20')}"),
        "filename": st.lists(segment, min_size=1, max_size=3).map("/".join),
        "sha256": st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
        "size": st.none() | st.integers(0, 2**63 - 1),
    }
)


def first_folder(row: dict[str, Any]) -> str:
    return folded(check_filename(row["filename"]).split("/")[0])


entries = st.lists(entry, min_size=1, max_size=20, unique_by=first_folder)


def expected(rows: list[dict[str, Any]]) -> list[Job | BadLine]:
    """As they were written, with their names cleaned."""
    return [Job(**row | {"filename": check_filename(row["filename"])}) for row in rows]


@given(entries)
def test_a_manifest_comes_back_as_it_was_written(rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    assert jobs("\n".join(map(json.dumps, rows))) == jobs(text.getvalue()) == expected(rows)


url = st.from_regex(r"https?://[a-zA-Z0-9.-]{1,70}(:[0-9]{1,5})?/([ -~]{0,20}/)?[ -~]{0,12}", fullmatch=True)
name = st.from_regex(r"([a-zA-Z0-9._ -]{0,6}/){0,6}[a-zA-Z0-9._ -]{0,230}", fullmatch=True)
ends = st.sampled_from(["", "con", "/aux.", "/nul.txt", "/.x", "%20", "a.", "/COM1", "#a", "?a=/b", "\\"])


@given(url | name.map("http://a/{}".format), ends)
def test_what_needs_no_closer_look_at_a_url_is_what_a_closer_look_accepts(start: str, end: str) -> None:
    text = (start + end).strip()
    if urls._PLAIN.fullmatch(text):
        assert urls._parts_problem(urlsplit(text)) is None
        assert not any(each.isspace() or not each.isprintable() or each == "\\" for each in text)
    if not urls._problem(text):
        assert _name_of_url(text) == name_of_url(text)


@given(name, ends)
def test_what_needs_no_cleaning_in_a_name_is_a_clean_name(start: str, end: str) -> None:
    with suppress(ValueError):
        assert _filename(start + end) == check_filename(start + end)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@a/x", "http://***@a/x"),
        ("see HTTPS://token@a/x, http://b/", "see HTTPS://***@a/x, http://b/"),
        ("http://a/x?id=1&X-Amz-Signature=abc&b=2", "http://a/x?id=1&X-Amz-Signature=***&b=2"),
        ("http://a/x?access_token=abc#f", "http://a/x?access_token=***#f"),
        ("http://a/user@host?b=@", "http://a/user@host?b=@"),
        (
            "http://a/x?key=a&access=b&jwt=c&code=d&sv=e&size=7",
            "http://a/x?key=***&access=***&jwt=***&code=***&sv=***&size=7",
        ),
        ("http://a/x#id_token=a", "http://a/x#id_token=***"),
    ],
)
def test_secrets_of_a_url_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_job_that_is_done_is_known_without_the_values_of_its_headers() -> None:
    job = Job("http://a/f", "f", headers=(("Authorization", "s3cret"),))
    assert Known([job.spent], Names()).take(job, named=True)
