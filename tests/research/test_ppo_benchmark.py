"""The PPO benchmark: our side does the stated work, the table says what was found."""

import dataclasses
import json
import subprocess
import sys

import pytest

from models.config import DecoderConfig
from research.benchmarks import common, environments, ppo
from research.benchmarks.iteration import Work, make_prompts, make_run

TINY = DecoderConfig(
    vocab_size=17, d_model=8, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=16, head_dim=4
)


def answer(seconds, **changes):
    parts = {"rollout": 0.5 * seconds, "scoring": 0.2, "update": 0.3}
    done = {"tokens": Work().tokens, "updates": Work().updates, "parts": parts}
    return {"seconds": seconds, "cpu": 2 * seconds, **done, **changes}


class Fake:
    """A side whose iterations take the seconds of a list."""

    def __init__(self, *seconds, **changes):
        self.seconds, self.changes, self.closed = list(seconds), changes, False

    def ask(self):
        if not self.seconds:
            raise common.SideEnded("a side ended with code 9: out of memory")
        return answer(self.seconds.pop(0), **self.changes)

    def close(self):
        self.closed = True


def test_the_stated_work():
    """64 prompts of 32 tokens, 64 new tokens, one epoch, the same prompts always."""
    work = Work()
    assert (work.tokens, work.updates) == (4096, 1)
    prompts = make_prompts(work, 512)
    assert [len(p) for p in prompts] == [32] * 64
    assert make_prompts(work, 512) == prompts
    told = json.loads(json.dumps(ppo.work_of(16, "/tmp")))
    assert told["prompts"] == prompts and told["micro"] == 16
    assert told["model"] == common.MODEL


def test_an_iteration_does_that_work():
    """Every token is drawn, every update made, and the parts add up to the whole."""
    work = Work(prompts=4, prompt=3, new=5, minibatch=2, epochs=3)
    run = make_run(TINY, work, accum=2)
    for _ in range(2):
        done = run()
        assert (done["tokens"], done["updates"]) == (work.tokens, 6) == (20, 6)
        assert sum(done["parts"].values()) == pytest.approx(done["seconds"])
        assert set(done["parts"]) == set(ppo.PARTS)


def test_the_quicker_micro_batch_is_measured():
    """Each is tried, the first iteration apart; the slower one's process is ended."""
    made = {64: Fake(30.0, 2.0, 1.5), 16: Fake(40.0, 1.4, 1.8)}
    process, micro, first = ppo.choose("trl", lambda side, micro: made[micro])
    assert (process, micro, first) == (made[16], 16, 40.0)
    assert made[64].closed and not made[16].closed


def test_a_micro_batch_that_fails_is_left_out():
    """Its process is ended; that none works is an error with the reason."""
    made = {64: Fake(9.0, 2.0, 2.0), 16: Fake(9.0, 1.0, 1.0, updates=4)}
    process, micro, _ = ppo.choose("trl", lambda side, micro: made[micro])
    assert process is made[64] and micro == 64 and made[16].closed
    with pytest.raises(RuntimeError, match="trl: an iteration had 4 updates"):
        ppo.choose("trl", lambda side, micro: Fake(9.0, 1.0, 1.0, updates=4))


@pytest.mark.parametrize("change", [{"tokens": 4095}, {"updates": 4}])
def test_a_side_that_does_other_work_is_not_measured(change):
    """It is named with what it did, the others are measured all the same."""
    sides = {"salign": Fake(1.0, 2.0), "trl": Fake(4.0, 5.0, **change)}
    answers, failed = ppo.measure(sides, 2)
    assert list(answers) == ["salign"] and len(answers["salign"]) == 2
    ((name, value),) = change.items()
    assert f"{value} {name}" in failed["trl"]


def test_the_table_compares_round_by_round():
    """The ratio is the median of the rounds' own; a side that failed says why."""
    sides = {
        "salign": Fake(1.0, 2.0, 4.0),
        "trl": Fake(3.0, 4.0, 20.0),
        "tunix": Fake(7.0),
    }
    answers, failed = ppo.measure(sides, 3)
    found = ppo.summary(answers)
    assert found["trl"]["ratio"] == {
        "median": 3.0, "least": 2.0, "most": 5.0, "target": 2.0,
    }  # fmt: skip
    assert found["trl"]["median"] == 4.0 and "ratio" not in found["salign"]
    for of in found.values():
        of.update(micro=64, first=30.0)
    table = ppo.table(
        {
            "sides": found,
            "not_run": failed,
            "versions": {"trl": {"trl": "1.9.2"}},
            "load": [0.1, 2.0],
        }
    )
    assert "3.00x (2.00, 5.00)" in table and "trl 1.9.2" in table
    assert "tunix   not run: a side ended with code 9: out of memory" in table


def test_what_cannot_be_built_is_said(tmp_path, monkeypatch):
    """pip's own words, without a stamp that would make it look built."""
    peer = environments.PEERS["trl"]

    def run(command, stdout, stderr):
        print("No matching distribution", file=stdout, flush=True)
        return subprocess.CompletedProcess(command, int("pip" in command))

    monkeypatch.setattr(environments.subprocess, "run", run)
    with pytest.raises(environments.NotBuilt, match="trl==1.9.2.*No matching dist"):
        environments.build(peer, tmp_path)
    assert not environments.built(peer, tmp_path)


def test_an_environment_is_built_once(tmp_path, monkeypatch):
    """The same request finds it; other pins do not."""
    peer = environments.PEERS["tunix"]
    stamp = tmp_path / peer.name / environments.STAMP
    stamp.parent.mkdir()
    content = {"request": environments.request(peer), "versions": {"jax": "0.10.2"}}
    stamp.write_text(json.dumps(content))
    assert environments.built(peer, tmp_path)
    assert environments.versions(peer, tmp_path) == {"jax": "0.10.2"}
    assert not environments.built(peer._replace(packages=("jax==0.9",)), tmp_path)


def test_a_side_that_ends_says_what_it_said(tmp_path):
    """The last lines of its log, when it ends before or in place of an answer."""
    log = tmp_path / "log"
    with pytest.raises(common.SideEnded, match="code 3: cannot import it"):
        common.Side([sys.executable, "-c", "import sys; print('cannot import it', "
                     "file=sys.stderr); sys.exit(3)"], log)  # fmt: skip
    side = common.Side([sys.executable, "-c", "print('{}', flush=True)"], log)
    with pytest.raises(common.SideEnded, match="code 0"):
        side.ask()
    side.close()


def test_every_peer_has_its_script_and_versions():
    """Pins of all packages by name; the packages asked for are among them."""
    for peer in environments.PEERS.values():
        assert (environments.PINS / peer.script).exists()
        pins = dict(pin.split("==") for pin in environments.request(peer))
        assert set(peer.shown) <= set(pins)
    assert set(ppo.TARGETS) == set(environments.PEERS)
    assert dataclasses.asdict(Work()).keys() <= ppo.work_of(64, "/tmp").keys()
