"""Manifests that other programs write: aria2's input files, Metalink documents, and Parquet where pyarrow is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.filenames import check_filename
from ledger.jobs import Job, folded
from producer.errors import ManifestError
from producer.formats import MOST_MIRRORS, Format, format_of
from producer.manifest import BadLine, Names, Reader
from producer.urls import check_url

DIGEST = "ab" * 32
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'


def read(source: Any, format_: Format | None = None, **options: Any) -> Iterator[Job | BadLine]:
    return Reader(source, format_, print, **options).items(Names())


def items(text: str | bytes, format_: Format) -> list[Job | BadLine]:
    return list(read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), format_))


def meta4(*files: str) -> list[Job | BadLine]:
    return items(HEAD + "\n".join(files) + "\n</metalink>", Format.METALINK)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("x.meta4", Format.METALINK),
        ("a.parquet", Format.PARQUET),
        ("A.CSV", Format.CSV),
        ("a.ndjson", Format.JSONL),
        ("a.tsv", Format.CSV),
        ("a.csv.GZ", Format.CSV),
        ("x.metalink", Format.METALINK),
        ("a.json", None),
        ("a", None),
    ],
)
def test_the_suffix_says_what_it_is(name: str, format_: Format | None) -> None:
    assert format_of(Path(name)) is format_


X, Y = Job("http://a/x", "f1.bin", None, 1000), Job("http://a/y;1", "f2.bin")
UTF16 = "\ufeffurl;filename;size\r\nhttp://a/x;f1.bin;1000\r\n"
TABLES = {
    "excel": b"\xef\xbb\xbfurl;filename;size\r\nhttp://a/x;f1.bin;1000\r\n;;\r\n",
    "excel-sep": b"sep=,\r\nurl,filename,size\r\nhttp://a/x,f1.bin,1000\r\n",
    "excel-sep-tab": b"sep=\t\nurl\tfilename\tsize\nhttp://a/x\tf1.bin\t1000\n",
    "tabs": b"filename\tsize\turl\tsha256\nf1.bin\t1000\thttp://a/x\t\n",
    "pipes": b"url|filename|size\nhttp://a/x|f1.bin|1000\n",
    "nameless": b"url,filename,size,\nhttp://a/x,f1.bin,1000,\n,,,\n",
    "pandas": b"url,filename,size\nhttp://a/x,f1.bin,1000.0\n",
    "comment": b"# ours\nurl,filename,size\nhttp://a/x,./f1.bin,1000\n",
    "utf-16-le": UTF16.encode("utf-16-le"),
    "utf-16-be": UTF16.encode("utf-16-be"),
    "gzip": gzip.compress(b"url,filename,size\n", mtime=0) + gzip.compress(b"http://a/x,f1.bin,1000\n", mtime=0),
    "gzip-utf-16": gzip.compress(UTF16.encode("utf-16-le"), mtime=0),
    "array": b' [ {"url": "http://a/x", "filename": "f1.bin", "size": 1000}\n]\n',
    "array-of-pandas": b'[{"url": "http://a/x", "filename": "f1.bin", "size": 1000.0, "sha256": null}]',
}


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_tables_are_read_as_programs_write_them(text: bytes, piped: bool) -> None:
    assert list(read(Pipe(text) if piped else io.BytesIO(text))) == [X]


class Pipe(io.BytesIO):
    """What cannot be read twice, and comes in small pieces."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation

    def read1(self, _size: int | None = -1) -> bytes:
        return self.read(7)


@pytest.mark.parametrize("format_", [None, Format.CSV])
@pytest.mark.parametrize(
    "text",
    [
        "http://a/x,f1.bin\n",
        "http://a/x;f1.bin\n",
        "http://a/x\tf1.bin\n",
        "http://a/x|f1\n",
        "link;name\nhttp://a/x;y\n",
    ],
)
def test_a_first_line_that_may_be_a_url_or_a_row_is_refused_with_what_was_seen(
    text: str, format_: Format | None
) -> None:
    with pytest.raises(ManifestError, match=r"line 1: .*header with the column url.*got .*--columns.*was submitted"):
        list(read(io.BytesIO(text.encode()), format_))


