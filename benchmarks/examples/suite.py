"""Models of transformers as cases, run by `pytest benchmarks/examples`.

A causal language model with a static cache, whose prefill and decode are two parts of one model, and a BERT that is
called with what its tokenizer returns. Random weights, small configurations; nothing is downloaded.
"""

from __future__ import annotations

import inspect
from typing import Any

import trtgate

VOCABULARY, PROMPT, CACHE = 1000, 16, 64
SETTINGS: dict[str, Any] = {"frontends": ("eager", "dynamo"), "precisions": ("fp32", "fp16")}


@trtgate.model(parts=("prefill", "decode"), **SETTINGS)
def llama(batch: int) -> dict[str, Any]:
    """Return prefill, which fills an empty cache with a prompt, and decode, one token behind that prompt."""
    import torch

    torch.manual_seed(0)
    prompt = torch.randint(1, VOCABULARY, (batch, PROMPT))
    token = torch.randint(1, VOCABULARY, (batch, 1))
    module = _with_static_cache(batch)
    filled = _with_static_cache(batch)
    with torch.no_grad():
        filled(prompt, torch.tensor(0))
    return {
        "prefill": (module, (), {"input_ids": prompt, "position": torch.tensor(0)}),
        "decode": (filled, (), {"input_ids": token, "position": torch.tensor(PROMPT)}),
    }


def _with_static_cache(batch: int) -> Any:
    """Return a seeded causal language model that keeps the keys and values of all tokens so far in its buffers.

    They are buffers, so that they are cast and moved with the module, and exported as its state.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CACHE,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    # transformers renamed the argument in 5.x
    argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    class WithStaticCache(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            size = (batch, config.num_key_value_heads, CACHE, config.head_dim)
            for number in range(config.num_hidden_layers):
                self.register_buffer(f"keys_{number}", torch.zeros(size))
                self.register_buffer(f"values_{number}", torch.zeros(size))

        def forward(self, input_ids: Any, position: Any) -> Any:
            """Return the logits of the tokens, of which `position` is the number of tokens before them."""
            cache = StaticCache(config=config, max_cache_len=CACHE)
            for number, layer in enumerate(cache.layers):
                keys, values = self.get_buffer(f"keys_{number}"), self.get_buffer(f"values_{number}")
                layer.lazy_initialization(keys[:, :, :1], values[:, :, :1])
                layer.keys, layer.values, layer.cumulative_length = keys, values, position.clone()
            return self.model(input_ids=input_ids, use_cache=True, **{argument: cache}).logits

    return WithStaticCache().eval()


@trtgate.model(**SETTINGS)
def bert(batch: int) -> Any:
    """Return an encoder and what its tokenizer would return: a mapping is keyword arguments."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    mask = torch.ones(batch, PROMPT, dtype=torch.int64)
    mask[:, PROMPT // 2 :] = 0
    return BertModel(config).eval(), {
        "input_ids": torch.randint(1, VOCABULARY, (batch, PROMPT)),
        "attention_mask": mask,
    }
