"""The zoo's models of timm, transformers, diffusers and torchvision beyond its classifiers, built from configurations.

Each factory takes a batch size and returns (module, args, kwargs) as the library's documentation calls the model. The
configurations are small but for `FULL_SIZE`: operators and their order are the architecture's, widths and depths not.
Nothing is downloaded. Only `zoo.py` imports this file, when the zoo is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

Made = tuple[Any, ...]
VOCABULARY, TOKENS, CACHE, WIDTH = 1000, 32, 64, 64


def _image(batch: int, size: int, channels: int = 3) -> Any:
    import torch

    return torch.randn(batch, channels, size, size)


def _tokens(batch: int, length: int = TOKENS) -> Any:
    """Return token ids and an attention mask as a tokenizer does, the last quarter of each row padding."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[:, length - length // 4 :] = 0
    return {"input_ids": torch.randint(1, VOCABULARY, (batch, length)), "attention_mask": mask}


# timm


def _timm(name: str, batch: int) -> Made:
    import timm
    import torch

    module = timm.create_model(name, pretrained=False)
    return module, torch.zeros(batch, *module.default_cfg["input_size"])


def _small_timm(name: str, size: int, options: dict[str, Any], batch: int) -> Made:
    import timm

    return timm.create_model(name, pretrained=False, **options), _image(batch, size)


# torchvision


def raft_small(batch: int) -> Made:
    """Optical flow between two images, in 2 updates."""
    from torchvision.models.optical_flow import raft_small

    return raft_small(weights=None), (_image(batch, 128), _image(batch, 128)), {"num_flow_updates": 2}


def r3d_18(batch: int) -> Made:
    """Classification of a video of 4 frames."""
    import torch
    from torchvision.models.video import r3d_18

    return r3d_18(weights=None), (torch.randn(batch, 3, 4, 64, 64),), {}


def retinanet_head(batch: int) -> Made:
    """The head of a detector: logits and boxes of a pyramid of features, which it takes as a list."""
    from torchvision.models.detection.retinanet import RetinaNetHead

    pyramid = [_image(batch, size, WIDTH) for size in (32, 16, 8)]
    return RetinaNetHead(WIDTH, 9, 20), (pyramid,), {}


# transformers


def _transformers(prefix: str, batch: int) -> Made:
    """A model of the size that its configuration has by default, called with token ids alone."""
    import torch
    import transformers

    config = getattr(transformers, f"{prefix}Config")()
    config.use_cache = False
    config.return_dict = False
    return getattr(transformers, f"{prefix}Model")(config), torch.ones(batch, 128, dtype=torch.int64)


def bert_tokens(batch: int) -> Made:
    """An encoder, called with what its tokenizer returns; pooled output too."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    return BertModel(config), (), _tokens(batch)


def t5_encoder(batch: int) -> Made:
    """An encoder with relative positions."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config), (), _tokens(batch)


def whisper_encoder(batch: int) -> Made:
    """An encoder of mel spectrograms."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=WIDTH, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=80,
        max_source_positions=50,
    )  # fmt: skip
    return WhisperEncoder(config), (torch.randn(batch, 80, 100),), {}


def llama_decode(batch: int) -> Made:
    """One step of a decoder: a token for each sequence, behind those that are in the static cache."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CACHE,
    )  # fmt: skip
    module = _with_static_cache(LlamaForCausalLM(config), batch)
    return module, (), {"input_ids": torch.randint(1, VOCABULARY, (batch, 1)), "position": torch.tensor(TOKENS)}