def test_a_text_file_has_urls_with_commas_or_a_header() -> None:
    assert items("http://a/x,f1.bin\nhttp://a/y;1\n", Format.TXT) == [
        Job("http://a/x,f1.bin", "x,f1.bin"),
        Job("http://a/y;1", "y;1"),
    ]
    assert items("url;filename\nhttp://a/x;f\n", Format.TXT) == [Job("http://a/x", "f")]
    assert items('url,filename\nhttp://a/y;1,"f2.bin"\n', Format.TXT) == [Y]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"PK\x03\x04....", "an Excel workbook"),
        (b"BZh91AY", "bzip2"),
        (b"%PDF-1.7", "PDF"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (gzip.compress(gzip.compress(b"http://a/x\n", mtime=0), mtime=0), "gzip inside of gzip"),
        ("http://a/x\n".encode("utf-16-le"), "UTF-16 without its mark"),
        ("http://a/x\n".encode("utf-32"), "UTF-32"),
    ],
)
@pytest.mark.parametrize("format_", [None, Format.TXT, Format.CSV])
def test_a_file_that_is_no_manifest_is_named(raw: bytes, said: str, format_: Format | None) -> None:
    with pytest.raises(ManifestError, match=f"expected a manifest .*, got .*{said}.*; nothing was submitted"):
        list(read(io.BytesIO(raw), format_))


def test_gzip_that_breaks_off_is_reported_after_what_came() -> None:
    text = "".join(f"http://a/{n}-{hashlib.sha256(bytes(n)).hexdigest()}\n" for n in range(20_000))
    *good, bad = read(io.BytesIO(gzip.compress(text.encode(), mtime=0)[:-5000]))
    assert len(good) > 1000
    assert f"line {len(good) + 1}: " in str(bad)
    assert "expected gzip to its end" in str(bad)


def test_a_line_that_is_not_utf_16_is_a_bad_line() -> None:
    bad, good = read(
        io.BytesIO(b"\xff\xfe" + "http://a/".encode("utf-16-le") + b"\0\xdc\n\0" + "http://a/x".encode("utf-16-le"))
    )
    assert isinstance(bad, BadLine)
    assert good == Job("http://a/x", "x")


def test_an_array_may_have_urls_and_a_bad_element_spoils_no_other() -> None:
    first, bad, second, last = read(io.BytesIO(b'["http://a/1", 7, {"url": "http://a/2"}\n,"http://a/3"]'))
    assert [first, second, last] == [Job(f"http://a/{n}", f"{n}") for n in (1, 2, 3)]
    assert str(bad) == "line 2: expected a JSON object or a URL, got another value"


@pytest.mark.parametrize(
    "end",
    ["", ",", ', {"url": "http', "] ]", "] x", ' {"url": "http://a/2"}]', "," + "[" * 100_000, ' , "' + "x" * 200_000],
)
def test_an_array_that_breaks_off_says_so_and_what_was_whole_counts(end: str) -> None:
    good, bad = read(io.BytesIO(f'[{{"url": "http://a/1"}}{end}'.encode()))
    assert good == Job("http://a/1", "1")
    assert str(bad).startswith("line 2: ")
    assert "what follows was not read" in str(bad)


def test_a_long_array_is_read_a_piece_at_a_time() -> None:
    class Endless(Pipe):
        pieces = 0

        def read1(self, _size: int | None = -1) -> bytes:
            self.pieces += 1
            return b', {"url": "http://a/1"}'

    source = Endless(b'[{"url": "http://a/1"}')
    found = read(source)
    for _ in range(100):
        assert isinstance(next(found), Job)
    assert source.pieces <= 102
    assert list(read(io.BytesIO(b" [ ] "))) == []


def test_columns_that_are_not_ours_are_shown_as_they_are_written() -> None:
    with pytest.raises(ManifestError, match="got 'ID;URL;TEXT'; --columns url=NAME"):
        items("ID;URL;TEXT\n", Format.CSV)


COLUMNS = {"url": "URL", "filename": "TEXT"}


@pytest.mark.parametrize(
    "text",
    [
        'SAMPLE_ID,URL,TEXT\n1,http://a/x,"a, b"\n',
        '{"SAMPLE_ID": 1, "URL": "http://a/x", "TEXT": "a, b", "url": "http://b/"}\n',
        '[{"SAMPLE_ID": 1, "URL": "http://a/x", "TEXT": "a, b"}]',
    ],
)
def test_columns_that_are_named_are_taken_and_the_others_left_alone(text: str) -> None:
    assert list(read(io.BytesIO(text.encode()), columns=COLUMNS)) == [Job("http://a/x", "a, b")]


