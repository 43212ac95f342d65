"""Kernels: nbval's have names of their own and every processor; the lab's compile at the level that suits lessons."""

import ctypes
import os
import subprocess
import sys
import tempfile

import nbval.kernel
import pytest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "--xla_backend_optimization_level=1"),
        ("--xla_cpu_max_isa=AVX2", "--xla_cpu_max_isa=AVX2 --xla_backend_optimization_level=1"),
        ("--xla_backend_optimization_level=3", "--xla_backend_optimization_level=3"),
    ],
)
def test_the_lab_compiles_at_the_first_level_unless_another_was_asked_for(before, after):
    command = [sys.executable, "-c", "import os, artifex_rl.lab; print(os.environ['XLA_FLAGS'])"]
    found = subprocess.run(command, env=os.environ | {"XLA_FLAGS": before}, capture_output=True, text=True)
    assert found.stdout.strip() == after, found.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"PJRT_NPROC": "1"}),
        ({"PJRT_NPROC": "4"}, {"PJRT_NPROC": "4"}),
        ({"NPROC": "3"}, {"NPROC": "3"}),
    ],
)
def test_the_lab_computes_in_one_thread_unless_another_number_was_asked_for(before, after):
    names = ("PJRT_NPROC", "NPROC")
    code = f"import os, artifex_rl.lab; print({{name: os.environ[name] for name in {names} if name in os.environ}})"
    environment = {name: value for name, value in os.environ.items() if name not in names} | before
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(after), found.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says what a process's threads are called")
@pytest.mark.parametrize(
    ("before", "threads"),
    [({}, 2), ({"PJRT_NPROC": "1"}, 1), ({"PJRT_NPROC": "1", "ARTIFEX_RL_PJRT_NPROC": "1"}, 2)],
    ids=["nothing", "one", "what a server that the lab has started hands on"],
)
def test_two_trainings_at_a_time_have_a_thread_each_unless_another_number_was_asked_for(before, threads):
    """Counted: XLA's threads of this process, once it has computed."""
    code = """
from pathlib import Path
from artifex_rl.lab import train_two_at_a_time
train_two_at_a_time()
import jax
jax.numpy.ones(3).block_until_ready()
print(sum("XLAEigen" in task.read_text() for task in Path("/proc/self/task").glob("*/comm")))
"""
    names = ("PJRT_NPROC", "NPROC", "ARTIFEX_RL_PJRT_NPROC")
    environment = {name: value for name, value in os.environ.items() if name not in names} | before
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(threads), found.stderr


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="only glibc has arenas")
def test_all_threads_of_the_lab_allocate_from_two_arenas():
    """Counted by the C library itself, after six threads that hold memory at the same time."""
    code = """
import ctypes, sys, threading
import artifex_rl.lab
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
meet = threading.Barrier(6)
def hold():
    assert libc.malloc(ctypes.c_size_t(1000))
    meet.wait()
threads = [threading.Thread(target=hold) for _ in range(6)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file), libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="))
"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, os.path.join(folder, "arenas.xml")]
        found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() in ("1", "2"), found.stdout + found.stderr


def test_importing_the_lab_computes_nothing_so_that_what_it_asks_of_xla_still_counts():
    code = "import artifex_rl.lab, jax._src.xla_bridge as bridge; assert not bridge.backends_are_initialized()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_two_kernels_of_nbval_run_side_by_side_and_listen_on_files():
    started = [nbval.kernel.start_new_kernel(kernel_name=nbval.kernel.CURRENT_ENV_KERNEL_NAME) for _ in range(2)]
    try:
        if sys.platform == "linux":
            assert [manager.transport for manager, _ in started] == ["ipc", "ipc"]
            assert len({manager.ip for manager, _ in started}) == 2
        for number, (_, client) in enumerate(started):
            looked = f"seen, here = {number}, sorted(__import__('os').sched_getaffinity(0))"
            reply = client.execute_interactive(looked, timeout=60, user_expressions={"here": "here"})["content"]
            assert reply["status"] == "ok"
            if sys.platform == "linux":
                assert reply["user_expressions"]["here"]["data"]["text/plain"] == str(sorted(os.sched_getaffinity(0)))
    finally:
        for manager, client in started:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
