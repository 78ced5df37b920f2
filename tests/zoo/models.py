"""The architectures of the zoo: NAME -> a function that builds the module and an example batch of three samples.

The weights are random; the sizes are the smallest that still exercise the architecture.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional

BATCH = 3
CLASSES = 10
VOCABULARY = 96


@dataclasses.dataclass
class Entry:
    """One architecture: `build` gives the module, `kind` is image, text or other, `embedding` finds the module whose output is differentiated, with the batch on `batch_axis`."""

    name: str
    family: str
    kind: str
    build: object
    sample: tuple
    embedding: object = None
    batch_axis: int = 0


ENTRIES: dict[str, Entry] = {}


def add(name, family, build, sample, kind="image", embedding=None):
    if name in ENTRIES:
        raise ValueError(f"{name} is there twice")
    ENTRIES[name] = Entry(name, family, kind, build, tuple(sample), embedding)


def example_of(entry, generator):
    """Three samples: floats in [0, 1], or token ids."""
    shape = (BATCH, *entry.sample)
    if entry.embedding is not None:
        return torch.randint(5, VOCABULARY, shape, generator=generator)
    return torch.rand(shape, generator=generator)


# ---------------------------------------------------------------------------------------------------------------- timm

TIMM = """
resnet10t 64
resnet18 64
resnet26d 64
resnet50 64
resnext50_32x4d 64
wide_resnet50_2 32
seresnext26d_32x4d 64
ecaresnet26t 64
resnetv2_50 64
resnetv2_50x1_bit 64
res2net50_14w_8s 64
resnest14d 64
skresnet18 64
regnetx_002 64
regnety_002 64
regnetv_040 64
regnetz_b16 64
densenet121 64
efficientnet_b0 64
efficientnet_lite0 64
tf_efficientnet_b0 64
tf_efficientnetv2_b0 64
tf_efficientnet_lite0 63
mobilenetv1_100 64
mobilenetv2_035 64
mobilenetv3_small_050 64
tf_mobilenetv3_small_minimal_100 64
mobilenetv4_conv_small_035 64
mobilenetv4_hybrid_medium 64
mixnet_s 64
tf_mixnet_s 64
mnasnet_small 64
semnasnet_075 64
fbnetc_100 64
fbnetv3_b 64
spnasnet_100 64
hardcorenas_a 64
lcnet_035 64
tinynet_e 64
ghostnet_050 64
ghostnetv2_100 64
repghostnet_050 64
hrnet_w18_small 64
dla34 64
dla46x_c 64
inception_v3 96
inception_v4 96
inception_resnet_v2 96
inception_next_atto 64
legacy_xception 96
xception41 64
repvgg_a0 64
selecsls42b 64
ese_vovnet19b_dw 64
cspresnet50 64
cspdarknet53 64
darknet53 64
dpn48b 64
gernet_s 64
nf_regnet_b0 64
eca_nfnet_l0 64
rexnet_100 64
convnext_atto 64
convnextv2_atto 64
convnext_zepto_rms 64
hgnet_tiny 64
hgnetv2_b0 64
mobileone_s0 64
repvit_m0_9 64
starnet_s1 64
mambaout_femto 64
rdnet_tiny 64
fastvit_t8 64
efficientvit_b0 64
efficientvit_m0 128
efficientformer_l1 224
efficientformerv2_s0 224
poolformer_s12 64
poolformerv2_s12 64
convformer_s18 64
caformer_s18 64
mobilevit_xxs 64
mobilevitv2_050 64
edgenext_xx_small 64
davit_tiny 64
focalnet_tiny_srf 64
lambda_resnet26t 256
botnet26t_256 256
halonet26t 256
gcresnext26ts 64
bat_resnext26ts 64
eca_botnext26ts_256 256
visformer_tiny 224
swiftformer_xs 64
nextvit_small 64
pvt_v2_b0 64
twins_pcpvt_small 64
twins_svt_small 64
levit_128s 224
crossvit_tiny_240 240
convit_tiny 224
coat_lite_tiny 64
gcvit_xxtiny 224
ghostnetv3_100 64
shvit_s1 64
tiny_vit_5m_224 64
vit_tiny_patch16_224 64 img
deit_tiny_distilled_patch16_224 64 img
deit3_small_patch16_224 64 img depth=4
beit_base_patch16_224 64 img depth=3 embed_dim=96 num_heads=4
beitv2_base_patch16_224 64 img depth=3 embed_dim=96 num_heads=4
vit_relpos_small_patch16_224 64 img depth=4
vit_srelpos_small_patch16_224 64 img depth=4
eva02_tiny_patch14_224 56 img depth=4
cait_xxs24_224 64 img depth=4
xcit_nano_12_p16_224 64 img depth=4
pit_ti_224 64 img
volo_d1_224 64 img layers=(2,1,1,1)
tnt_s_legacy_patch16_224 64 img depth=3
mixer_s32_224 64 img
resmlp_12_224 64 img depth=4
gmlp_ti16_224 64 img num_blocks=4
gmixer_12_224 64 img num_blocks=4
swin_tiny_patch4_window7_224 112 img depths=(1,2,2,1)
swin_s3_tiny_224 224 img depths=(1,1,2,1)
swinv2_tiny_window8_256 128 img depths=(2,2,2,1) window_size=4
swinv2_cr_tiny_224 112 img depths=(1,2,2,1)
coatnet_pico_rw_224 64 img
coatnet_nano_rw_224 64 img
coatnext_nano_rw_224 64 img
maxvit_pico_rw_256 64 img
maxvit_rmlp_pico_rw_256 64 img
maxxvit_rmlp_nano_rw_256 64 img
hiera_tiny_224 64 img
mvitv2_tiny 64 img
nest_tiny 64 img
sequencer2d_s 64 img layers=(1,1,1,1)
samvit_base_patch16_224 64 img depth=2 embed_dim=96 num_heads=4 global_attn_indexes=(1,)
vitamin_small_224 64 img
test_vit 64 img
test_convnext 64
test_byobnet 64
""".strip().splitlines()


def timm_builder(name, size, options):
    def build():
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    return build


for line in TIMM:
    name, size, *rest = line.split()
    options = {key: eval(value) for key, value in (item.split("=") for item in rest if "=" in item)}
    if "img" in rest:
        options["img_size"] = int(size)
    add(f"timm_{name}", "timm", timm_builder(name, int(size), options), (3, int(size), int(size)))


def conv_mixer():
    from timm.models.convmixer import ConvMixer

    return ConvMixer(dim=48, depth=4, kernel_size=7, patch_size=4, num_classes=CLASSES)


add("timm_convmixer", "timm", conv_mixer, (3, 64, 64))


# --------------------------------------------------------------------------------------------------------- torchvision


def torchvision_builder(name, options):
    def build():
        import torchvision

        model = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)
        if name.startswith(("vgg", "alexnet")):
            # Their own heads are hundreds of megabytes, and pool to a grid that small images do not divide into.
            model.avgpool = nn.AdaptiveAvgPool2d(1)
            model.classifier = nn.Sequential(nn.Linear(256 if name == "alexnet" else 512, 64), nn.ReLU(), nn.Linear(64, CLASSES))
        return model

    return build


def torchvision_swin(version):
    def build():
        from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

        options = {} if version == 1 else {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
        return SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=CLASSES, **options)

    return build


def torchvision_vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=48, patch_size=8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=CLASSES)


def torchvision_maxvit():
    from torchvision.models.maxvit import MaxVit

    return MaxVit(
        input_size=(64, 64), stem_channels=16, partition_size=4, block_channels=[16, 32], block_layers=[1, 1],
        head_dim=8, stochastic_depth_prob=0.0, num_classes=CLASSES,
    )


for name, size, options in [
    ("alexnet", 96, {}),
    ("vgg11", 64, {}),
    ("vgg13_bn", 32, {}),
    ("squeezenet1_0", 64, {}),
    ("squeezenet1_1", 64, {}),
    ("resnet18", 64, {}),
    ("resnet50", 64, {}),
    ("resnext50_32x4d", 64, {}),
    ("densenet121", 64, {}),
    ("googlenet", 64, {"aux_logits": False, "init_weights": False}),
    ("inception_v3", 96, {"aux_logits": False, "init_weights": False}),
    ("mobilenet_v2", 64, {}),
    ("mobilenet_v3_small", 64, {}),
    ("shufflenet_v2_x0_5", 64, {}),
    ("mnasnet0_5", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("efficientnet_v2_s", 64, {}),
    ("regnet_y_400mf", 64, {}),
    ("regnet_x_400mf", 64, {}),
    ("convnext_tiny", 64, {}),
]:
    add(f"torchvision_{name}", "torchvision", torchvision_builder(name, options), (3, size, size))
add("torchvision_swin", "torchvision", torchvision_swin(1), (3, 64, 64))
add("torchvision_swin_v2", "torchvision", torchvision_swin(2), (3, 64, 64))
add("torchvision_vit", "torchvision", torchvision_vit, (3, 48, 48))
add("torchvision_maxvit", "torchvision", torchvision_maxvit, (3, 64, 64))


# -------------------------------------------------------------------------------------------------------- transformers


class Logits(nn.Module):
    """A model of transformers, giving its logits alone."""

    def __init__(self, model, name):
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, value):
        # Without a mask, decoders look for packed sequences, with operators that the exporters lack.
        more = {"attention_mask": torch.ones_like(value)} if self.name == "input_ids" else {}
        return self.model(**{self.name: value}, **more).logits


class EncoderClassifier(nn.Module):
    """The mean of an encoder's last states under a linear head."""

    def __init__(self, encoder, width):
        super().__init__()
        self.model = encoder
        self.head = nn.Linear(width, CLASSES)

    def forward(self, value):
        return self.head(self.model(input_ids=value).last_hidden_state.mean(1))


SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 64, "num_labels": CLASSES, "pad_token_id": 0,
}
CAUSAL = {**SMALL, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}

TEXT = [
    ("bert", "Bert", "ForSequenceClassification", SMALL),
    ("roberta", "Roberta", "ForSequenceClassification", SMALL),
    ("xlm_roberta", "XLMRoberta", "ForSequenceClassification", SMALL),
    ("camembert", "Camembert", "ForSequenceClassification", SMALL),
    ("distilbert", "DistilBert", "ForSequenceClassification", {"vocab_size": VOCABULARY, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "num_labels": CLASSES}),
    ("albert", "Albert", "ForSequenceClassification", {**SMALL, "embedding_size": 24}),
    ("electra", "Electra", "ForSequenceClassification", {**SMALL, "embedding_size": 24}),
    ("deberta", "Deberta", "ForSequenceClassification", {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    ("deberta_v2", "DebertaV2", "ForSequenceClassification", {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"}),
    ("mpnet", "MPNet", "ForSequenceClassification", SMALL),
    ("longformer", "Longformer", "ForSequenceClassification", {**SMALL, "attention_window": 4}),
    ("mobilebert", "MobileBert", "ForSequenceClassification", {**SMALL, "embedding_size": 24, "true_hidden_size": 24, "intra_bottleneck_size": 24}),
    ("squeezebert", "SqueezeBert", "ForSequenceClassification", {**SMALL, "embedding_size": 48}),
    ("convbert", "ConvBert", "ForSequenceClassification", {**SMALL, "embedding_size": 48}),
    ("ernie", "Ernie", "ForSequenceClassification", SMALL),
    ("fnet", "FNet", "ForSequenceClassification", SMALL),
    ("nystromformer", "Nystromformer", "ForSequenceClassification", {**SMALL, "segment_means_seq_len": 12, "num_landmarks": 12}),
    ("roformer", "RoFormer", "ForSequenceClassification", {**SMALL, "embedding_size": 48}),
    ("rembert", "RemBert", "ForSequenceClassification", {**SMALL, "input_embedding_size": 24, "output_embedding_size": 24}),
    ("megatron_bert", "MegatronBert", "ForSequenceClassification", SMALL),
    ("data2vec_text", "Data2VecText", "ForSequenceClassification", SMALL),
    ("layoutlm", "LayoutLM", "ForSequenceClassification", SMALL),
    ("modernbert", "ModernBert", "ForSequenceClassification", {**SMALL, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2, "local_attention": 8}),
    ("xlnet", "XLNet", "ForSequenceClassification", {"vocab_size": VOCABULARY, "d_model": 48, "n_layer": 2, "n_head": 4, "d_inner": 96, "num_labels": CLASSES}),
    ("funnel", "Funnel", "ForSequenceClassification", {"vocab_size": VOCABULARY, "d_model": 48, "block_sizes": [1, 1], "n_head": 4, "d_head": 12, "d_inner": 96, "num_labels": CLASSES}),
    ("gpt2", "GPT2", "ForSequenceClassification", {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "num_labels": CLASSES, "pad_token_id": 0}),
    ("gpt_neo", "GPTNeo", "ForSequenceClassification", {"vocab_size": VOCABULARY, "hidden_size": 48, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64, "window_size": 4, "num_labels": CLASSES, "pad_token_id": 0}),
    ("gpt_neox", "GPTNeoX", "ForSequenceClassification", SMALL),
    ("opt", "OPT", "ForSequenceClassification", {**SMALL, "ffn_dim": 96, "word_embed_proj_dim": 48}),
    ("bloom", "Bloom", "ForSequenceClassification", {"vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 2, "n_head": 4, "num_labels": CLASSES, "pad_token_id": 0}),
    ("llama", "Llama", "ForSequenceClassification", CAUSAL),
    ("mistral", "Mistral", "ForSequenceClassification", {**CAUSAL, "sliding_window": 8}),
    ("qwen2", "Qwen2", "ForSequenceClassification", CAUSAL),
    ("qwen3", "Qwen3", "ForSequenceClassification", {**CAUSAL, "head_dim": 12}),
    ("gemma", "Gemma", "ForSequenceClassification", {**CAUSAL, "head_dim": 12}),
    ("gemma2", "Gemma2", "ForSequenceClassification", {**CAUSAL, "head_dim": 12, "sliding_window": 8}),
    ("phi", "Phi", "ForSequenceClassification", CAUSAL),
    ("falcon", "Falcon", "ForSequenceClassification", CAUSAL),
    ("stablelm", "StableLm", "ForSequenceClassification", {**CAUSAL, "hidden_size": 64}),
    ("t5", "T5", "EncoderModel", {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4}),
    ("mt5", "MT5", "EncoderModel", {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4}),
]

VISION_SMALL = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "num_labels": CLASSES}
PYRAMID = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "num_labels": CLASSES}

VISION = [
    ("vit", "ViT", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("deit", "DeiT", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("beit", "Beit", "ForImageClassification", {**VISION_SMALL, "use_relative_position_bias": True}, (3, 32, 32)),
    ("data2vec_vision", "Data2VecVision", "ForImageClassification", {**VISION_SMALL, "use_shared_relative_position_bias": True}, (3, 32, 32)),
    ("vit_msn", "ViTMSN", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("dinov2", "Dinov2", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("dinov2_registers", "Dinov2WithRegisters", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("ijepa", "IJepa", "ForImageClassification", VISION_SMALL, (3, 32, 32)),
    ("swin", "Swin", "ForImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "num_labels": CLASSES}, (3, 32, 32)),
    ("swinv2", "Swinv2", "ForImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "num_labels": CLASSES}, (3, 32, 32)),
    ("convnext", "ConvNext", "ForImageClassification", PYRAMID, (3, 64, 64)),
    ("convnextv2", "ConvNextV2", "ForImageClassification", PYRAMID, (3, 64, 64)),
    ("resnet", "ResNet", "ForImageClassification", {**PYRAMID, "embedding_size": 16, "layer_type": "basic"}, (3, 64, 64)),
    ("regnet", "RegNet", "ForImageClassification", {**PYRAMID, "embedding_size": 16, "groups_width": 8}, (3, 64, 64)),
    ("bit", "Bit", "ForImageClassification", {**PYRAMID, "hidden_sizes": [128, 128, 128, 128], "embedding_size": 32}, (3, 64, 64)),
    ("mobilenet_v1", "MobileNetV1", "ForImageClassification", {"depth_multiplier": 0.25, "num_labels": CLASSES}, (3, 63, 63)),
    ("mobilenet_v2", "MobileNetV2", "ForImageClassification", {"depth_multiplier": 0.25, "num_labels": CLASSES}, (3, 63, 63)),
    ("mobilevit", "MobileViT", "ForImageClassification", {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 64], "num_labels": CLASSES}, (3, 64, 64)),
    ("mobilevitv2", "MobileViTV2", "ForImageClassification", {"image_size": 64, "width_multiplier": 0.25, "num_labels": CLASSES}, (3, 64, 64)),
    ("efficientnet", "EfficientNet", "ForImageClassification", {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640, "num_labels": CLASSES}, (3, 64, 64)),
    ("poolformer", "PoolFormer", "ForImageClassification", PYRAMID, (3, 64, 64)),
    ("segformer", "Segformer", "ForImageClassification", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "num_labels": CLASSES}, (3, 64, 64)),
    ("pvt", "Pvt", "ForImageClassification", {"image_size": 64, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "num_labels": CLASSES}, (3, 64, 64)),
    ("pvt_v2", "PvtV2", "ForImageClassification", {"image_size": 64, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "num_labels": CLASSES}, (3, 64, 64)),
    ("focalnet", "FocalNet", "ForImageClassification", {"image_size": 32, "embed_dim": 24, "depths": [1, 1], "hidden_sizes": [24, 48], "focal_levels": [2, 2], "focal_windows": [3, 3], "num_labels": CLASSES}, (3, 32, 32)),
    ("levit", "Levit", "ForImageClassification", {"image_size": 224, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1], "key_dim": [8, 8, 8], "num_labels": CLASSES}, (3, 224, 224)),
    ("swiftformer", "SwiftFormer", "ForImageClassification", {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 48], "num_labels": CLASSES}, (3, 64, 64)),
    ("hiera", "Hiera", "ForImageClassification", {"image_size": [32, 32], "patch_size": [7, 7], "embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "num_labels": CLASSES}, (3, 32, 32)),
    ("hgnet_v2", "HGNetV2", "ForImageClassification", {"num_labels": CLASSES}, (3, 64, 64)),
    ("textnet", "TextNet", "ForImageClassification", {"num_labels": CLASSES}, (3, 64, 64)),
]


def hugging_face(prefix, suffix, options, argument):
    def build():
        import transformers

        options_here = dict(options)
        config = getattr(transformers, f"{prefix}Config")(**options_here)
        config._attn_implementation = "eager"
        config.use_cache = False
        model = getattr(transformers, prefix + suffix)(config)
        if suffix == "EncoderModel":
            return EncoderClassifier(model, config.d_model)
        return Logits(model, argument)

    return build


def word_embedding(module):
    encoder = getattr(module.model, "encoder", None)
    return encoder.embed_tokens if hasattr(encoder, "embed_tokens") else module.model.get_input_embeddings()


for name, prefix, suffix, options in TEXT:
    add(f"hf_{name}", "transformers", hugging_face(prefix, suffix, options, "input_ids"), (12,), "text", word_embedding)
ENTRIES["hf_xlnet"].batch_axis = 1
for name, prefix, suffix, options, sample in VISION:
    add(f"hf_{name}", "transformers", hugging_face(prefix, suffix, options, "pixel_values"), sample)


def dual_encoder(kind):
    def build():
        import transformers

        vision = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
        text = {"vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
        config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, num_labels=CLASSES)
        config._attn_implementation = "eager"
        config.vision_config._attn_implementation = "eager"
        return Logits(getattr(transformers, f"{kind}ForImageClassification")(config), "pixel_values")

    return build


add("hf_clip", "transformers", dual_encoder("CLIP"), (3, 32, 32))
add("hf_siglip", "transformers", dual_encoder("Siglip"), (3, 32, 32))


def audio(prefix, suffix, options, argument):
    return hugging_face(prefix, suffix, {**options, "num_labels": CLASSES}, argument)


SPEECH = {
    "vocab_size": 32, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "conv_dim": [16, 16, 16],
    "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 24,
}
add("hf_wav2vec2", "transformers", audio("Wav2Vec2", "ForSequenceClassification", SPEECH, "input_values"), (800,), "other")
add("hf_hubert", "transformers", audio("Hubert", "ForSequenceClassification", SPEECH, "input_values"), (800,), "other")
add(
    "hf_audio_spectrogram", "transformers",
    audio("AST", "ForAudioClassification", {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "max_length": 64, "num_mel_bins": 32}, "input_values"),
    (64, 32), "other",
)


# -------------------------------------------------------------------------------------------------------------- custom


class Recurrent(nn.Module):
    """Tokens, an embedding, a recurrent layer, a linear head on the last state."""

    def __init__(self, layer, bidirectional=False, layers=1, batch_first=True):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.layer = layer(16, 24, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
        self.batch_first = batch_first
        self.head = nn.Linear(24 * (2 if bidirectional else 1), CLASSES)

    def forward(self, tokens):
        x = self.embedding(tokens)
        if not self.batch_first:
            x = x.transpose(0, 1)
        x, _ = self.layer(x)
        return self.head(x[:, -1] if self.batch_first else x[-1])


class TextCnn(nn.Module):
    """Kim's convolutions over words, with max over time."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 8, width) for width in (2, 3, 4))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(torch.cat([conv(x).relu().amax(2) for conv in self.convs], 1))


class MeanOfWords(nn.Module):
    """A masked mean of embeddings."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.body = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, CLASSES))

    def forward(self, tokens):
        mask = (tokens > 20).to(self.embedding.weight.dtype)[..., None]
        x = self.embedding(tokens)
        return self.body((x * mask).sum(1) / mask.sum(1).clamp(min=1))


def token_embedding(module):
    return module.embedding


class Encoder(nn.Module):
    """PyTorch's own transformer encoder over patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        # The fused path of inference has no ONNX form.
        torch.backends.mha.set_fastpath_enabled(False)
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2) + self.position).mean(1))


class UNet(nn.Module):
    """Down, up with transposed convolutions and upsampling, with skips."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.down3 = nn.Conv2d(16, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)
        self.out = nn.Conv2d(24, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        a = functional.silu(self.down1(x))
        b = functional.silu(self.down2(a))
        c = functional.silu(self.down3(b))
        d = self.up(c) + b
        align = None if self.mode == "nearest" else False
        e = functional.interpolate(d, scale_factor=2, mode=self.mode, align_corners=align)
        return self.head(functional.leaky_relu(self.out(torch.cat([a, e], 1))).mean((2, 3)))


class Video(nn.Module):
    """A small 3-D network."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 8, 3, 1, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 16, 3, 1, 1), nn.ELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, CLASSES)
        )

    def forward(self, x):
        return self.body(x)


class KeywordSpotter(nn.Module):
    """1-D depthwise convolutions, as in keyword spotting."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(8, 24, 9, 2, 4), nn.BatchNorm1d(24), nn.ReLU6(), nn.Conv1d(24, 24, 9, 1, 4, groups=24), nn.Conv1d(24, 32, 1), nn.BatchNorm1d(32), nn.Hardswish(),
            nn.AvgPool1d(3, 2, 1), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES),
        )

    def forward(self, x):
        return self.body(x)


class SpeechRecurrent(nn.Module):
    """Convolutions over a spectrogram, then a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2, 1)
        self.layer = layer(4 * 8, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x):
        x = self.conv(x).relu()
        x = x.permute(0, 3, 1, 2).flatten(2)
        x, _ = self.layer(x)
        return self.head(x.mean(1))


class Prototypes(nn.Module):
    """Distances to prototypes: cosine similarity and squared distances of normalised features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.Conv2d(16, 24, 3, 2, 1), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.centres = nn.Parameter(torch.randn(CLASSES, 24))

    def forward(self, x):
        features = functional.normalize(self.body(x), dim=1)
        centres = functional.normalize(self.centres, dim=1)
        return 5 * features @ centres.t() - ((features[:, None] - centres[None]) ** 2).sum(2).sqrt()


class BilinearPooling(nn.Module):
    """Second-order pooling by einsum, signed square root, normalisation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.GroupNorm(2, 8), nn.Mish(), nn.Conv2d(8, 6, 3, 2, 1), nn.InstanceNorm2d(6, affine=True), nn.Tanh())
        self.head = nn.Linear(36, CLASSES)

    def forward(self, x):
        x = self.body(x).flatten(2)
        x = torch.einsum("bin,bjn->bij", x, x).flatten(1) / x.shape[2]
        return self.head(functional.normalize(x.sign() * (x.abs() + 1e-3).sqrt(), dim=1) * 10)


class SpatialTransformer(nn.Module):
    """A learnt affine grid, sampled bilinearly."""

    def __init__(self):
        super().__init__()
        self.where = nn.Sequential(nn.Conv2d(1, 4, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6))
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 11 * 11, CLASSES))

    def forward(self, x):
        theta = self.where(x).reshape(-1, 2, 3) * 0.1 + torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=x.dtype)
        return self.body(functional.grid_sample(x, functional.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False))


class TabularGlu(nn.Module):
    """Gated layers over features, with batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(20)
        self.layers = nn.ModuleList([nn.Linear(20, 40), nn.Linear(20, 40)])
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x):
        x = self.norm(x)
        for layer in self.layers:
            x = (x + functional.glu(layer(x), 1)) * math.sqrt(0.5)
        return self.head(x)


class SuperResolution(nn.Module):
    """Pixel shuffle and unshuffle in a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.second = nn.Conv2d(4, 8, 3, 1, 1)
        self.third = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = functional.pixel_shuffle(functional.selu(self.first(x)), 2)
        x = functional.pixel_unshuffle(functional.celu(self.second(x)), 2)
        return functional.log_softmax(self.head(functional.hardtanh(self.third(x)).mean((2, 3))), 1)


class NeuralOde(nn.Module):
    """A residual block applied ten times, as fixed-step solvers do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.field = nn.Sequential(nn.GroupNorm(3, 12), nn.Tanh(), nn.Conv2d(12, 12, 3, 1, 1))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(10):
            x = x + 0.1 * self.field(x)
        return self.head(x.mean((2, 3)))


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)
        )

    def forward(self, x):
        return self.body(x)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid(), nn.Linear(64, CLASSES))


for name, build in [
    ("lstm_tokens", lambda: Recurrent(nn.LSTM)),
    ("lstm_tokens_bidirectional", lambda: Recurrent(nn.LSTM, True, 2)),
    ("lstm_tokens_time_first", lambda: Recurrent(nn.LSTM, batch_first=False)),
    ("gru_tokens", lambda: Recurrent(nn.GRU)),
    ("gru_tokens_bidirectional", lambda: Recurrent(nn.GRU, True, 2)),
    ("rnn_tokens", lambda: Recurrent(nn.RNN)),
    ("text_cnn", TextCnn),
    ("mean_of_words", MeanOfWords),
]:
    add(f"custom_{name}", "custom", build, (12,), "text", token_embedding)
for name, build, sample in [
    ("mlp", mlp, (1, 28, 28)),
    ("lenet", Lenet, (1, 28, 28)),
    ("encoder", Encoder, (3, 32, 32)),
    ("unet_nearest", lambda: UNet("nearest"), (3, 32, 32)),
    ("unet_bilinear", lambda: UNet("bilinear"), (3, 32, 32)),
    ("unet_bicubic", lambda: UNet("bicubic"), (3, 32, 32)),
    ("video", Video, (3, 8, 16, 16)),
    ("prototypes", Prototypes, (3, 32, 32)),
    ("bilinear_pooling", BilinearPooling, (3, 32, 32)),
    ("spatial_transformer", SpatialTransformer, (1, 24, 24)),
    ("super_resolution", SuperResolution, (3, 32, 32)),
    ("neural_ode", NeuralOde, (3, 32, 32)),
]:
    add(f"custom_{name}", "custom", build, sample)
for name, build, sample in [
    ("keyword_spotter", KeywordSpotter, (8, 64)),
    ("speech_lstm", lambda: SpeechRecurrent(nn.LSTM), (1, 16, 20)),
    ("speech_gru", lambda: SpeechRecurrent(nn.GRU), (1, 16, 20)),
    ("tabular_glu", TabularGlu, (20,)),
]:
    add(f"custom_{name}", "custom", build, sample, "other")
