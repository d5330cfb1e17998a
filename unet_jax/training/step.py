"""One update of everything in JAX, compiled once for all devices. `unet_torch/training/step.py` is the twin."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, UInt8, UInt32

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.errors import CheckpointError
from unet_core.graph import Graph
from unet_core.graph.canonical import check_tensors, in_forward_order
from unet_core.training.train_config import TrainConfig
from unet_jax.canonical import nest, translate
from unet_jax.checkpoint import abstract
from unet_jax.compilation import compiler_options
from unet_jax.network import Network, name_of
from unet_jax.training.layout import in_torchs_layout, kernels_first
from unet_jax.training.losses import loss_value
from unet_jax.training.mesh import everywhere, gathered, of_batch, of_state, scattered, share, strips
from unet_jax.training.optimizers import averaged, clipped, optimizer_of
from unet_jax.training.train_state import TrainState, Tree, flat, named_rest, subtree

Arrays = dict[str, np.ndarray]

_AHEAD = 2
"""Batches that are on their way to the devices while an update runs."""


def abstract_model(checkpoint: Checkpoint, train_config: TrainConfig) -> Network:
    """The network in training mode, with shapes in place of arrays."""
    kinds: dict[str, Any] = {"float64": {"param_dtype": jnp.float64}, "bfloat16": {"dtype": jnp.bfloat16}}
    options = kinds.get(train_config.precision, {})
    return abstract(
        checkpoint,
        norm_parts=train_config.norm_parts,
        remat=train_config.remat,
        rewrites=train_config.rewrites,
        **options,
    )


def new_state(checkpoint: Checkpoint, train_config: TrainConfig, mesh: Mesh, saved: Arrays | None = None) -> TrainState:
    """The state before the first update, or a saved one, split over the devices; made there, inside `jit`.

    Args:
        checkpoint: the network to start from, or the saved one.
        train_config: gives optimiser, precision, and whether there is an average.
        mesh: the devices.
        saved: what `host_arrays` gave for the rest of a saved state.

    Raises:
        CheckpointError: `saved` is of another network, optimiser or precision.
    """
    model = abstract_model(checkpoint, train_config)

    def create(tensors: Tree) -> TrainState:
        return fresh_state(tensors, model, train_config)

    def restore(tensors: Tree, leaves: list[Array]) -> TrainState:
        fresh = create(tensors)
        rest = jax.tree.unflatten(jax.tree.structure(fresh.rest), kernels_first(leaves))
        return TrainState(fresh.params, fresh.stats, **rest)

    tensors = nest(translate(checkpoint.tensors, "jax", checkpoint.config))
    shapes = abstract_state(model, train_config)
    places = of_state(mesh, shapes)
    if saved is None:
        made: TrainState = jax.jit(create, out_shardings=places)(tensors)
        return made
    like = named_rest(jax.eval_shape(in_torchs_layout, shapes))
    wrong = [name for name in {**like, **saved} if _kind(like.get(name)) != _kind(saved.get(name))]
    if wrong:
        raise CheckpointError(f"holds the optimiser of another training: {', '.join(sorted(wrong)[:3])} ...")
    restored: TrainState = jax.jit(restore, out_shardings=places)(tensors, [saved[name] for name in like])
    return restored


def abstract_state(model: Network, train_config: TrainConfig) -> TrainState:
    """The state before the first update of an abstract model, with shapes in place of arrays."""
    tensors = nnx.to_pure_dict(nnx.state(model))
    shapes: TrainState = jax.eval_shape(lambda tensors: fresh_state(tensors, model, train_config), tensors)
    return shapes


def fresh_state(tensors: Tree, model: Network, train_config: TrainConfig) -> TrainState:
    """The state before the first update, of the tensors of a network; to be traced."""
    trees = map(nnx.to_pure_dict, nnx.state(model, _updated(model.graph), ...))
    params, stats = (
        kernels_first(jax.tree.map(lambda array, like: array.astype(like.dtype), subtree(tensors, tree), tree))
        for tree in trees
    )
    slots = optimizer_of(train_config.optimizer).init(params)
    return TrainState(params, stats, slots, (params, stats) if train_config.ema else None)


def _updated(graph: Graph) -> Any:
    """The filter of NNX for what an optimiser updates."""
    return nnx.All(nnx.Param, lambda path, _: name_of(path) in graph.trained)


def host_arrays(state: TrainState) -> Arrays:
    """Copies of slots and average on the host, by dotted names, in torch's layouts."""
    return _copied(named_rest(state))


