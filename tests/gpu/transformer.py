# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Hugging Face transformer with random weights generates tokens, greedily and by sampling."""
import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ["HF_HUB_OFFLINE"] = "1"
from check import need, passes, result  # noqa: E402

torch, transformers = need("torch", "transformers")
torch.use_deterministic_algorithms(True)
config = transformers.LlamaConfig(vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
                                  num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
                                  bos_token_id=1, eos_token_id=None, pad_token_id=0)
torch.manual_seed(1)
model = transformers.LlamaForCausalLM(config).half().cuda().eval()
prompt = torch.arange(2, 34, device="cuda").reshape(2, 16)
mask = torch.ones_like(prompt)
for _ in passes():
    with torch.inference_mode():
        tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=48, do_sample=False)
        result("greedy", tokens.cpu().numpy())
        torch.manual_seed(2)
        tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=48, do_sample=True, top_k=50)
        result("sampled", tokens.cpu().numpy())
        result("logits", model(prompt).logits.cpu().numpy())
