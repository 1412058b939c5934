"""Experiments as something to look at: a page, a text, pictures. Pure: reads experiments, returns text or bytes."""
