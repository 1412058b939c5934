"""``poolbench doctor``: asks live workers and their broker for settings that do not do what they seem to."""
