"""One download, by URL or by hundreds: no Celery, no Redis, no pool. Start reading in ``fetch``."""
