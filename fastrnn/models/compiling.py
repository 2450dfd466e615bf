"""What `compile` says about a model, kept until it is first used, and everything that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import optimizers, registry
from ..layers.layer import Layer
from ..params import Parameter, trainable_version
from ..registry import serialize
from ..states import StateStore
from .network import Network, Plan
from .objective import Objective, check_names
from .ports import Ports
from .recorded import Repeated
from .stepping import TrainingStep

COMPILE_ARGUMENTS = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
NO_PLANS = {"_prepared": None, "_prepared_at": -1, "_objective": None, "_inference": None, "_repeated": None}


class Compilable:
    """A model that can be compiled. It has a `network`, `ports` and `weights`; this class knows nothing of its graph.

    Attributes:
        optimizer, loss: as given to `compile`; None before.
        history: of the last `fit`.
        stop_training: callbacks set it to end `fit` after the present batch or epoch.
    """

    if TYPE_CHECKING:
        name: str | None
        built: bool
        _store: StateStore

        @property
        def network(self) -> Network: ...
        @property
        def ports(self) -> tuple[Ports, Ports]: ...
        @property
        def weights(self) -> list[Parameter]: ...
        @property
        def trainable_weights(self) -> list[Parameter]: ...
        def all_layers(self) -> list[Layer]: ...
        def packed(self, outputs: Sequence[Any]) -> Any: ...
        def _build_for(self, inputs: Any) -> None: ...

    def _start_training_state(self) -> None:
        self.optimizer: Any = None
        self.loss: Any = None
        self.history: Any = None
        self.stop_training = False
        self._compiled: dict[str, Any] | None = None
        self._initial_epoch: int | None = None
        self._shuffle_seed: int | None = None
        self._shuffles = 0
        self._prepared: TrainingStep | None = None
        self._prepared_at = -1
        self._repeated: Repeated | None = None
        self._objective: Objective | None = None
        self._inference: Plan | None = None

    def _forget_plans(self) -> None:
        """Called when the graph or what is compiled changes."""
        vars(self).update(NO_PLANS)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Says how the model is trained. Which layers are frozen (`layer.trainable`) is looked up with every epoch and
        every call of `train_on_batch`, so that it may change later.

        Args:
            optimizer: a name or an optimizer.
            loss: a name, a loss, or an object with `value_and_gradient(y_true, y_pred)`; for several outputs a list, or
                a dict by name of the output, in which None, or nothing, leaves an output out.
            loss_weights: factors of the losses of several outputs.
            metrics: names, metrics, or functions of (y_true, y_pred); for several outputs a list of lists, or a dict.
            weighted_metrics: the same, weighted by sample weights.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: without effect.

        Raises:
            ValueError: for an unknown name.
        """
        check_names(loss, metrics, weighted_metrics)
        optimizer = optimizers.get(optimizer)
        if self.built:
            Objective(loss, loss_weights, metrics, weighted_metrics, self.ports[1].names)
        self._forget_plans()
        values = optimizer, loss, loss_weights, metrics, weighted_metrics
        self._compiled = dict(zip(COMPILE_ARGUMENTS, values, strict=True))
        self.optimizer, self.loss = optimizer, loss
        self.stop_training = False

    def _new_objective(self) -> Objective:
        if self._compiled is None:
            raise ValueError(f"model {self.name!r} must be compiled first: model.compile(optimizer, loss)")
        _, loss, loss_weights, metrics, weighted_metrics = self._compiled.values()
        return Objective(loss, loss_weights, metrics, weighted_metrics, self.ports[1].names)

    @property
    def compiled(self) -> bool:
        return self._compiled is not None

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was given, as JSON values; None before."""
        return None if self._compiled is None else {name: serialize(value) for name, value in self._compiled.items()}

    def compile_from_config(self, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> None:
        """The inverse of `get_compile_config`."""
        self.compile(**{name: registry.deserialize(value, custom_objects) for name, value in config.items()})

    @property
    def objective(self) -> Objective:
        """Losses and metrics with their running means; made at the first use after `compile`."""
        if self._objective is None:
            self._objective = self._new_objective()
        return self._objective

    @property
    def _training_step(self) -> TrainingStep:
        """The prepared step; made at the first use after `compile`, and again when layers were frozen or thawed."""
        if self._prepared is not None and self._prepared_at == trainable_version():
            return self._prepared
        version, trained = trainable_version(), self.trainable_weights
        if self._prepared is None or self._prepared.trained != trained:
            objective = self.objective
            if not any(loss is not None for loss in objective.loss_of) and not self._penalized():
                raise ValueError(f"model {self.name!r} has no loss: compile(loss=...) says what is to become small")
            self._prepared = TrainingStep(self.network, self.weights, trained, objective, self.optimizer, self._store)
        self._prepared_at = version
        return self._prepared

    @property
    def _repeated_step(self) -> Repeated:
        """The same, which replays what comes again. It holds memory until `fit` ends or the model is compiled anew."""
        prepared, repeated = self._training_step, self._repeated
        if repeated is None or repeated.step is not prepared:
            self._repeated = repeated = Repeated(prepared)
        return repeated

    def _penalized(self) -> bool:
        return any(s.layer.activity_regularizer for s in self.network.steps) or any(w.regularizer for w in self.weights)

    @property
    def metrics(self) -> list[Any]:
        """The running means: of the loss, of the metrics, of the losses of several outputs."""
        return self.objective.metrics if self.compiled and self.built else []

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns, in its order; complete once data were seen."""
        return self.objective.ordered(self.objective.logs()) if self.metrics else []

    def reset_metrics(self) -> None:
        for metric in self.metrics:
            metric.reset_state()
