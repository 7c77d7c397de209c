"""What is kept on disk between processes goes to a folder of the tests'."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory):
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