@pytest.mark.parametrize(
    ("text", "format_", "said"),
    [
        ("url,TEXT\nhttp://a/x,b\n", Format.CSV, "header with the column URL"),
        ("URL,text\nhttp://a/x,b\n", Format.CSV, "expected each of the columns URL, TEXT once, got"),
        ("http://a/x\n", None, "header with the column URL"),
        ("http://a/x\n", Format.ARIA2, "expected a table for --columns, got aria2"),
    ],
)
def test_columns_that_are_not_there_are_refused(text: str, format_: Format | None, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        list(read(io.BytesIO(text.encode()), format_, columns=COLUMNS))


def test_an_aria2_file_has_urls_and_their_options() -> None:
    text = f"""# images
http://a/f.iso\thttp://b/f.iso
  out=g.iso
  dir=images/
  split=5
  checksum=sha-256={DIGEST.upper()}
  header=Authorization: Bearer x:y
\theader=X-Key: v
  user-agent=me

# next
http://a/plain.bin
http://a/h.bin
  dir=images
"""
    headers = (("Authorization", "Bearer x:y"), ("X-Key", "v"), ("User-Agent", "me"))
    assert items(text, Format.ARIA2) == [
        Job("http://a/f.iso", "images/g.iso", DIGEST, None, headers, ("http://b/f.iso",)),
        Job("http://a/plain.bin", "plain.bin"),
        Job("http://a/h.bin", "images/h.bin"),
    ]


def test_a_session_of_aria2_is_read_without_the_folder_of_its_machine() -> None:
    text = """http://a/x
 gid=1
 dir=/home/user/Downloads
 out=f1.bin
 http-user=me
 http-passwd=s3:cret
 checksum=sha-1=DIGEST
http://a/y
 dir=C:\\Users
""".replace("DIGEST", "AB" * 20)
    headers = (("Authorization", f"Basic {base64.b64encode(b'me:s3:cret').decode()}"),)
    assert items(text, Format.ARIA2) == [
        Job("http://a/x", "f1.bin", None, None, headers, digest=f"sha1:{'ab' * 20}"),
        Job("http://a/y", "y"),
    ]


@pytest.mark.parametrize(
    ("kind", "name", "length"), [("sha-512", "sha512", 64), ("sha-1", "sha1", 20), ("MD5", "md5", 16)]
)
def test_a_metalink_with_another_hash_than_sha_256_expects_that(kind: str, name: str, length: int) -> None:
    (job,) = meta4(f'<file name="f"><hash type="{kind}">{"Ab" * length}</hash><url>http://a/f</url></file>')
    assert job == Job("http://a/f", "f", digest=f"{name}:{'ab' * length}")


def test_metalink_3_is_refused_in_one_sentence() -> None:
    text = '<?xml version="1.0"?><metalink version="3.0" xmlns="http://www.metalinker.org/"><files/></metalink>'
    with pytest.raises(ManifestError, match="got Metalink 3; nothing was submitted"):
        list(read(io.BytesIO(text.encode())))


def test_a_metalink_file_has_urls_by_priority_a_length_and_a_digest() -> None:
    found = meta4(
        f"""<file name="images/f.iso">
          <identity>f</identity><size>700</size>
          <hash type="sha-384">00</hash><hash type="md5">{"00" * 16}</hash><hash type="sha-256">{DIGEST}</hash>
          <pieces length="262144" type="sha-256"><hash>{"cd" * 32}</hash></pieces>
          <url location="de" priority="2">http://b/f.iso?x=1&amp;y=2</url>
          <url>http://c/f.iso</url>
          <url priority="1"> https://a/f.iso </url>
          <url priority="1">ftp://a/f.iso</url>
          <metaurl mediatype="torrent">http://a/f.torrent</metaurl>
        </file>""",
        '<file name="g"><url>http://a/g</url></file>',
    )
    assert found == [
        Job("https://a/f.iso", "images/f.iso", DIGEST, 700, (), ("http://b/f.iso?x=1&y=2", "http://c/f.iso")),
        Job("http://a/g", "g"),
    ]


ARIA2 = [
    ("  out=x", "a URL before its options"),
    ("http://a/f\n out", "options like out=name"),
    ("http://a/f\n checksum=adler32=abc", "another kind, which would not be looked at"),
    ("http://a/f\n checksum=md5=abc", "md5 to be 32 hexadecimal digits"),
    ("http://a/f\n http-user=me\n http-passwd=s3cret\n header=authorization: x", "got both"),
    ("http://a/f\n checksum=sha-256=abc", "64 hexadecimal digits"),
    ("http://a/f\n dir=../etc", "a relative path"),
    ("http://a/f\n out=../x", "a relative path"),
    ("http://a/f\n header=Host: x", "does not set itself"),
    ("http://a/f\n header=A: s3cret\n header=a: s3cret", "each header once"),
    ("http://a/f\n header=s3cret", "header"),
    ("ftp://a/f", "http or https"),
    ("http://a/f\n" + " a=b\n" * 200, "at most 100 options"),
]
METALINK = [
    ('<file name="f"></file>', "an http or https URL"),
    ('<file name="../../etc/passwd"><url>http://a/f</url></file>', "a relative path"),
    ('<file name="/etc/passwd"><url>http://a/f</url></file>', "a relative path"),
    ('<file name="f"><url>http://a/f</url><size>-1</size></file>', "size"),
    ('<file name="f"><url>http://a/f</url><hash type="sha-256">xyz</hash></file>', "64 hexadecimal digits"),
    ('<file name="f"><url>http://a/f</url><hash type="sha-384">00</hash></file>', "which would not be looked at"),
    ('<file name="f"><url>http://a/f</url><hash type="sha-512">00</hash></file>', "128 hexadecimal digits"),
    ('<file name="f"><url>http://a b/f</url></file>', "a space"),
    (f'<file name="f"><url>http://a/{"x" * 100_000}</url></file>', "longer than"),
]


@pytest.mark.parametrize(
    ("format_", "text", "said"),
    [*((Format.ARIA2, *case) for case in ARIA2), *((Format.METALINK, *case) for case in METALINK)],
)
def test_a_file_that_cannot_be_had_as_asked_is_a_bad_line_and_the_next_one_is_good(
    format_: Format, text: str, said: str
) -> None:
    if format_ is Format.ARIA2:
        (bad, good), number = items(f"{text}\nhttp://a/good", format_), 1
    else:
        (bad, good), number = meta4(text, '<file name="good"><url>http://a/good</url></file>'), 3
    assert str(bad).startswith(f"line {number}: ")
    assert said in str(bad)
    assert "s3cret" not in str(bad)
    assert good == Job("http://a/good", "good")


def test_of_too_many_urls_the_best_are_taken() -> None:
    urls = "".join(f'<url priority="{n}">http://a/{n}</url>' for n in range(2000, 0, -1))
    (job,) = meta4(f'<file name="f">{urls}<url priority="9">http://a/late</url></file>')
    assert isinstance(job, Job)
    assert len(job.urls) == MOST_MIRRORS + 1
    numbers = [int(url.rpartition("/")[2]) for url in job.urls]
    assert numbers == sorted(numbers)


LAUGHS = '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE m [<!ENTITY f SYSTEM "file:///etc/hostname">]>'
OUTSIDE = '<!DOCTYPE m SYSTEM "http://127.0.0.1:1/x.dtd">'


@pytest.mark.parametrize("doctype", [LAUGHS, FILE, OUTSIDE])
def test_a_document_type_is_refused_before_anything_is_expanded(doctype: str) -> None:
    opening, file = '<metalink xmlns="urn:ietf:params:xml:ns:metalink">', '<file name="&b;&f;"/></metalink>'
    text = f'<?xml version="1.0"?>{doctype}{opening}{file}'
    with pytest.raises(ManifestError, match="without a document type; nothing was submitted"):
        items(text, Format.METALINK)


@pytest.mark.parametrize(
    "text",
    ["", "http://a/f\n", "<html></html>", '<metalink version="3.0" xmlns="http://www.metalinker.org/"/>', "\x00", "<"],
)
def test_what_is_no_metalink_of_rfc_5854_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="expected"):
        items(text, Format.METALINK)


