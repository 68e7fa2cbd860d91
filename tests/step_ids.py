"""Steps ids of the installed package: a script for an environment that has nothing but the wheel.

``python step_ids.py`` takes all ids, ``python step_ids.py ID ...`` those; the last line is their number.
"""

import sys

import gymnasium

import preserve_gym

assert "site-packages" in preserve_gym.__file__, preserve_gym.__file__
names = sys.argv[1:] or sorted(name for name in gymnasium.registry if name.startswith("preserve/"))
for name in names:
    options = {"split": "test"} if gymnasium.spec(name).kwargs else {"workload": {"horizon_s": 600.0}}
    env = gymnasium.make(name, **options)
    observation, info = env.reset(seed=0)
    for _ in range(3):
        observation, *_ = env.step(env.action_space.sample())
    assert observation in env.observation_space, name
    print(name, flush=True)
print(len(names))
