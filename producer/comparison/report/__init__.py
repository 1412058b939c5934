"""Experiments as something to look at: a page, a text, pictures. Pure: reads experiments, returns text or bytes.

sheet (what there is to say, in words and cells) + charts, timeline (drawings) → html, markdown, pictures.
"""