def test_a_document_that_breaks_off_says_so_and_what_was_whole_counts() -> None:
    good, bad = items(HEAD + '<file name="f"><url>http://a/f</url></file>\n<file name="g"><url>http', Format.METALINK)
    assert good == Job("http://a/f", "f")
    assert str(bad).startswith("line 4: ")
    assert "what follows was not read" in str(bad)


def test_elements_of_other_namespaces_mean_nothing() -> None:
    found = meta4('<file name="f"><url>http://a/f</url><x:url xmlns:x="urn:x">http://evil/</x:url></file>')
    assert found == [Job("http://a/f", "f")]


segment = st.text(st.characters(categories=["L", "N"], include_characters="&<>\"' -_"), min_size=1, max_size=20).filter(
    lambda text: text == text.strip() and check_filename(text) == text
)
entries = st.lists(
    st.tuples(segment, st.none() | st.integers(0, 2**63 - 1), st.none() | st.just(DIGEST)),
    min_size=1,
    max_size=10,
    unique_by=lambda entry: folded(entry[0]),
)


@given(entries)
def test_a_metalink_comes_back_as_it_was_written(rows: list[tuple[str, int | None, str | None]]) -> None:
    files = []
    for number, (name, size, sha256) in enumerate(rows):
        more = "" if size is None else f"<size>{size}</size>"
        more += f'<hash type="sha-256">{sha256}</hash>' if sha256 else ""
        files.append(f"<file name={quoteattr(name)}>{more}<url>{escape(f'http://a/{number}?a&b')}</url></file>")
    assert meta4(*files) == [
        Job(f"http://a/{n}?a&b", name, sha256, size) for n, (name, size, sha256) in enumerate(rows)
    ]


