"""Many small downloads at once in one thread, through libcurl's multi interface.

The same attempt as ``download.fetch``, told of its bytes instead of asking for them.
"""
