"""The shared checks say what they saw, as a test does."""

import pytest

pytest.register_assert_rewrite("tests.fault.given")
