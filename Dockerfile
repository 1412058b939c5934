# One image for every role but Redis: pools are compared fairly only if the bits they run are the same.

FROM python:3.13-slim-trixie AS build
COPY requirements/runtime.txt /tmp/runtime.txt
RUN python -m venv --without-pip /venv \
 && pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/runtime.txt
# A shell file mode such as 0600 (git under umask 077) would lock the unprivileged user out: give reading to all.
COPY . /app
RUN printf '#!/venv/bin/python\nfrom producer.cli import main\n\nmain()\n' >/venv/bin/producer \
 && chmod -R a+rX,go-w /app && chmod 755 /venv/bin/producer \
 && /venv/bin/python -m compileall -q /app

FROM python:3.13-slim-trixie
# Celery takes a group without a name for a security problem. The volumes take their owner from these folders. The group may write, so that a run under
# another user id (DOWNLOADS_UID, for a bind mount) still shares them.
RUN groupadd --gid 10001 downpour && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp downpour \
 && install -d -o 10001 -g 10001 -m 2775 /downloads /keys /flower
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    HOME=/tmp
WORKDIR /app
USER 10001:10001
CMD ["producer", "--help"]
