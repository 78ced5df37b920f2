"""More architectures of the zoo, beside those of models.py: rarer families, video, time series, state spaces, experts, and modules that people write themselves."""

import torch
from torch import nn
from torch.nn import functional

from models import CAUSAL, CLASSES, SMALL, SPEECH, VOCABULARY, EncoderClassifier, Logits, add, audio, hugging_face, timm_builder, token_embedding, torchvision_builder, word_embedding

# ---------------------------------------------------------------------------------------------------------------- timm

TIMM = """
tf_efficientnet_cc_b0_4e 64
efficientnet_es 64
efficientvit_l1 64
dm_nfnet_f0 64
nf_ecaresnet26 64
regnetz_b16_evos 64
resnetv2_50d_frn 64
resnet50_gn 64
resnetblur18 64
resnetrs50 64
seresnetaa50d 64
skresnext50_32x4d 64
ecaresnext26t_32x4d 64
legacy_seresnet18 64
gcresnet33ts 64
lamhalobotnet50ts_256 256
sehalonet33ts 256
tresnet_m 64
cs3darknet_focus_s 64
cs3sedarknet_l 64
xception41p 64
fasternet_t0 64
fastvit_mci0 64
csatv2 512
iformer_t 224
hieradet_small 64
test_efficientnet_evos 64
vit_tiny_patch16_dinov3_qkvb 64 img depth=4
vit_pe_core_tiny_patch16_384 64 img depth=3
vit_base_patch16_rope_mixed_ape_224 64 img depth=2 embed_dim=96 num_heads=4
vit_pwee_patch16_reg1_gap_256 64 img depth=3
vit_base_resnet26d_224 64 img depth=2 embed_dim=96 num_heads=4
beit3_base_patch16_224 64 img depth=2 embed_dim=96 num_heads=4
naflexvit_base_patch16_gap 64 img depth=2 embed_dim=96 num_heads=4
maxxvitv2_nano_rw_256 64 img
""".strip().splitlines()

for line in TIMM:
    name, size, *rest = line.split()
    options = {key: eval(value) for key, value in (item.split("=") for item in rest if "=" in item)}
    if "img" in rest:
        options["img_size"] = int(size)
    add(f"timm_{name}", "timm", timm_builder(name, int(size), options), (3, int(size), int(size)))

# --------------------------------------------------------------------------------------------------------- torchvision

for name, size, options in [("shufflenet_v2_x1_5", 64, {}), ("densenet169", 64, {}), ("mnasnet1_3", 64, {}), ("regnet_y_1_6gf", 64, {}), ("wide_resnet50_2", 32, {})]:
    add(f"torchvision_{name}", "torchvision", torchvision_builder(name, options), (3, size, size))


def video_swin():
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 24, [2, 2], [2, 4], [2, 4, 4], num_classes=CLASSES)


def video_resnet(name):
    def build():
        from torchvision.models import video

        return getattr(video, name)(weights=None, num_classes=CLASSES)

    return build


add("torchvision_swin3d", "torchvision", video_swin, (3, 4, 32, 32), "other")
add("torchvision_r2plus1d_18", "torchvision", video_resnet("r2plus1d_18"), (3, 4, 32, 32), "other")
add("torchvision_mc3_18", "torchvision", video_resnet("mc3_18"), (3, 4, 32, 32), "other")

# -------------------------------------------------------------------------------------------------------- transformers

EXPERTS = {**CAUSAL, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}

