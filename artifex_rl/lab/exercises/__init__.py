"""The exercises of the notebooks: one module for each, made of `artifex_rl.lab.checks`."""
