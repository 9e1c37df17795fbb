"""The loss of labelled positions is TRL's, to the gradients, whatever the model makes of its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "untied": ("LlamaConfig", {"tie_word_embeddings": False}),
    "tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "soft cap, scaled embeddings": ("Gemma2Config", {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 16}),
    "logits multiplied": ("CohereConfig", {"logit_scale": 0.3}),
    "logits divided": ("GraniteConfig", {"logits_scaling": 0.2}),
    "bias of the head": ("PhiConfig", {}),
}
ROWS = [[5, 6, *range(12), *range(11, 1, -1), 2], [10, 3, 4, 2], [7, 11, 4, 10, 8, 8, 2]]


def model_of(name: str, lora: dict[str, Any]) -> Any:
    """A random model in this shape, with every adapter's weights drawn, and a bias of the head that counts."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    kind, options = SHAPES[name]
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, kind)(
        **{**sizes, "num_key_value_heads": 1, "vocab_size": 12, "pad_token_id": 0, "bos_token_id": 1, **options}
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **lora))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):  # for TRL
        object.__setattr__(head, "bias", head.original_module.bias)
    return model


def trained_once(trainer_class: type, model: Any, folder: Path) -> dict[str, Any]:
    """Loss, accuracy and gradients of a batch that is half of a step; the evaluation of the same rows."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig

    data = Dataset.from_list([{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in ROWS])
    arguments = SFTConfig(
        str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        prediction_loss_only=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_eval_batch_size=2,
    )
    tokens = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 2}, unk_token="<pad>"))
    tokens = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<end>")
    trainer = trainer_class(model=model, args=arguments, train_dataset=data, eval_dataset=data, processing_class=tokens)
    model.zero_grad()
    batch = trainer.data_collator(list(data))
    model.train()
    loss = trainer.compute_loss(model, batch, num_items_in_batch=30)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    accuracy = trainer._metrics["train"]["mean_token_accuracy"]
    evaluated = trainer.evaluate()
    return {
        "loss": loss.detach(),
        "accuracy": accuracy,
        "gradients": gradients,
        "evaluated": [evaluated["eval_loss"], evaluated["eval_mean_token_accuracy"]],
    }


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("trained_rows", [False, True])
def test_losses_and_gradients_are_those_of_trl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trained_rows: bool
) -> None:
    import torch
    from trl import SFTTrainer

    from kun.models.loading import embedding_names
    from kun.training import loss
    from kun.training.rows import only_rows

    lora: dict[str, Any] = {"r": 2}
    if trained_rows:
        plain = model_of(name, lora).get_base_model()
        lora["trainable_token_indices"] = {embedding: [10, 11] for embedding in embedding_names(plain)}
    theirs = trained_once(SFTTrainer, model_of(name, lora), tmp_path)
    assert all(gradient.abs().max() > 0 for gradient in theirs["gradients"].values())
    assert 0 < theirs["evaluated"][1] < 1
    for at_once in (loss.LOGITS_AT_ONCE, 24):  # all labels together, two at a time
        monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
        model = model_of(name, lora)
        only_rows(model)
        ours = trained_once(loss.LabelledTrainer, model, tmp_path)
        assert theirs["gradients"].keys() == ours["gradients"].keys()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_batch_without_labels_is_a_loss_of_zero() -> None:
    import torch

    from kun.training.loss import summed_loss

    model = model_of("tied", {"r": 2})
    hidden = torch.zeros((0, 16), requires_grad=True)
    total, right = summed_loss(model, hidden, torch.zeros(0, dtype=torch.long))
    total.backward()  # type: ignore[no-untyped-call]
    assert (total.item(), right) == (0, 0) and hidden.grad is not None


def test_many_labels_need_no_more_logits_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from kun.training import loss

    model, seen = model_of("untied", {"r": 2}), []
    model.get_output_embeddings().register_forward_hook(lambda _, given, logits: seen.append(logits.numel()))
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 24)
    loss.summed_loss(model, torch.zeros((5, 16), requires_grad=True), torch.ones(5, dtype=torch.long))
    assert seen == [24, 24, 12]