def host_network(params: Tree, stats: Tree, checkpoint: Checkpoint) -> Checkpoint:
    """A copy of the network of a state on the host, with the config, origin and evidence of `checkpoint`."""
    config = checkpoint.config
    tensors = translate(_copied(flat(params, stats)), "torch", config)
    check_tensors(tensors, config, "the model")
    return Checkpoint(config, in_forward_order(tensors, config), checkpoint.origin, evidence=checkpoint.evidence)


def _copied(arrays: dict[str, Any]) -> Arrays:
    return {name: np.array(in_torchs_layout(np.asarray(value)), order="C") for name, value in arrays.items()}


def on_one_device(tree: Any, mesh: Mesh) -> Any:
    """Arrays that are split over devices, whole on the first one of this process."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(_same, out_shardings=everywhere(mesh))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), whole)


def _same(tree: Any) -> Any:
    return tree


Controls = tuple[Float[Array, ""], Float[Array, ""], UInt32[Array, ""]]
"""The learning rate of an update, the part of the average that it renews, and the updates before it."""
Update = Callable[[TrainState, Array, Array, Controls], tuple[TrainState, Float[Array, "2"]]]
Differentiate = Callable[..., tuple[Tree, Tree, Array]]


def differentiator(train_config: TrainConfig, model: Network, mesh: Mesh | None = None) -> Differentiate:
    """The function that takes parameters, statistics, `accumulate` batches as in `placed`, and the updates before.

    It returns the gradients of the loss, the new statistics, and the loss; all that is of the network is laid out as in
    `TrainState`. Batches come one after the other. Dropout draws by the seed and the number of updates, whatever was
    drawn before: a resumed training draws the same.

    Args:
        train_config: how to train.
        model: what to train; its arrays are not used.
        mesh: over whose devices parameters and gradients are split; None: over none.
    """
    graphdef, ignoring = nnx.graphdef(model.executed(strips=strips(mesh))), train_config.masks.ignore is not None

    def loss_of(params: Tree, stats: Tree, image: Array, labels: Array, key: Array) -> tuple[Array, Tree]:
        model = nnx.merge(graphdef, *in_torchs_layout((params, stats)), copy=True)
        logits = model.logits(image, rngs=key)
        loss = loss_value(train_config.loss, logits, labels, ignoring) / train_config.accumulate
        return loss, kernels_first(nnx.to_pure_dict(nnx.state(model, _updated(model.graph), ...)[1]))

    def gradient(params: Tree, stats: Tree, image: Array, labels: Array, key: Array) -> tuple[Tree, Tree, Array]:
        params = gathered(mesh, params)
        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, stats, image, labels, key)
        return scattered(mesh, gradients), stats, loss

    def differentiate(
        params: Tree,
        stats: Tree,
        image: Float[Array, "a n *s c"],
        labels: UInt8[Array, "a n *s"],
        step: UInt32[Array, ""] | int = 0,
    ) -> tuple[Tree, Tree, Array]:
        key = jax.random.fold_in(jax.random.key(train_config.seed), step)
        keys = [jax.random.fold_in(key, number) for number in range(train_config.accumulate)]
        gradients, stats, loss = gradient(params, stats, image[0], labels[0], keys[0])
        for number in range(1, train_config.accumulate):
            more, stats, part = gradient(params, stats, image[number], labels[number], keys[number])
            gradients, loss = jax.tree.map(jnp.add, gradients, more), loss + part
        return gradients, stats, loss

    return differentiate


def updater(train_config: TrainConfig, model: Network, mesh: Mesh | None = None) -> Update:
    """The function that makes one update; to be compiled with its first argument donated.

    It takes the state, `accumulate` batches as in `placed`, and the controls; it returns the new state, and loss and
    norm of the gradients before clipping.

    Args:
        train_config: how to train.
        model: what to train; its arrays are not used.
        mesh: as in `differentiator`.
    """
    differentiate = differentiator(train_config, model, mesh)
    optimizer = optimizer_of(train_config.optimizer)

    def update(
        state: TrainState,
        image: Float[Array, "a n *s c"],
        labels: UInt8[Array, "a n *s"],
        controls: Controls,
    ) -> tuple[TrainState, Float[Array, "2"]]:
        rate, renewal, step = controls
        gradients, stats, loss = differentiate(state.params, state.stats, image, labels, step)
        gradients, norm = clipped(gradients, train_config.optimizer.clip)
        ways, slots = optimizer.update(gradients, state.slots, state.params)
        params = jax.tree.map(lambda param, way: param - rate.astype(param.dtype) * way, state.params, ways)
        average = None if state.average is None else averaged(state.average, (params, stats), renewal)
        return TrainState(params, stats, slots, average), jnp.stack((loss, norm.astype(loss.dtype)))

    return update


def compiled(
    update: Update, state: TrainState, train_config: TrainConfig, mesh: Mesh, channels: int, dimensions: int = 2
) -> Update:
    """`update` for these devices, compiled once and for all; it takes no other shapes, and donates the state.

    Args:
        update: what `updater` gave.
        state: of the shapes and places that it is to take.
        train_config: how large the batches are.
        mesh: the devices.
        channels: of the pictures.
        dimensions: of the pictures.
    """
    size = train_config.crops(dimensions)
    shape = (train_config.accumulate, train_config.batch, *size)
    split, whole = of_batch(mesh), everywhere(mesh)
    number = jax.ShapeDtypeStruct((), jnp.result_type(float), sharding=whole)
    image = jax.ShapeDtypeStruct((*shape, channels), jnp.result_type(float), sharding=split)
    labels = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split)
    options = compiler_options(mesh.devices.flat[0].platform, wide=train_config.precision == "float64")
    places = of_state(mesh, state), whole
    program = jax.jit(update, donate_argnums=0, out_shardings=places, compiler_options=options)
    step = jax.ShapeDtypeStruct((), jnp.uint32, sharding=whole)
    made: Any = program.lower(state, image, labels, (number, number, step)).compile()
    return made


def placed(batches: Iterator[Batch], train_config: TrainConfig, mesh: Mesh) -> Iterator[tuple[Array, Array]]:
    """The batches on the devices, [accumulate, batch, ...], the next ones on their way while one is used.

    Args:
        batches: of every batch the part that `unet_jax.training.mesh.share` says.
        train_config: how large they are.
        mesh: the devices.
    """
    sharding = of_batch(mesh)
    kind = jnp.result_type(float)
    number, count = share(mesh, train_config.batch)
    first = number * train_config.batch // count

    def put(part: np.ndarray) -> Array:
        part = part.reshape(train_config.accumulate, -1, *part.shape[1:])
        shape = (train_config.accumulate, train_config.batch, *part.shape[2:])

        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            every, examples, *rest = index or ()
            start, stop, _ = examples.indices(train_config.batch)
            return part[(every, slice(start - first, stop - first), *rest)]

        return jax.make_array_from_callback(shape, sharding, piece)

    waiting: deque[tuple[Array, Array]] = deque()
    for batch in batches:
        waiting.append((put(batch.image.astype(kind)), put(batch.labels)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def controls_of(rate: float, renewal: float, mesh: Mesh, step: int = 0) -> Controls:
    """These numbers on every device."""
    kind = jnp.result_type(float)
    rates, renewals, steps = (
        jax.make_array_from_process_local_data(everywhere(mesh), value)
        for value in (np.asarray(rate, kind), np.asarray(renewal, kind), np.asarray(step, np.uint32))
    )
    return rates, renewals, steps


def _kind(array: Any) -> Any:
    return None if array is None else (tuple(array.shape), np.dtype(array.dtype))
