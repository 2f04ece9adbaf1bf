"""Small models of images and sounds in folders, made from their configs with random weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported


def _words(folder, words, pad="<pad>"):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<s>", "</s>", pad, "<unk>"]
    table = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token=pad, unk_token="<unk>"
    )
    wrapped.save_pretrained(folder)
    return len(table)


def save_tower(folder, kind, seed=0):
    """A random model of 2 layers with all that loads it."""
    import torch
    import transformers

    words = ["red", "blue", "green", "loud", "low", "a"]
    inner = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    size = {"image_size": 32, "patch_size": 8}
    texts = {"vocab_size": 20, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    square = {"height": 32, "width": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "clip":
            _words(folder, words)
            model = transformers.CLIPModel(
                transformers.CLIPConfig(
                    text_config={**inner, **texts}, vision_config={**inner, **size}, projection_dim=24
                )
            )
            reader = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
        elif kind == "siglip":
            _words(folder, words)
            model = transformers.SiglipModel(
                transformers.SiglipConfig(text_config={**inner, **texts}, vision_config={**inner, **size})
            )
            reader = transformers.SiglipImageProcessorPil(size=square)
        elif kind == "vit":
            model = transformers.ViTModel(transformers.ViTConfig(**inner, **size))
            reader = transformers.ViTImageProcessorPil(size=square)
        elif kind.startswith("wav2vec2"):
            norm = "group" if kind.endswith("group") else "layer"
            model = transformers.Wav2Vec2Model(
                transformers.Wav2Vec2Config(
                    **inner, conv_dim=(32, 32), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
                    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, feat_extract_norm=norm,
                )
            )  # fmt: skip
            reader = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=norm == "layer")
        elif kind == "clap":
            _words(folder, words)
            sound = {
                "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
                "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
                "num_hidden_layers": 2, "projection_dim": 24,
            }  # fmt: skip
            text = {**inner, **texts, "projection_dim": 24, "max_position_embeddings": 19, "pad_token_id": 2}
            model = transformers.ClapModel(
                transformers.ClapConfig(text_config=text, audio_config=sound, projection_dim=24)
            )
            reader = transformers.ClapFeatureExtractor(
                feature_size=16, sampling_rate=8000, hop_length=80, max_length_s=1, fft_window_size=256,
                frequency_max=4000, truncation="rand_trunc", padding="repeatpad",
            )  # fmt: skip
        else:
            raise ValueError(kind)
        model.save_pretrained(folder)
        reader.save_pretrained(folder)
    return folder
