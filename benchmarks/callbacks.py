"""What callbacks cost: each one's step beside that of a bare loop, and what it adds, in one run.

The training is `fit` one step at a time with the GRPO trainer of `train_step.py`: batch 32, responses of 16 tokens,
every number to the host. The bare loop and the loop with the callback take turns, in blocks, so that a busy moment
hits both; the ratio is the median of the blocks' ratios. Callbacks that write do so at every step, unless the name
says otherwise, into a temporary folder. To reach: at most 1.01 for the progress bar, drawn in a terminal.

    python benchmarks/callbacks.py [--blocks 40] [--steps 200]
"""

import argparse
import contextlib
import os
import pty
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import optax
from flax import nnx
from train_step import GROUP, make_batch, make_policy

from artifex_rl import GRPOConfig, GRPOTrainer
from artifex_rl.callbacks import (
    Callback,
    EarlyStopping,
    HistoryCallback,
    JAXProfiler,
    KLStop,
    ProfilingConfig,
    ProgressBarCallback,
    SampleGrid,
    TensorBoardCallback,
    WandbLoggerCallback,
    WandbLoggerConfig,
)
