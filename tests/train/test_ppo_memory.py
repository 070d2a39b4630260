"""What a run of PPO keeps on the devices is what its plan counts."""

import pytest
from helpers.devices import run_on_devices

# Minutes of compiling. Every day has in test_ppo_lora that a state takes the arrays it
# starts from, and in test_sampler_sharing that prompts go when they have entered.
pytestmark = pytest.mark.slow

# What no plan names: counters, metrics, and of each slot its tokens.
SLACK = 512


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """What helpers/live_ppo.py found on 8 simulated devices, 2 x 4."""
    return run_on_devices(8, "live_ppo.py", tmp_path_factory.mktemp("live"))


@pytest.mark.parametrize("name", ["prefill", "update"])
def test_functions_have_beside_them_what_the_plan_counts(live, name):
    """Equality, on every device and in both iterations, to less than any part.

    So no role starts from arrays that stay, none lies whole on the first device, and
    prompts that have entered are gone before the next are prefilled.
    """
    planned, calls = live["planned"][name], live["found"][name]
    assert len(calls) == {"prefill": 8, "update": 2}[name]
    assert min(size for size in planned.values() if size) > 2 * SLACK
    for call in calls:
        for size in call:
            assert 0 <= size - sum(planned.values()) < SLACK


def test_prompts_lie_beside_decoding_only_while_some_wait(live):
    """Equality: the plan's sum while responses wait for slots, later less its prompts.

    Three responses to a prompt, four slots: a prompt waits from the start.
    """
    planned, calls = live["planned"]["decode step"], live["found"]["decode step"]
    total = sum(planned.values())
    for call, extra in ((calls[0], 0), (calls[-1], planned["prompts"])):
        for size in call:
            assert 0 <= size - (total - extra) < SLACK
