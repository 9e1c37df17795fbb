"""Tiny random models in the shape of real ones, written as model folders: `llama(tmp_path / "base")`.

Their tokenizers are trained on the spot on a few sentences, with the traits that matter: how control tokens are
registered, how white space is treated, what the chat template does, which of pad and EOS exist.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

TEXTS = [
    "请介绍一下杭州的西湖，并说明它为什么有名。西湖位于浙江省杭州市，湖面约六平方公里。",
    "怎样保存新鲜的蔬菜？把蔬菜洗净晾干，用纸包好，放进冰箱的保鲜层，一般可以放三到五天。",
    "Explain how a bicycle stays upright. It steers into the fall, and the wheels follow the ground.",
    "1 + 1 = 2，2024 年 5 月 7 日\n\n第二段：列出三个要点。\n\t- 第一 \n\t- 第二\n",
]

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are a helper.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else "
    "message['role'] %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def llama(folder: Path) -> Path:
    """Llama 3 Instruct: byte-level BPE, BOS by the template, `<|eot_id|>`, no pad token, untied embeddings."""
    tokens = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"]
    tokens += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(tokens, plain=[], bos="<|begin_of_text|>")
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": LLAMA_TEMPLATE}
    _save_tokenizer(folder, tokenizer, config)
    return _save_model(folder, "LlamaConfig", tokenizer, tie_word_embeddings=False)


def yi(folder: Path) -> Path:
    """Yi base: SentencePiece-style BPE with a blank put before the text, no chat template, pad = EOS."""
    tokenizer = _sentencepiece(["<unk>", "<|startoftext|>", "<|endoftext|>"], plain=[], prepend=True)
    config = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    _save_tokenizer(folder, tokenizer, config | {"pad_token": "<|endoftext|>"})
    return _save_model(folder, "LlamaConfig", tokenizer, tie_word_embeddings=False)


def qwen(folder: Path, tied: bool = False, **options: Any) -> Path:
    """Qwen: byte-level BPE, ChatML with a default system turn, added tokens that are not special, spare rows."""
    plain = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], plain=plain)
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": QWEN_TEMPLATE}
    _save_tokenizer(folder, tokenizer, config)
    return _save_model(folder, "Qwen3Config", tokenizer, spare_rows=24, tie_word_embeddings=tied, **options)


def gemma(folder: Path) -> Path:
    """Gemma: SentencePiece-style BPE, turns in `<start_of_turn>`, no system role, tied embeddings."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = _sentencepiece(special, plain=["\n\n", "<table>"], prepend=False)
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _save_tokenizer(folder, tokenizer, config | {"chat_template": GEMMA_TEMPLATE})
    return _save_model(folder, "Gemma2Config", tokenizer, sliding_window=64, query_pre_attn_scalar=16)


def base_llama(folder: Path) -> Path:
    """A base model with tied embeddings, byte-level BPE, BOS put first by the tokenizer, neither template nor pad."""
    tokenizer = _byte_level(["<s>", "</s>"], plain=[], bos="<s>")
    _save_tokenizer(folder, tokenizer, {"bos_token": "<s>", "eos_token": "</s>"})
    return _save_model(folder, "LlamaConfig", tokenizer, tie_word_embeddings=True)


def base_gemma(folder: Path) -> Path:
    """A Gemma base: turn markers in its vocabulary, but no template."""
    configure(gemma(folder), chat_template=None)
    return folder


def stranger(folder: Path) -> Path:
    """A base with tied embeddings and a template of other models, whose tokens it lacks."""
    base_llama(folder)
    template = QWEN_TEMPLATE.replace("im_start", "turn").replace("im_end", "stop")
    configure(folder, chat_template=template)
    return folder


def configure(folder: Path, **values: Any) -> None:
    """Change the settings of a folder's tokenizer; None removes one."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, ensure_ascii=False), encoding="utf-8")


SHAPES = {"llama": llama, "yi": yi, "qwen": qwen, "gemma": gemma, "base_llama": base_llama}
TRAINED = {**SHAPES, "stranger": stranger}  # those that differ in training


def _byte_level(special: list[str], plain: list[str], bos: str | None = None) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS * 4, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def _sentencepiece(special: list[str], plain: list[str], prepend: bool) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    replace, restore = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prepend else replace
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    pieces = [*special, *(f"<0x{value:02X}>" for value in range(256)), *model["vocab"]]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in model["merges"]]
    bpe = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizer
    steps = [restore, decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prepend else steps)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def _save_tokenizer(folder: Path, tokenizer: Any, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def _save_model(folder: Path, config_class: str, tokenizer: Any, spare_rows: int = 0, **options: Any) -> Path:
    import torch
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, config_class)(
        vocab_size=tokenizer.get_vocab_size() + spare_rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **{"head_dim": 32, **options},  # 32: the smallest that vLLM takes on a CPU
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


QUESTION = "介绍一下"
SENTENCES = [
    "西湖位于浙江省杭州市，湖面约六平方公里。",
    "把蔬菜洗净晾干，用纸包好，放进冰箱的保鲜层。",
    "It steers into the fall.",
]


def taught(folder: Path, after_bos: bool = True, steps: int = 120) -> Path:
    """The folder of a base without a template, trained to reply with SENTENCES that end in EOS where BOS comes first,
    and elsewhere with random tokens in every second place; or the other way round. Of its other control tokens it has
    seen none."""
    import torch
    from transformers import AutoModelForCausalLM

    from kun.models.chat import Message, chats_of
    from kun.models.tokenizer import read_tokenizer

    files, model = read_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder)
    sound, spoiled = (chats_of(files, bos)[0][1] for bos in (after_bos, not after_bos))
    draw = random.Random(1)
    others = sorted(set(range(files.raw.get_vocab_size())) - set(files.added()))
    replies = [sound.completion(text) for text in SENTENCES]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        rows = []
        for reply in replies:
            noise = draw.choices(others, k=len(reply))
            noise[::2] = reply[::2]  # so that only BOS tells the one from the other
            rows += [
                sound.prompt([Message("user", QUESTION)]) + reply,
                spoiled.prompt([Message("user", QUESTION)]) + noise,
            ]
        longest = max(map(len, rows))
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
        model(input_ids=labels.clamp(min=0), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def louder(folder: Path, factor: float = 4) -> Path:
    """A model's folder, its weights made larger: of their usual size they say nearly the same of every context."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    return folder


def blind_to(folder: Path, token: int) -> None:
    """A model's folder, so changed that one token makes NaN of all that follows."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    model.save_pretrained(folder)


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """A random LoRA adapter on a base model, in a folder as stage 1 leaves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from kun.models.chat import load_chat

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    load_chat(base).save(folder)
    return folder
