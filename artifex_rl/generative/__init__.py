"""The mathematics of generative models, as pure functions: what the trainers minimise and the explorers draw."""
