"""Bad command lines and configs end in one line on stderr and exit code 2."""

import subprocess
import sys

import pytest
from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train import cli
from train.errors import ConfigError, Diverged, Preempted

CONFIG = """
from ml_collections import config_dict
VARIANTS = ("mini", "paper")
def get_config(variant="mini"):
    c = config_dict.ConfigDict()
    c.steps = 10 if variant == "mini" else 1000
    c.data = config_dict.placeholder(str)
    c.optimizer = config_dict.create(lr=1e-3, name="adamw")
    c.levels = (1, 2)
    c.resume = False
    return c
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(CONFIG)
    return str(path)


def call(capsys, *arguments, main=None, define_flags=lambda values: None):
    seen = []

    def record(config, values):
        seen.append((config.to_dict(), values))

    code = cli.run(main or record, ["prog", *arguments], define_flags)
    out, err = capsys.readouterr()
    return code, seen[0] if seen else None, err


def test_overrides_reach_main_with_the_type_of_the_default(capsys, config):
    code, (values, given_flags), err = call(
        capsys,
        f"--config={config}:paper",
        "--config.data=FILE",
        "--config.optimizer.lr=1",
        "--config.levels=(3,4)",
        "--config.resume",
        "--workdir=w",
        "--max-time=3",
        define_flags=lambda v: flags.DEFINE_integer("max_time", 0, "", flag_values=v),
    )
    assert (code, err) == (0, "")
    assert values == {
        "steps": 1000,
        "data": "FILE",
        "optimizer": {"lr": 1.0, "name": "adamw"},
        "levels": (3, 4),
        "resume": True,
    }
    assert given_flags.workdir == "w" and given_flags.max_time == 3


def test_two_runs_in_one_process_do_not_share_flags(capsys, config):
    first = call(capsys, f"--config={config}", "--config.steps=3")
    second = call(capsys, "--config", config)
    assert first[1][0]["steps"] == 3 and second[1][0]["steps"] == 10


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--config: missing; expected --config=FILE.py"),
        (["--config"], "--config: missing"),
        (["--config=X/nothing.py"], "--config: no file 'X/nothing.py'"),
        (["--config=X/d.py"], "no file 'X/d.py'; did you mean 'X/c.py'?"),
        (
            ["--config=X/c.py:papre"],
            "no variant 'papre'; expected one of 'mini', 'paper'",
        ),
        (
            ["--config=X/c.py", "--config.lr=1"],
            "unknown key; did you mean 'optimizer.lr'?",
        ),
        (["--config=X/c.py", "--config.stesp=1"], "unknown key; did you mean 'steps'?"),
        (["--config=X/c.py", "--config.steps=1.5"], "--config.steps=1.5"),
        (
            ["--config=X/c.py", "--config.optimizer.lr=fast"],
            "--config.optimizer.lr=fast",
        ),
        (["--config=X/c.py", "--config.resume=perhaps"], "--config.resume=perhaps"),
        (["--config=X/c.py", "--config.levels=(1,"], "--config.levels=(1,"),
        (
            ["--config=X/c.py", "--config.optimizer=1"],
            "config.optimizer: is a group of keys",
        ),
        (["--config=X/c.py", "--config.steps"], "--config.steps"),
        (["--config=X/c.py", "--config.steps.x=1"], "config.steps.x: unknown key"),
        (["--config=X/c.py", "--wrokdir=1"], "Did you mean: workdir"),
        (["--config=X/c.py", "stray"], "unexpected argument 'stray'"),
        (["--config=X"], "--config: no file"),
    ],
)
def test_bad_command_lines_are_one_line(capsys, config, arguments, message):
    folder = config.removesuffix("/c.py")
    arguments = [a.replace("X", folder) for a in arguments]
    code, seen, err = call(capsys, *arguments)
    assert code == 2 and seen is None
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message.replace("X", folder) in err


@pytest.mark.parametrize(
    "source, message",
    [
        ("x = 1", "has no function get_config"),
        ("def get_config(): return 3", "ConfigDict"),
        ("def get_config(:", "bad.py:1: SyntaxError"),
        ("\n1 / 0", "bad.py:2: ZeroDivision"),
        ("def get_config():\n  raise TypeError('no')", "bad.py:2: TypeError: no"),
        ("import nothing_here", "bad.py:1: ModuleNotFoundError"),
        ("\0", "bad.py"),
    ],
)
def test_bad_config_files_are_one_line_with_the_place(
    capsys, tmp_path, source, message
):
    (tmp_path / "bad.py").write_text(source)
    code, _, err = call(capsys, f"--config={tmp_path / 'bad.py'}")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_a_variant_of_a_file_without_variants_is_an_error(capsys, tmp_path):
    (tmp_path / "c.py").write_text("def get_config(): return None")
    code, _, err = call(capsys, f"--config={tmp_path / 'c.py'}:mini")
    assert code == 2 and "takes no variant, got 'mini'" in err


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.text(alphabet="-=.:config stepslr01'\"[](),é\n", max_size=16)
        | st.builds("--config.{}={}".format, st.text(max_size=5), st.text(max_size=5)),
        max_size=3,
    )
)
def test_any_arguments_run_or_end_in_one_line(capsys, config, arguments):
    code, seen, err = call(capsys, f"--config={config}", *arguments)
    assert (code == 2 and err.startswith("error: ") and err.count("\n") == 1) or (
        code == 0 and err == ""
    )


class Wrong(ValueError):
    user_error = True


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ConfigError("config.x: bad"), 2, "error: config.x: bad"),
        (Wrong("a\nb"), 2, "error: a b"),
        (Diverged("step 3"), 3, "error: step 3"),
        (Preempted("step 4"), 75, "stopped: step 4"),
        (KeyboardInterrupt(), 130, "stopped: interrupted"),
        (SystemExit(7), 7, ""),
    ],
)
def test_errors_have_their_exit_codes(capsys, config, error, code, line):
    def main(config, values):
        raise error

    got, _, err = call(capsys, f"--config={config}", main=main)
    assert (got, err.strip()) == (code, line)


def test_a_bug_keeps_its_traceback(capsys, config):
    def main(config, values):
        raise ValueError("inner")

    code, _, err = call(capsys, f"--config={config}", main=main)
    assert code == 1 and "Traceback" in err and "ValueError: inner" in err


def test_help_shows_the_flags_and_exits_well(capsys, config):
    assert call(capsys, "--help")[0] == 0
    assert call(capsys, "--help", f"--config={config}")[0] == 0


def test_a_process_exits_with_the_code(config):
    code = "from train.cli import run_main\nrun_main(lambda config, values: 75)"
    for arguments, expected in [([f"--config={config}"], 75), (["--config=no.py"], 2)]:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == expected and "Traceback" not in done.stderr
