"""A folder has one owner at a time, and is free when that one is gone."""

import os

import pytest

from train.errors import ConfigError
from train.locks import locked


def test_a_second_owner_is_told_who_the_first_one_is(tmp_path):
    with locked(tmp_path / ".lock", ConfigError):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            with locked(tmp_path / ".lock", ConfigError):
                pass
    with locked(tmp_path / ".lock", ConfigError):
        pass
