"""Reinforcement learning: pure maths (`returns`, `losses`) and what is built on it."""
