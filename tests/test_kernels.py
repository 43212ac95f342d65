"""The kernels that nbval starts: none takes a port that somebody else may have by the time it binds it."""

import sys

import nbval.kernel
import pytest


@pytest.mark.slow
def test_two_kernels_of_nbval_run_side_by_side_and_listen_on_files():
    started = [nbval.kernel.start_new_kernel(kernel_name=nbval.kernel.CURRENT_ENV_KERNEL_NAME) for _ in range(2)]
    try:
        if sys.platform == "linux":
            assert [manager.transport for manager, _ in started] == ["ipc", "ipc"]
            assert len({manager.ip for manager, _ in started}) == 2
        for number, (_, client) in enumerate(started):
            reply = client.execute_interactive(f"seen = {number}", timeout=60)
            assert reply["content"]["status"] == "ok"
    finally:
        for manager, client in started:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
