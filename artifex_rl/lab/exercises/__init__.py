"""The exercises of the notebooks: one module for each. `artifex_rl.lab.checks.check` finds them by name.

An exercise is made of what its notebook shows (task, stub, solution) and of what its check knows: the library's own
function, a generator of cases, properties, and mistakes with a hint each.
"""

#: The module of each notebook's exercises.
TOPICS = {
    "01": "returns_and_advantages",
    "02": "reinforce",
    "03": "ppo",
    "04": "grpo",
    "05": "dpo",
    "06": "rewards",
    "07": "diffusion",
    "08": "latents",
    "09": "discriminators",
    "10": "flows",
    "11": "text_rewards",
    "12": "energy",
    "13": "tracking",
}
