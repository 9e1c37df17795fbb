"""LoRA SFT: from seeds to examples (`seeds`, without torch), from examples to a model folder (`sft`)."""
