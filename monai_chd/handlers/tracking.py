"""What an experiment tracker is told at the end of a run besides the curves: settings, figures with intervals, files.

MONAI's MLFlowHandler, which `--tracking mlflow` adds to a config, opens the run and tells it losses and validation metrics.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.metrics.wording import main_figures

logger = logging.getLogger(__name__)


class Tracked:
    """Tells MLflow what a run left, when an engine that MONAI's MLFlowHandler listens to has ended. Without one nothing is done.

    Attach it behind the handlers that write the files.

    Args:
        files: to keep with the run, those that are there.
        params: settings of the model.
        metrics: metrics.json of an evaluation; its figures are told with both ends of their intervals and the number of cases.
        close: end the run; MONAI leaves that of an evaluation open, and the next training would go on in it.

    Raises:
        UserError: the store cannot be written, when the engine ends.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        params: Mapping[str, Any] | None = None,
        metrics: str | Path | None = None,
        *,
        close: bool = False,
    ) -> None:
        self.files, self.params, self.metrics = [Path(path) for path in files], dict(params or {}), metrics
        self.close = close
        self._client: Any = None
        self._run: Any = None

    def attach(self, engine: Engine) -> None:
        """Listen to an engine."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._note_run)
        engine.add_event_handler(Events.COMPLETED, self.tell)

    def _note_run(self, engine: Engine) -> None:
        """Remember the run, which the tracker may have closed by the time that all is there to tell."""
        if self._run is None and (tracker := tracker_of(engine)) is not None and tracker.cur_run is not None:
            self._client, self._run = tracker.client, tracker.cur_run

    @bare_mistakes()
    def tell(self, engine: Engine) -> None:
        """Log everything to the run of the engine's tracker."""
        if self._run is None:
            return
        client, run = self._client, self._run.info.run_id
        try:
            known = client.get_run(run).data.params
            for key, value in self.params.items():
                if key not in known:
                    client.log_param(run, key, json.dumps(value, default=lambda part: type(part).__name__)[:500])
            for name, value in figures_of(self.metrics).items():
                client.log_metric(run, name, value)
            for path in self.files:
                if path.is_file():
                    client.log_artifact(run, str(path))
            if self.close:
                client.set_terminated(run)
        except Exception as error:
            if not type(error).__module__.startswith(("mlflow", "sqlalchemy")) and not isinstance(error, OSError):
                raise
            said = str(error).strip().splitlines()[0]
            raise UserError(
                f"MLflow: the tracking store cannot be written ({said}); mend it, or leave out --tracking"
            ) from None
        logger.info(f"tracked by MLflow: run {self._run.info.run_name}")


def figures_of(metrics: str | Path | None) -> dict[str, float]:
    """Figures of an evaluation by the names that they have in MLflow; all of them are in metrics.json, which goes along."""
    if metrics is None or not Path(metrics).is_file():
        return {}
    overall = json.loads(Path(metrics).read_text("utf-8"))["result"]["overall"]
    found = {"test_cases": float(overall["accuracy"]["n"])}
    for name, one in main_figures(overall).items():
        found |= {f"test_{name}": one["value"], f"test_{name}_95_low": one["low"], f"test_{name}_95_high": one["high"]}
    return found


def tracker_of(engine: Engine) -> MLFlowHandler | None:
    """The MLFlowHandler that listens to an engine; Ignite has no other way to ask for it."""
    for handlers in engine._event_handlers.values():
        for handler, *_ in handlers:
            owner = getattr(getattr(handler, "__wrapped__", handler), "__self__", None)
            if isinstance(owner, MLFlowHandler):
                return owner
    return None
