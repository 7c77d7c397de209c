"""The names of workloads: AlgoPerf's and this suite's."""

from metaopt.bench.contract.kit import BATCH_SIZES

# All workloads of AlgoPerf v0.6 and the ninth of v1.0, each with its variants.
_VARIANTS = {
    "cifar": "",
    "criteo1tb": "test layernorm embed_init resnet",
    "fastmri": "model_size tanh layernorm",
    "finewebedu_lm": "",
    "imagenet_resnet": "silu gelu large_bn_init",
    "imagenet_vit": "glu post_ln map",
    "librispeech_conformer": "attention_temperature layernorm gelu",
    "librispeech_deepspeech": "tanh no_resnet norm_and_spec_aug",
    "mnist": "",
    "ogbg": "gelu silu model_size",
    "wmt": "post_ln attention_temp glu_tanh",
}
ALGOPERF_WORKLOADS = tuple(_VARIANTS)
# Each may have the suffix ``_fixed``.
OUR_WORKLOADS = tuple(name for name in BATCH_SIZES if name not in _VARIANTS)
WORKLOAD_NAMES = frozenset(
    [*ALGOPERF_WORKLOADS, *OUR_WORKLOADS, *(f"{name}_fixed" for name in OUR_WORKLOADS)]
    + [f"{base}_{variant}" for base, names in _VARIANTS.items() for variant in names.split()]
)


def is_workload_name(text: object) -> bool:
    """Return whether a string is the name of a workload, AlgoPerf's or this suite's."""
    return isinstance(text, str) and text in WORKLOAD_NAMES
