"""What a SavedModel's graphs may do: arithmetic on tensors and the reading of their own variables, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epy

from zoo.errors import ZooError
from zoo.files import read_regular

with epy.lazy_imports():
    from google.protobuf import message
    from tensorflow.core.protobuf import saved_model_pb2

INIT = "__saved_model_init_op"  # which loading runs

# Run by loading alone. A signature that reached one could remember a request, and show it to the next.
CHANGING = frozenset("AssignVariableOp InitializeTableV2 LookupTableImportV2".split())

MOST_BYTES = 2**26  # of a graph: the weights are not in it

# Written and read by TensorFlow itself when variables are saved and restored; no signature may reach them.
SAVING = frozenset("MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch".split())

ALLOWED = frozenset(
    # values and control flow
    "Const Placeholder PlaceholderWithDefault Identity IdentityN NoOp StatefulPartitionedCall PartitionedCall "
    "StatelessWhile While StatelessIf If Merge Switch LoopCond Enter Exit NextIteration "
    # variables and lookup tables
    "VarHandleOp ReadVariableOp AssignVariableOp DisableCopyOnRead VarIsInitializedOp HashTableV2 LookupTableFindV2 "
    "LookupTableImportV2 LookupTableSizeV2 LookupTableExportV2 MutableHashTableV2 InitializeTableV2 "
    # shapes, slices and joins
    "BroadcastArgs BroadcastTo Bucketize Cast ClipByValue ConcatV2 DenseBincount EnsureShape ExpandDims Fill Gather "
    "GatherNd GatherV2 LinSpace MirrorPad OneHot OnesLike Pack Pad PadV2 Range Rank Reshape ResourceGather ReverseV2 "
    "ScatterNd Select SelectV2 Shape Size Slice Split SplitV Squeeze StridedSlice TensorScatterUpdate Tile Transpose "
    "Unpack Where ZerosLike "
    # arithmetic
    "Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMulV2 BiasAdd Bitcast BitwiseAnd Cumsum Div DivNoNan Einsum Elu "
    "Equal Erf Exp Floor FloorDiv FloorMod Greater GreaterEqual Inv IsFinite IsNan LeakyRelu Less LessEqual Log Log1p "
    "LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mod Mul MulNoNan Neg NotEqual Pow "
    "Prod RealDiv Reciprocal Relu Relu6 Round Rsqrt Selu Sigmoid Sign Softmax Softplus Softsign Sqrt Square "
    "SquaredDifference Sub Sum Tanh TopKV2 "
    # networks and images
    "AvgPool Conv2D Conv2DBackpropInput DecodeImage DecodeJpeg DecodePng DecodeRaw DepthwiseConv2dNative "
    "ExtractJpegShape FusedBatchNormV3 LRN MaxPool ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor "
    "ScaleAndTranslate "
    # stateless randomness
    "StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormalV2 "
    "StatelessRandomUniformV2 StatelessRandomUniformIntV2 "
    # texts
    "RaggedTensorToTensor RaggedTensorFromVariant RaggedTensorToVariant ReduceJoin StaticRegexReplace RegexReplace "
    "StringJoin StringLength StringLower StringSplitV2 StringStrip Substr UnicodeDecodeWithOffsets UnicodeDecode "
    "UnicodeEncode AsString "
    # lists of tensors within loops, and checks
    "TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength "
    "TensorListReserve TensorListSetItem TensorListStack Assert".split()
)


def check_operations(path: Path) -> None:
    """Raises ZooError if a graph of the SavedModel holds an operation outside the allow-list, a signature reaches those
    that save, restore or change a variable, or a signature is one function for TensorFlow Serving and another one for
    `tf.saved_model.load`. The graph is read, not loaded."""
    found = saved_model_pb2.SavedModel()
    try:
        found.ParseFromString(read_regular(path / "saved_model.pb", MOST_BYTES))
    except (message.DecodeError, OSError, ValueError) as error:
        raise ZooError(f"{path} holds no readable SavedModel: {error}") from None
    if len(found.meta_graphs) != 1 or not found.meta_graphs[0].HasField("object_graph_def"):
        raise ZooError(f"{path} is refused: it is no SavedModel of TensorFlow 2 with one graph")
    (meta_graph,) = found.meta_graphs
    graph, objects = meta_graph.graph_def, meta_graph.object_graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    everything = [*graph.node, *(node for function in functions.values() for node in function.node_def)]
    _refuse(path, {node.op for node in everything} - functions.keys() - ALLOWED - SAVING)
    names = {node.name: node for node in graph.node}
    try:
        served = {
            name: [names[output.name.split(":")[0]] for output in signature.outputs.values()]
            for name, signature in meta_graph.signature_def.items()
        }
        loaded = {
            child.local_name: objects.nodes[child.node_id].bare_concrete_function.concrete_function_name
            for attribute in objects.nodes[0].children
            if attribute.local_name == "signatures"
            for child in objects.nodes[attribute.node_id].children
        }
    except (KeyError, IndexError):
        raise ZooError(f"{path} holds no readable SavedModel: its signatures are incomplete") from None
    called = {name: {node.attr["f"].func.name for node in nodes} for name, nodes in served.items() if name != INIT}
    if called != {name: {function} for name, function in loaded.items()}:
        raise ZooError(f"{path} is refused: its signatures are not the functions that plain TensorFlow loads")
    # All that the loaded object can call, and what loading it runs: initializers are not among the signatures.
    callable_ones = functions.keys() & objects.concrete_functions.keys()
    everywhere = [node for nodes in served.values() for node in nodes]
    _refuse(path, _reached(everywhere, callable_ones, names, functions) & SAVING)
    asked = [node for name, nodes in served.items() if name != INIT for node in nodes]
    _refuse(path, _reached(asked, functions.keys() & {*loaded.values()}, names, functions) & CHANGING, "a signature")


def _refuse(path: Path, operations: set[str], what: str = "its graph") -> None:
    if operations:
        raise ZooError(
            f"{path} is refused: {what} holds operations that are not allowed: {', '.join(sorted(operations))}"
        )


def _reached(served: list, called: Iterable[str], names: dict, functions: dict) -> set[str]:
    """The operations that these nodes run, through their inputs and the functions that they call, and those of the
    functions `called`."""
    nodes: dict[str, Any] = {}
    waiting = list(served)
    while waiting:  # names within a function are its own, so only the outermost graph is followed by name
        node = waiting.pop()
        if node.name not in nodes:
            nodes[node.name] = node
            sources = {source.lstrip("^").split(":")[0] for source in node.input}
            waiting.extend(names[source] for source in sources if source in names)
    operations = {node.op for node in nodes.values()}
    seen: set[str] = set()
    pending = set(called) | _functions_of(nodes.values(), functions)
    while pending:
        name = pending.pop()
        seen.add(name)
        operations |= {node.op for node in functions[name].node_def}
        pending |= _functions_of(functions[name].node_def, functions) - seen
    return operations


def _functions_of(nodes: Iterable, functions: dict) -> set[str]:
    """The functions that nodes call."""
    attributes = [attribute for node in nodes for attribute in node.attr.values()]
    called = {attribute.func.name for attribute in attributes if attribute.HasField("func")}
    called |= {function.name for attribute in attributes for function in attribute.list.func}
    return (called | {node.op for node in nodes}) & functions.keys()
