"""The origin with every fault: each path is a way in which real servers, proxies and attackers break a download.

`python -m tests.hostile_origin` serves them beside the paths of `origin/server.py`, where four of them live.

Bytes that stop, crawl or do not add up (framing.py):
/faults/cut-body              Content-Length of the whole, half of the body, then the end
/faults/cut-chunked           half of the body chunked, then the end without the final chunk
/faults/cut-headers           the end in the middle of a header line
/faults/drip-body             one body byte each every= seconds (0.5)
/faults/drip-headers          one header byte each every= seconds (0.5)
/faults/stall                 headers, after= body bytes (0), then nothing, for ever
/faults/slow-start/SECONDS    nothing for SECONDS, then the honest file
/faults/no-length             neither Content-Length nor chunks: the end of the connection ends the body
/faults/empty-no-length       the same with an empty body
/faults/chunked               the whole body in correct chunks
/faults/wrong-length-short    Content-Length is half of what is sent
/faults/wrong-length-long     the whole body, but Content-Length promises 1,024 bytes more
/faults/reset                 a TCP reset in the middle of the body
/faults/bad-headers           a greeting of another protocol instead of a status line
/faults/huge-headers          kib= KiB of headers (1024)

Content and ranges that lie (ranges.py):
/faults/resume                first times= GETs (1) of a key= cut in the middle; honest ranges, strong ETag
/faults/resume-date           the same with Last-Modified as the only validator
/faults/changed-content       GET number n of a key= is edition n with its own ETag; the first is cut in the middle
/faults/changed-no-etag       the same without any validator
/faults/changed-weak-etag     the same with one weak ETag for all editions
/faults/changed-ignores-if-range  the same, but 206 of the new edition whatever If-Range says
/faults/lying-range           206 of a part that starts elsewhere and says so
/faults/lying-total           206 of the right part, with 1,000 bytes too many as the total
/faults/range-ignored         200 and the whole file, whatever Range says
/faults/range-416             416 to each Range request

Answers other than the file (answers.py):
/faults/status/CODE           that status, from 200 to 599
/faults/flaky/STATUS          first times= GETs (1) of a key= get STATUS, later ones the file
/faults/retry-after/SECONDS   the same with status= (503) and Retry-After, as a date if form=date
/faults/redirect-loop         a redirect to itself
/faults/redirect-chain/N      N redirects, then the file
/faults/redirect-to           status= (302) with url= as Location, verbatim
/faults/disposition           the file with value= as Content-Disposition, verbatim (percent-decoded bytes)
/faults/encoded               the file gzipped, although nobody accepted that
/faults/bomb                  size= zero bytes (200,000,000) gzipped to a thousandth

Answers of real servers that are odd (quirks.py):
/faults/length-list           `Content-Length: N, N`
/faults/length-twice          Content-Length twice, with the same number
/faults/many-headers          151 lines of headers
/faults/bare-lf               lines that end without a carriage return
/faults/folded                headers that go on in the next line, Content-Length among them
/faults/terse                 no reason, lower case, no blank after the colon, an empty header
/faults/junk-before-length    a line that is no header, before Content-Length
/faults/junk-after-length     the same after it
/faults/blank-before-colon    `Content-Length : N`
/faults/icy                   `ICY 200 OK` as the status line
/faults/informational         100 and 103 before the answer
/faults/odd-chunks            chunk sizes with zeros, extensions and blanks; trailers
/faults/chunks-and-length     correct chunks, and another Content-Length
/faults/gzip-chunks           `Transfer-Encoding: gzip, chunked`, which nobody asked for
/faults/kept-and-closed       `Connection: keep-alive`, then the end of the connection
/faults/http10                HTTP/1.0 without a length
/faults/redirect-blank        a Location with a blank in it, and some around it
/faults/redirect-utf8         a Location in UTF-8
/faults/redirect-query        a Location that is only a query
/faults/redirect-empty        an empty Location
/faults/redirect-nowhere      302 without Location
/faults/redirect-cookie       a cookie with the redirect; without it the target answers 403
/faults/redirect-self         a cookie and a redirect to the same URL, until the cookie comes back
/faults/login.bin             a redirect to a page where one signs in
/faults/part-unasked          206 of the whole file, whatever was asked for
/faults/part-unsaid           the same without Content-Range
/faults/not-modified          304 to the first GET of a key=, whatever was asked for
/faults/accepted              202 and Retry-After to the first GET of a key=
/faults/forbidden-for-now     the same with 403
/faults/challenge             202 without Retry-After
/faults/escapes               the file, if the rest of the path comes byte by byte as it was signed

Where there is a file it is `Entity(name, size, edition)` of origin/content.py: `name=` (the fault's own name),
`size=` (64 KiB), edition 0 unless said otherwise. Path segments beyond a fault's own are ignored, so a
URL may end in any file name. `key=` is any text that the requests of one download share; only GETs
count. The faults about ranges take an optional `key=`: its first GET without Range is cut in the
middle, so that a client has a reason to resume.
"""

import re

from tests.hostile_origin import answers, framing, quirks, ranges  # noqa: F401 - importing them adds their paths

ROW = re.compile(r"^(/\S*)\s{2,}(\S.*)$", re.MULTILINE)


def table(docstring: str | None) -> dict[str, str]:
    """Read the rows of a table of paths: a path, two spaces or more, a description."""
    return dict(ROW.findall(docstring or ""))