TEXT = [
    ("big_bird", "BigBird", "ForSequenceClassification", {**SMALL, "attention_type": "original_full"}),
    ("perceiver", "Perceiver", "ForSequenceClassification", {"vocab_size": VOCABULARY, "d_model": 48, "d_latents": 32, "num_latents": 8, "num_blocks": 1, "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 4, "max_position_embeddings": 64, "num_labels": CLASSES}),
    ("ibert", "IBert", "ForSequenceClassification", SMALL),
    ("esm", "Esm", "ForSequenceClassification", {**SMALL, "position_embedding_type": "rotary", "mask_token_id": 4, "token_dropout": False}),
    ("xmod", "Xmod", "ForSequenceClassification", {**SMALL, "languages": ["en_XX"], "default_language": "en_XX"}),
    ("roberta_prelayernorm", "RobertaPreLayerNorm", "ForSequenceClassification", SMALL),
    ("nomic_bert", "NomicBert", "ForSequenceClassification", SMALL),
    ("ctrl", "CTRL", "ForSequenceClassification", {"vocab_size": VOCABULARY, "n_embd": 48, "dff": 96, "n_layer": 2, "n_head": 4, "n_positions": 64, "num_labels": CLASSES, "pad_token_id": 0}),
    ("gptj", "GPTJ", "ForSequenceClassification", {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8, "num_labels": CLASSES, "pad_token_id": 0}),
    ("biogpt", "BioGpt", "ForSequenceClassification", CAUSAL),
    ("mpt", "Mpt", "ForSequenceClassification", {"vocab_size": VOCABULARY, "d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "num_labels": CLASSES, "pad_token_id": 0}),
    ("mixtral", "Mixtral", "ForSequenceClassification", EXPERTS),
    ("qwen2_moe", "Qwen2Moe", "ForSequenceClassification", EXPERTS),
    ("phi3", "Phi3", "ForSequenceClassification", {**CAUSAL, "eos_token_id": 2}),
    ("olmo", "Olmo", "ForSequenceClassification", CAUSAL),
    ("diff_llama", "DiffLlama", "ForSequenceClassification", CAUSAL),
    ("glm", "Glm", "ForSequenceClassification", {**CAUSAL, "head_dim": 12}),
    ("persimmon", "Persimmon", "ForSequenceClassification", CAUSAL),
    ("starcoder2", "Starcoder2", "ForSequenceClassification", CAUSAL),
    ("doge", "Doge", "ForSequenceClassification", CAUSAL),
    ("eurobert", "EuroBert", "ForSequenceClassification", {**CAUSAL, "mask_token_id": 4}),
    ("umt5", "UMT5", "EncoderModel", {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4}),
    ("switch_transformers", "SwitchTransformers", "EncoderModel", {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_sparse_encoder_layers": 1, "num_heads": 4, "num_experts": 3, "expert_capacity": 64}),
]

for name, prefix, suffix, options in TEXT:
    add(f"hf_{name}", "transformers", hugging_face(prefix, suffix, options, "inputs" if name == "perceiver" else "input_ids"), (12,), "text", word_embedding)


class States(nn.Module):
    """The mean of a model's last states under a linear head."""

    def __init__(self, model, width):
        super().__init__()
        self.model = model
        self.head = nn.Linear(width, CLASSES)

    def forward(self, value):
        return self.head(self.model(value, use_cache=False).last_hidden_state.mean(1))


def states(prefix, options):
    def build():
        import transformers

        config = getattr(transformers, f"{prefix}Config")(**options)
        config.use_cache = False
        return States(getattr(transformers, f"{prefix}Model")(config), config.hidden_size)

    return build


STATE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
for name, prefix, options in [
    ("mamba", "Mamba", STATE),
    ("falcon_mamba", "FalconMamba", STATE),
    ("mamba2", "Mamba2", {**STATE, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4}),
    ("rwkv", "Rwkv", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64, "context_length": 16}),
    ("recurrent_gemma", "RecurrentGemma", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 64, "lru_width": 32, "attention_window_size": 8}),
    ("lfm2", "Lfm2", {**CAUSAL, "layer_types": ["conv", "full_attention"]}),
]:
    add(f"hf_{name}", "transformers", states(prefix, options), (8,), "text", lambda module: module.model.get_input_embeddings())

PICTURES = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
for name, prefix, suffix, options, argument, sample in [
    ("cvt", "Cvt", "ForImageClassification", {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}, "pixel_values", (3, 64, 64)),
    ("donut_swin", "DonutSwin", "ForImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, "pixel_values", (3, 32, 32)),
    ("perceiver_conv", "Perceiver", "ForImageClassificationConvProcessing", {"d_latents": 32, "num_latents": 8, "num_blocks": 1, "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 1}, "inputs", (3, 224, 224)),
    ("timesformer", "Timesformer", "ForVideoClassification", {**PICTURES, "num_frames": 4}, "pixel_values", (4, 3, 32, 32)),
    ("videomae", "VideoMAE", "ForVideoClassification", {**PICTURES, "num_frames": 4}, "pixel_values", (4, 3, 32, 32)),
    ("vivit", "Vivit", "ForVideoClassification", {**PICTURES, "num_frames": 4, "tubelet_size": [2, 8, 8]}, "pixel_values", (4, 3, 32, 32)),
    ("whisper", "Whisper", "ForAudioClassification", {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 96, "num_mel_bins": 16, "max_source_positions": 20, "classifier_proj_size": 24, "vocab_size": VOCABULARY, "decoder_layers": 1, "pad_token_id": 0}, "input_features", (16, 40)),
    ("unispeech", "UniSpeech", "ForSequenceClassification", SPEECH, "input_values", (800,)),
    ("wavlm", "WavLM", "ForSequenceClassification", {**SPEECH, "num_buckets": 16, "max_bucket_distance": 40}, "input_values", (800,)),
    ("sew", "SEW", "ForSequenceClassification", {**SPEECH, "squeeze_factor": 2}, "input_values", (800,)),
    ("sew_d", "SEWD", "ForSequenceClassification", {**SPEECH, "squeeze_factor": 2, "position_buckets": 16, "max_position_embeddings": 64}, "input_values", (800,)),
    ("data2vec_audio", "Data2VecAudio", "ForSequenceClassification", {**SPEECH, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}, "input_values", (800,)),
    ("wav2vec2_conformer", "Wav2Vec2Conformer", "ForSequenceClassification", {**SPEECH, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 5}, "input_values", (800,)),
    ("wav2vec2_bert", "Wav2Vec2Bert", "ForSequenceClassification", {**SPEECH, "feature_projection_input_dim": 16, "conv_depthwise_kernel_size": 5, "position_embeddings_type": "relative_key", "left_max_position_embeddings": 8, "right_max_position_embeddings": 4}, "input_features", (24, 16)),
]:
    add(f"hf_{name}", "transformers", audio(prefix, suffix, options, argument), sample, "image" if argument in ("pixel_values", "inputs") and len(sample) == 3 else "other")


class Predictions(nn.Module):
    """A model of time series, whose logits are called predictions."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, value):
        return self.model(past_values=value)[0]


def time_series(prefix, suffix, options):
    return lambda: Predictions(hugging_face(prefix, suffix, options, "past_values")().model)


for name, prefix, suffix, options in [
    ("patch_tst", "PatchTST", "ForClassification", {"num_input_channels": 3, "num_targets": CLASSES, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 24, "num_attention_heads": 4, "ffn_dim": 48, "num_hidden_layers": 2, "use_cls_token": True}),
    ("patch_tsmixer", "PatchTSMixer", "ForTimeSeriesClassification", {"num_input_channels": 3, "num_targets": CLASSES, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16, "num_layers": 2}),
]:
    add(f"hf_{name}", "transformers", time_series(prefix, suffix, options), (32, 3), "other")


def imagegpt():
    import transformers

    config = transformers.ImageGPTConfig(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=64, num_labels=CLASSES)
    config._attn_implementation = "eager"
    config.use_cache = False
    return Logits(transformers.ImageGPTForImageClassification(config), "input_ids")


add("hf_imagegpt", "transformers", imagegpt, (12,), "text", word_embedding)


def t5gemma():
    import transformers

    config = transformers.T5GemmaModuleConfig(**{**CAUSAL, "head_dim": 12, "sliding_window": 8})
    config._attn_implementation = "eager"
    whole = transformers.T5GemmaConfig(encoder=config, decoder=config, is_encoder_decoder=False)
    whole._attn_implementation = "eager"
    return EncoderClassifier(transformers.T5GemmaEncoderModel(whole), 48)


add("hf_t5gemma", "transformers", t5gemma, (12,), "text", lambda module: module.model.get_input_embeddings())

# -------------------------------------------------------------------------------------------------------------- custom


class Packed(nn.Module):
    """A recurrent layer over sequences of different lengths."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.layer = layer(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, tokens):
        lengths = 4 + tokens[:, 0] % 6
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, state = self.layer(packed)
        state = state[0] if isinstance(state, tuple) else state
        return self.head(state.transpose(0, 1).flatten(1))


class OwnCell(nn.Module):
    """A cell called in a loop, as people write it."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell(8, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        state = torch.zeros(x.shape[0], 16, dtype=x.dtype)
        state = (state, torch.zeros_like(state)) if isinstance(self.cell, nn.LSTMCell) else state
        for step in range(6):
            state = self.cell(x[:, step], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Routing(nn.Module):
    """Capsules with three rounds of routing by agreement."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 9, 2)
        self.votes = nn.Parameter(torch.randn(1, 4 * 36, CLASSES, 8, 4) * 0.3)

    @staticmethod
    def squash(x):
        square = (x**2).sum(-1, keepdim=True)
        return square / (1 + square) * x / (square + 1e-6).sqrt()

    def forward(self, x):
        x = self.squash(self.first(x).reshape(x.shape[0], 4, 4, 36).permute(0, 1, 3, 2).reshape(x.shape[0], 144, 4))
        votes = (self.votes @ x[:, :, None, :, None]).squeeze(-1)
        weights = torch.zeros_like(votes[..., :1])
        for _ in range(3):
            out = self.squash((weights.softmax(2) * votes).sum(1, keepdim=True))
            weights = weights + (votes * out).sum(-1, keepdim=True)
        return 5 * (out.squeeze(1) ** 2).sum(-1).add(1e-6).sqrt()


class Points(nn.Module):
    """PointNet with a learnt transform, and a graph over nearest neighbours."""

    def __init__(self):
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 9))
        self.edges = nn.Conv2d(6, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        turn = self.transform(x).reshape(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        x = turn @ x
        distances = ((x[:, :, :, None] - x[:, :, None, :]) ** 2).sum(1)
        near = (-distances).topk(4, dim=-1).indices
        around = x.gather(2, near.flatten(1)[:, None].expand(-1, 3, -1)).reshape(*x.shape, 4)
        middle = x[..., None].expand_as(around)
        return self.head(functional.leaky_relu(self.edges(torch.cat([middle, around - middle], 1)), 0.2).amax((2, 3)))


class GraphNetwork(nn.Module):
    """Messages over a fixed graph, summed with scatter; attention over edges."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("source", torch.randint(0, 12, (30,), generator=generator))
        self.register_buffer("target", torch.randint(0, 12, (30,), generator=generator))
        self.message = nn.Linear(10, 16)
        self.score = nn.Linear(10, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        edges = torch.cat([x[:, self.source], x[:, self.target]], 2)
        scores = functional.leaky_relu(self.score(edges)).exp()
        index = self.target[None, :, None]
        total = torch.zeros(x.shape[0], 12, 1, dtype=x.dtype).scatter_add(1, index.expand(x.shape[0], -1, 1), scores)
        messages = self.message(edges) * scores / (total[:, self.target] + 1e-6)
        gathered = torch.zeros(x.shape[0], 12, 16, dtype=x.dtype).scatter_add(1, index.expand(x.shape[0], -1, 16), messages)
        return self.head(torch.tanh(gathered).mean(1))


class Experts(nn.Module):
    """A mixture of experts, the two best of four, as sparse layers do it."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(20, 4)
        self.first = nn.Parameter(torch.randn(4, 20, 32) * 0.2)
        self.second = nn.Parameter(torch.randn(4, 32, CLASSES) * 0.2)

    def forward(self, x):
        weight, index = self.gate(x).softmax(1).topk(2, dim=1)
        weight = weight / weight.sum(1, keepdim=True)
        hidden = functional.gelu(torch.einsum("bi,bkih->bkh", x, self.first[index]))
        return torch.einsum("bkh,bkhc,bk->bc", hidden, self.second[index], weight)


class Sparsemax(nn.Module):
    """A step of TabNet: a mask by sparsemax, by sorting and cumulative sums."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Linear(20, 20)
        self.body = nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, CLASSES))

    def forward(self, x):
        z = 3 * self.mask(x)
        ordered = z.sort(dim=1, descending=True).values
        ranks = torch.arange(1, 21, dtype=x.dtype)
        sums = ordered.cumsum(1) - 1
        support = (ranks * ordered > sums).to(x.dtype).sum(1, keepdim=True)
        threshold = sums.gather(1, support.to(torch.int64) - 1) / support
        return self.body(x * (z - threshold).clamp(min=0) * 20)


class Splines(nn.Module):
    """A Kolmogorov-Arnold layer: radial basis functions on a grid."""

    def __init__(self):
        super().__init__()
        self.grid = nn.Parameter(torch.linspace(0, 1, 6))
        self.first = nn.Linear(20 * 6, 16)
        self.second = nn.Linear(16 * 6, CLASSES)

    def forward(self, x):
        for layer in (self.first, self.second):
            basis = torch.exp(-(((x[..., None] - self.grid) * 4) ** 2))
            x = layer(basis.flatten(1))
        return x


class SoftTrees(nn.Module):
    """Oblivious soft decision trees, as NODE and TEL have them."""

    def __init__(self):
        super().__init__()
        self.choose = nn.Parameter(torch.randn(20, 6, 3))
        self.threshold = nn.Parameter(torch.rand(6, 3))
        self.leaves = nn.Parameter(torch.randn(6, 8, CLASSES))
        codes = torch.tensor([[(leaf >> level) & 1 for level in range(3)] for leaf in range(8)])
        self.register_buffer("codes", codes.to(torch.float32))

    def forward(self, x):
        features = torch.einsum("bf,ftd->btd", x, self.choose.softmax(0))
        right = torch.sigmoid((features - self.threshold) * 5)[:, :, None]
        codes = self.codes.to(x.dtype)
        paths = (right * codes + (1 - right) * (1 - codes)).prod(-1)
        return torch.einsum("btl,tlc->bc", paths, self.leaves)


class Deformable(nn.Module):
    """A convolution whose taps move with what they see."""

    def __init__(self):
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.offset = nn.Conv2d(3, 18, 3, padding=1)
        self.mask = nn.Conv2d(3, 9, 3, padding=1)
        self.conv = DeformConv2d(3, 12, 3, padding=1)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.conv(x, self.offset(x), self.mask(x).sigmoid())
        return self.head(functional.softplus(x).mean((2, 3)))


class Spectrogram(nn.Module):
    """Speech from the waveform: a power spectrogram by Fourier transform, log mel bands, a small network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.bands = nn.Parameter(torch.rand(33, 12) * 0.1)
        self.body = nn.Sequential(nn.Conv1d(12, 16, 3, 2), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, CLASSES))

    def forward(self, x):
        spectrum = torch.stft(x, 64, 16, 64, self.window.to(x.dtype), center=False, return_complex=True)
        spectrum = torch.view_as_real(spectrum)
        power = (spectrum**2).sum(-1)
        return self.body((power.transpose(1, 2) @ self.bands.abs()).add(1e-3).log().transpose(1, 2))


class FourierMixing(nn.Module):
    """Global filters in the frequency domain."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.filter = nn.Parameter(torch.randn(8, 8, 5, 2) * 0.5)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        spectrum = torch.fft.rfft2(x, norm="ortho")
        real, imaginary = spectrum.real, spectrum.imag
        a, b = self.filter[..., 0], self.filter[..., 1]
        turned = torch.complex(real * a - imaginary * b, real * b + imaginary * a)
        return self.head(torch.tanh(torch.fft.irfft2(turned, s=(8, 8), norm="ortho")).mean((2, 3)))


class Temporal(nn.Module):
    """A temporal convolution network with weight normalisation and dilated, causal convolutions."""

    def __init__(self):
        super().__init__()
        from torch.nn.utils.parametrizations import weight_norm

        self.layers = nn.ModuleList(weight_norm(nn.Conv1d(8 if level == 0 else 16, 16, 3, dilation=2**level)) for level in range(3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        for level, layer in enumerate(self.layers):
            y = functional.rrelu(layer(functional.pad(x, (2 * 2**level, 0))), training=False)
            x = y + x if level else y
        return self.head(x[:, :, -1])


class Maxout(nn.Module):
    """Maxout, local response normalisation, stochastic-free pooling by powers, and other things of the year 2013."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 5, 2)
        self.norm = nn.LocalResponseNorm(3, 0.01)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = x.reshape(x.shape[0], 12, 2, *x.shape[2:]).amax(2)
        return self.head(functional.lp_pool2d(functional.softsign(x), 2.0, 3, 2).mean((2, 3)))


class Memory(nn.Module):
    """A modern Hopfield layer: patterns retrieved by attention, two steps."""

    def __init__(self):
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(24, 20))
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x):
        for _ in range(2):
            x = self.norm(functional.scaled_dot_product_attention(x[:, None], self.patterns[None], self.patterns[None], scale=0.7).squeeze(1))
        return self.head(x)


class FactorisationMachine(nn.Module):
    """Second-order interactions, a cross network, and a log-sum-exp at the end."""

    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.randn(20, 8) * 0.3)
        self.cross = nn.ModuleList(nn.Linear(20, 20) for _ in range(2))
        self.head = nn.Linear(28, CLASSES)

    def forward(self, x):
        pairs = 0.5 * ((x @ self.factors) ** 2 - (x**2) @ (self.factors**2))
        y = x
        for layer in self.cross:
            y = x * layer(y) + y
        logits = self.head(torch.cat([pairs, y], 1))
        return logits - torch.logsumexp(logits, 1, keepdim=True)


class Sinusoidal(nn.Module):
    """Sinusoidal layers on coordinates and values, with minima, maxima, powers and arctangents."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(20, 32)
        self.second = nn.Linear(32, 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        x = torch.sin(3 * self.first(x))
        y = torch.atan2(x, 2 + torch.cos(self.second(x)))
        return self.head(torch.maximum(x, y) + torch.pow(y.abs() + 0.1, 1.5) + torch.erf(x) + torch.hypot(x, y + 3))


for name, build in [("packed_lstm", lambda: Packed(nn.LSTM)), ("packed_gru", lambda: Packed(nn.GRU))]:
    add(f"custom_{name}", "custom", build, (12,), "text", token_embedding)
for name, build, sample in [
    ("lstm_cell", lambda: OwnCell(nn.LSTMCell), (6, 8)),
    ("gru_cell", lambda: OwnCell(nn.GRUCell), (6, 8)),
    ("points", Points, (3, 24)),
    ("graph_network", GraphNetwork, (12, 5)),
    ("experts", Experts, (20,)),
    ("sparsemax", Sparsemax, (20,)),
    ("splines", Splines, (20,)),
    ("soft_trees", SoftTrees, (20,)),
    ("spectrogram", Spectrogram, (400,)),
    ("temporal", Temporal, (8, 40)),
    ("memory", Memory, (20,)),
    ("factorisation_machine", FactorisationMachine, (20,)),
    ("sinusoidal", Sinusoidal, (20,)),
]:
    add(f"custom_{name}", "custom", build, sample, "other")
for name, build, sample in [
    ("routing", Routing, (1, 20, 20)),
    ("deformable", Deformable, (3, 16, 16)),
    ("fourier_mixing", FourierMixing, (3, 32, 32)),
    ("maxout", Maxout, (3, 32, 32)),
]:
    add(f"custom_{name}", "custom", build, sample)
