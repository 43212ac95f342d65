"""What a callback is: an object whose hooks a training loop calls, and what of it a checkpoint keeps."""

from __future__ import annotations

from typing import Any


class Callback:
    """Hooks that do nothing: a subclass writes those that it needs. Any object with some of them is a callback, too.

    `Trainer.fit(data, steps, callbacks=[...])` calls them in the order of the list. A loop written by hand calls
    `on_train_begin`, `on_train_batch_end` and `on_train_end`, which is all that the callbacks of this package need.

    - A hook stops the training with `trainer.should_stop = True`; a loop written by hand has to look at it.
    - What a hook raises ends the training, with a note that names the callback and the hook. Then `on_exception` and
      `on_train_end` of every callback whose `on_train_begin` was called are called, whatever each of them raises.
    - `trainer.callbacks` are those of the `fit` that is running, so that one can find the others, and
      `trainer.end_step` is the step at which it ends, or None. A loop written by hand may set both.
    - A checkpoint may be restored in the `on_train_begin` of another callback, before or after that of this one. So
      what depends on `trainer.step` or on `load_state_dict` waits for the first step, and `on_train_begin` forgets
      nothing.
    """

    def on_train_begin(self, trainer: Any) -> None:
        """Training is about to begin, or to go on."""

    def on_train_end(self, trainer: Any) -> None:
        """Training is over: all steps are done, it was stopped, or it failed. Called once for each begin."""

    def on_train_batch_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        """A step is done.

        Args:
            trainer: `trainer.step` steps lie behind it. That is `step + 1`, but more where one compiled call made
                many steps (`steps_per_call`): the model is then that of the end of the call, and only its last step
                is one whose state can be seen.
            metrics: of this step, floats by name, on the host already: to look at them waits for no device.
            step: which one, from 0, counted over all runs of this trainer. A loop by hand may count as it likes, but
                upwards.
        """

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        """The first step of a pass through the data is next, or one within it, where a run begins there.

        A single batch has no epochs.
        """

    def on_epoch_end(self, trainer: Any, epoch: int) -> None:
        """The last step of a pass is done, and validated. A run that ends within a pass does not call it."""

    def on_validation_end(self, trainer: Any, metrics: dict[str, float], step: int) -> None:
        """The model of after `step` was validated: `metrics` has "val_loss" and others, each after "val_".

        Called after `on_train_batch_end` of that step.
        """

    def on_checkpoint(self, trainer: Any) -> None:
        """`fit` only: all hooks of the step that lies behind, or of the steps of one call, were called, of everyone.

        So the model and all callbacks are of one moment, and a checkpoint that is taken now is whole.
        `trainer.fitting` says whether this hook will be called.
        """

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """Training failed with this error, a KeyboardInterrupt perhaps; `on_train_end` will follow."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: numbers, strings, None, lists and dictionaries of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
