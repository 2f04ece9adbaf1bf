"""Small causal language models in folders: random ones of several kinds, and a GPT-2 that is trained on behaviour."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported


def tokenizer_of(texts, size=300):
    """Byte-level BPE, as GPT-2 has it, trained on these texts."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<end>", eos_token="<end>")


def config_of(kind, vocabulary, width=32, positions=128):
    import transformers

    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=width, n_layer=2, n_head=4, n_positions=positions, bos_token_id=0,
            eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
    common = {
        "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": positions, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "bloom":  # no positions of its own, and other names
        return transformers.BloomConfig(vocab_size=vocabulary, hidden_size=width, n_layer=2, n_head=4)
    if kind == "mamba":  # a recurrence: there are no keys and values to share
        return transformers.MambaConfig(vocab_size=vocabulary, hidden_size=width, num_hidden_layers=2, state_size=4)
    if kind == "bert":
        return transformers.BertConfig(**common, intermediate_size=64)
    if kind == "opt":  # positions by the mask
        return transformers.OPTConfig(**common, ffn_dim=64, word_embed_proj_dim=width, dropout=0.0)
    if kind == "gpt_neox":
        return transformers.GPTNeoXConfig(**common, intermediate_size=64)
    grouped = {"num_key_value_heads": 2, "intermediate_size": 64}
    kinds = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen3": transformers.Qwen3Config,
    }
    more = {"sliding_window": 12} if kind == "mistral" else {"head_dim": 8} if kind == "qwen3" else {}
    return kinds[kind](**common, **grouped, **more)


def save_model(folder, texts, kind="gpt2", seed=0, steps=0, **sizes):
    """A model in a folder, with its tokenizer; trained for ``steps`` steps on the texts."""
    import torch
    import transformers

    tokenizer = tokenizer_of(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config_of(kind, len(tokenizer), **sizes))
        if steps:
            train(model, tokenizer, texts, steps, seed)
        with torch.no_grad():
            for parameter in model.parameters() if not steps else ():
                if parameter.ndim > 1:
                    parameter.mul_(4)  # random weights of the usual size say the same of every title
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(model, tokenizer, texts, steps, seed, batch=16, rate=3e-3):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps this small wait for one another
    rows = [tokenizer(text)["input_ids"][:96] for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = [rows[i] for i in torch.randint(len(rows), (batch,), generator=generator)]
        ids = torch.full((batch, max(map(len, chosen))), 0)
        for row, one in zip(ids, chosen, strict=True):
            row[: len(one)] = torch.tensor(one)
        labels = torch.where(torch.arange(ids.shape[1])[None] < torch.tensor([[len(c)] for c in chosen]), ids, -100)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
