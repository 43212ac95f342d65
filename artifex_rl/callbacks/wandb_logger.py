"""Metrics for Weights & Biases, which is not waited for: without a key or a network they are kept on disk."""

from __future__ import annotations

import dataclasses
import http.client
import netrc
import os
import shutil
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from artifex_rl.callbacks.logger import MetricLogger
from artifex_rl.callbacks.watch import check_count
from artifex_rl.data.extras import require
from artifex_rl.notices import warn_caller

#: Seconds: to see whether the server answers, for it to begin a run, and to upload the rest of one at its end.
REACH, BEGIN, FINISH = 5.0, 30.0, 60.0
#: Bytes: with fewer of them free a disk is full.
ROOM = 2**16
#: The values of WANDB_MODE, with the names that older versions had.
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}


@dataclasses.dataclass(frozen=True)
class WandbLoggerConfig:
    """What `WandbLoggerCallback` tells Weights & Biases.

    Args:
        project: where the run belongs.
        entity: user or team. None: the default of the account.
        name: of the run. None: W&B thinks of one.
        tags: to find it by.
        notes: about it, in a sentence or more.
        config: settings of the run, to sort runs by.
        mode: "online", "offline" (written to disk, for `wandb sync`) or "disabled". None: the environment's
            `WANDB_MODE`, or else "online".
        log_every_n_steps: 1 or more; validations are always logged.
        dir: the folder that W&B's folder `wandb` lies in. None: W&B's default, which is here.

    Raises:
        ValueError: a value is out of its range.
    """

    project: str
    entity: str | None = None
    name: str | None = None
    tags: Sequence[str] = ()
    notes: str | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mode: str | None = None
    log_every_n_steps: int = 1
    dir: str | os.PathLike | None = None

    def __post_init__(self):
        if not isinstance(self.project, str) or not self.project:
            raise ValueError(f"project: got {self.project!r}, needs a name")
        if isinstance(self.tags, str):
            raise ValueError(f"tags: got {self.tags!r}, needs a list of them")
        if self.mode is not None and self.mode not in ("online", "offline", "disabled"):
            raise ValueError(f"mode: got {self.mode!r}, needs 'online', 'offline', 'disabled' or None")
        check_count("log_every_n_steps", self.log_every_n_steps)


class WandbLoggerCallback(MetricLogger):
    """Logs every metric to a run of Weights & Biases, which begins with the first step.

    Online without a key, or where the server does not answer, the run is offline instead, with one warning; nothing
    is asked for in a prompt. Whatever W&B fails at later is one warning, too: training goes on in any case.

    Steps only go up. A run that goes on from a checkpoint goes on in W&B, too (its id is a part of the checkpoint);
    steps that it makes once more are not logged once more.

    Args:
        config: a `WandbLoggerConfig`.

    Attributes:
        run: the `wandb.Run` while training runs, for logging more; None before and after.
        run_id: of the last run. `mode`: "online", "offline" or "disabled", as it turned out.

    Raises:
        ImportError: wandb is not installed; the message has the command that installs it.
    """

    survives: ClassVar[tuple[type[Exception], ...]] = (Exception,)

    def __init__(self, config: WandbLoggerConfig):
        super().__init__(config.log_every_n_steps)
        self._wandb = require("wandb", extra="wandb")
        self.config = config
        self.run: Any = None
        self.run_id: str | None = None
        self.mode: str | None = None

    def open(self, trainer: Any, step: int) -> None:
        self.mode = self.config.mode or MODES.get(os.environ.get("WANDB_MODE", ""), "online")
        problem = self._offline_because() if self.mode == "online" else None
        if self.mode == "online" and problem is None:
            try:
                self.run = self._init()
            except Exception as error:  # of many kinds: a wrong key, no such team, no answer
                problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        if problem is not None:
            self.mode = "offline"
            warn_caller(self, f"offline, because {problem}. `wandb sync` uploads the run later")
        if self.run is None:
            self.run = self._init()
        self.run_id = self.run.id

    def write(self, step: int, metrics: dict[str, float]) -> None:
        if self.run is not None:
            self.run.log(metrics, step=step)

    def close(self, failed: bool) -> None:
        run, self.run = self.run, None
        if run is None:
            return
        run.finish(exit_code=int(failed))
        if self.mode == "offline" and shutil.disk_usage(run.dir).free < ROOM:  # about which W&B says nothing
            warn_caller(self, f"the disk of {run.dir} is full: the end of the run may be missing")

    def rewind(self, step: int) -> bool:
        if step == 0:  # from the beginning: that is another run
            self.run_id = None
        return step == 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.run_id = state["run_id"]

    def _init(self) -> Any:
        wanted = {"init_timeout": BEGIN, "finish_timeout": FINISH, "reinit": "create_new"}
        known = getattr(self._wandb.Settings, "model_fields", wanted)
        config = self.config
        return self._wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name,
            tags=tuple(config.tags),
            notes=config.notes,
            config=dict(config.config),
            mode=self.mode,
            dir=None if config.dir is None else os.fspath(config.dir),
            id=self.run_id,
            resume="allow" if self.run_id and self.mode == "online" else None,
            settings=self._wandb.Settings(**{name: value for name, value in wanted.items() if name in known}),
        )

    def _offline_because(self) -> str | None:
        """What is in the way of being online, as far as can be told without asking anybody; None if nothing is."""
        settings = self._wandb.setup().settings
        if not _has_key(settings):
            return "there is no API key (`wandb login` stores one)"
        if not _answers(settings.base_url):
            return f"{settings.base_url} does not answer"
        return None


def _has_key(settings: Any) -> bool:
    """Whether W&B would find a key without a prompt."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    if getattr(settings, "api_key", None) or getattr(settings, "identity_token_file", None):
        return True
    host = urllib.parse.urlsplit(settings.base_url).hostname
    for path in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        try:
            if host in netrc.netrc(os.path.expanduser(path)).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(url: str) -> bool:
    """Whether a server answers there, whatever it says; known within five seconds."""
    answered = threading.Event()

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACH).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not isinstance(getattr(error, "reason", error), ssl.SSLError):
                return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # a name server that is silent cannot be given a limit
    thread.start()
    thread.join(REACH)
    return answered.is_set()