@given(entries)
def test_an_aria2_file_comes_back_as_it_was_written(rows: list[tuple[str, int | None, str | None]]) -> None:
    lines = []
    for number, (name, _, sha256) in enumerate(rows):
        lines += [f"http://a/{number}", f" out={name}", *([f" checksum=sha-256={sha256}"] if sha256 else [])]
    expected = [Job(f"http://a/{number}", name, sha256) for number, (name, _, sha256) in enumerate(rows)]
    assert items("\n".join(lines), Format.ARIA2) == expected


garbage = st.lists(
    st.sampled_from(
        ["<", ">", "/", "file", "url", "metalink", '"', "&amp;", "&", "http://a/f", "\t", "\n", " ", "=", "out"]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=40,
).map("".join)


@given(st.binary(max_size=300) | garbage.map(str.encode), st.sampled_from([None, *Format]), st.booleans())
def test_nothing_but_a_job_a_bad_line_or_a_manifest_error_comes_out(
    raw: bytes, format_: Format | None, headed: bool
) -> None:
    try:
        found = list(read(io.BytesIO(HEAD.encode() + raw if headed else raw), format_))
    except ManifestError:
        return
    for item in found:
        if isinstance(item, Job):
            check_url(item.url)


# -- Parquet


def test_without_pyarrow_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ManifestError, match="needs pyarrow"):
        list(read(io.BytesIO(b"PAR1"), Format.PARQUET))


def parquet_of(columns: Callable[[Any], dict[str, Any]]) -> io.BytesIO:
    """A file with these columns, made with pyarrow."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns(pyarrow)), file)
    file.seek(0)
    return file


def test_rows_become_jobs_and_bad_ones_are_named() -> None:
    def columns(arrow: Any) -> dict[str, Any]:
        texts = arrow.map_(arrow.string(), arrow.string())
        return {
            "url": ["http://a/x", "ftp://a/y", "http://a/z"],
            "size": [7, None, None],
            "mirrors": [["http://b/x"], None, []],
            "headers": arrow.array([[("X", "1")], None, None], texts),
        }

    first, bad, last = read(parquet_of(columns), Format.PARQUET)
    assert first == Job("http://a/x", "x", None, 7, (("X", "1"),), ("http://b/x",))
    assert str(bad).startswith("line 2: ")
    assert last == Job("http://a/z", "z")


def test_of_a_parquet_file_the_named_columns_are_read() -> None:
    file = parquet_of(lambda _: {"ID": [1], "URL": ["http://a/x"], "TEXT": ["a, b"], "size": [7.0]})
    assert list(read(file, columns={**COLUMNS, "size": "size"})) == [Job("http://a/x", "a, b", None, 7)]
    with pytest.raises(ManifestError, match="expected each of the columns url, filename once, got 'URL'"):
        list(read(parquet_of(lambda _: {"URL": ["http://a/x"]}), columns={"url": "url", "filename": "filename"}))


@pytest.mark.parametrize("columns", [{"link": ["http://a/x"]}, {"url": ["http://a/x"], "crc32": ["x"]}])
def test_other_columns_are_refused_as_a_whole(columns: dict[str, list[str]]) -> None:
    with pytest.raises(ManifestError, match="expected each of the columns"):
        list(read(parquet_of(lambda _: columns), Format.PARQUET))


def test_what_is_no_parquet_file_is_refused() -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        list(read(io.BytesIO(b"http://a/x\n" * 10), Format.PARQUET))


@pytest.mark.parametrize("header", ["", "url,headers\n", "link,headers\n"])
def test_a_row_whose_quotes_are_wrong_shows_no_header(header: str) -> None:
    row = 'https://a/x,"{"Authorization": "Bearer s3cret"}"\n'
    try:
        said = " ".join(map(str, read(io.BytesIO((header + row).encode()))))
    except ManifestError as error:
        said = str(error)
    assert "https" in said or "link" in said
    assert "s3cret" not in said
