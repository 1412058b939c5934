"""Experiments as something to look at: a page, a text, pictures. Pure: reads experiments, returns text or bytes.

sheet (what there is to say, in words and cells) + race, bars, curves, still (drawings) → html, markdown, pictures.
The timeline as text and the words for figures are those of the whole comparison: ``timeline``, ``wording``.
"""
