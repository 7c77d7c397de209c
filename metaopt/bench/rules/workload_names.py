"""The names of workloads: AlgoPerf's and this suite's."""

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
# The workloads of this suite; each may have the suffix ``_fixed``.
OUR_WORKLOADS = (
    "breast_cancer_logistic",
    "cifar10_vgg16",
    "cifar10_vgg16_small",
    "digits_autoencoder",
    "digits_conv",
    "digits_mlp",
    "digits_transformer",
    "ende_transformer",
    "ende_transformer_small",
    "mini_conformer",
    "mini_criteo",
    "mini_deepspeech",
    "mini_fastmri",
    "mini_lm",
    "mini_ogbg",
    "mini_resnet",
    "mini_vit",
    "mini_wmt",
    "mnist_mlp",
    "poisson_pinn",
)
WORKLOAD_NAMES = frozenset(
    [*ALGOPERF_WORKLOADS, *OUR_WORKLOADS, *(f"{name}_fixed" for name in OUR_WORKLOADS)]
    + [f"{base}_{variant}" for base, names in _VARIANTS.items() for variant in names.split()]
)


def is_workload_name(text: object) -> bool:
    """Return whether a string is the name of a workload, AlgoPerf's or this suite's."""
    return isinstance(text, str) and text in WORKLOAD_NAMES
