"""LoRA SFT: seeds to examples (`seeds`, no torch), examples to a model folder (`sft`), and back (`models`)."""