def _with_static_cache(model: Any, batch: int) -> Any:
    """Return a module around a causal language model that holds the keys and values of all tokens so far as buffers."""
    import inspect

    import torch
    from transformers import StaticCache

    argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    class WithStaticCache(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            heads, width = model.config.num_key_value_heads, model.config.head_dim
            for number in range(model.config.num_hidden_layers):
                for name in ("keys", "values"):
                    self.register_buffer(f"{name}_{number}", torch.randn(batch, heads, CACHE, width))

        def forward(self, input_ids: Any, position: Any) -> Any:
            cache = StaticCache(config=model.config, max_cache_len=CACHE)
            for number, layer in enumerate(cache.layers):
                layer.lazy_initialization(
                    *(self.get_buffer(f"{name}_{number}")[:, :, :1] for name in ("keys", "values"))
                )
                layer.keys, layer.values = (self.get_buffer(f"{name}_{number}") for name in ("keys", "values"))
                layer.cumulative_length = position.clone()
            return self.model(input_ids=input_ids, use_cache=True, **{argument: cache}).logits

    return WithStaticCache()


def rt_detr(batch: int) -> Made:
    """A detector: convolutions, an encoder, and a decoder with deformable attention."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[32, 64, 128], encoder_hidden_dim=WIDTH, encoder_ffn_dim=128,
        encoder_attention_heads=4, d_model=WIDTH, decoder_in_channels=[WIDTH] * 3, decoder_ffn_dim=128,
        decoder_layers=2, decoder_attention_heads=4, num_queries=20, num_labels=8,
    )  # fmt: skip
    return RTDetrForObjectDetection(config), (), {"pixel_values": _image(batch, 128)}


def dinov2(batch: int) -> Made:
    """A vision transformer that interpolates its position embeddings."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, image_size=112, patch_size=14)
    return Dinov2Model(config), (), {"pixel_values": _image(batch, 56)}


def clip(batch: int) -> Made:
    """Images and texts, and how alike they are."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**small, "vocab_size": VOCABULARY, "eos_token_id": VOCABULARY - 1},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    return CLIPModel(config), (), {**_tokens(batch), "pixel_values": _image(batch, 64)}


# diffusers


def unet2d_condition(batch: int) -> Made:
    """One step of latent diffusion: noise, a time step, which is a number, and the text's embedding."""
    import torch
    from diffusers import UNet2DConditionModel

    module = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    return module, (_image(batch, 16, 4), 10), {"encoder_hidden_states": torch.randn(batch, TOKENS, 32)}


def flux_transformer(batch: int) -> Made:
    """One step of flow matching: a double-stream and a single-stream block with rotary embeddings."""
    import torch
    from diffusers import FluxTransformer2DModel

    module = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6), guidance_embeds=True,
    )  # fmt: skip
    kwargs = {
        "hidden_states": torch.randn(batch, 64, 16),
        "encoder_hidden_states": torch.randn(batch, TOKENS, 32),
        "pooled_projections": torch.randn(batch, 32),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": torch.stack([torch.zeros(64), torch.arange(64) // 8, torch.arange(64) % 8], dim=1),
        "txt_ids": torch.zeros(TOKENS, 3),
        "joint_attention_kwargs": None,
    }
    return module, (), kwargs


def vae_decoder(batch: int) -> Made:
    """The decoder that makes an image of latents."""
    from diffusers.models.autoencoders.vae import Decoder

    module = Decoder(
        in_channels=4, out_channels=3, up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
    )  # fmt: skip
    return module, (_image(batch, 16, 4),), {}


class ZooModel(NamedTuple):
    """A factory, the precisions in which a run asks for its coverage, and why in no others, where there are none."""

    factory: Callable[[int], Made]
    precisions: tuple[str, ...] = ("fp16", "fp32")
    no_other: str = ""


FULL_SIZE: dict[str, Callable[[int], Made]] = {
    **{
        f"timm.{name}": partial(_timm, name)
        for name in ("convmixer_768_32", "deit3_small_patch16_224", "mixer_s16_224", "mobilevit_s", "regnety_002")
    },
    **{f"transformers.{prefix.lower()}": partial(_transformers, prefix) for prefix in ("Bert", "DistilBert", "GPT2")},
}

SMALL: dict[str, Callable[[int], Made]] = {
    "r3d_18": r3d_18,
    "retinanet_head": retinanet_head,
    "timm.convnextv2_atto": partial(_small_timm, "convnextv2_atto", 64, {}),
    "timm.eva02_tiny": partial(_small_timm, "eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 2}),
    "timm.swinv2_tiny": partial(
        _small_timm, "swinv2_tiny_window8_256", 64, {"img_size": 64, "depths": (1, 1, 1, 1), "window_size": 4}
    ),
    "timm.maxvit_pico": partial(_small_timm, "maxvit_pico_rw_256", 64, {"img_size": 64}),
    "transformers.bert_tokens": bert_tokens,
    "transformers.t5_encoder": t5_encoder,
    "transformers.whisper_encoder": whisper_encoder,
    "transformers.llama_decode": llama_decode,
    "transformers.rt_detr": rt_detr,
    "transformers.dinov2": dinov2,
    "transformers.clip": clip,
    "diffusers.unet2d_condition": unet2d_condition,
    "diffusers.flux_transformer": flux_transformer,
    "diffusers.vae_decoder": vae_decoder,
}

ALL: dict[str, ZooModel] = {
    **{name: ZooModel(factory) for name, factory in FULL_SIZE.items()},
    **{name: ZooModel(factory, ("fp16",)) for name, factory in SMALL.items()},
    "raft_small": ZooModel(
        raft_small, ("fp32",), "it fails in eager too: RAFT gives coordinates of float32 to a convolution"
    ),
}
"""Name → model. What is before a dot is the package that it needs, which is torchvision where there is no dot."""
