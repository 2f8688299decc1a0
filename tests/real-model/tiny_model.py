"""Writes a model in llama.cpp's file format: a real architecture and a real tokeniser, but random weights.

Its words are noise, the same at each writing. Everything around the words is real: tokens are counted, the cache holds
what was read before, the window ends where it says. The file has about half a megabyte.
"""

import sys

import gguf
import numpy

WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 4, 128
# What the model could have been trained for; the window that is served is the engine's setting, and smaller.
LONGEST = 8192
SEED = 20261120

# "▁" is a space. Every other character falls back to its bytes, so that any text can be read.
PIECES = (
    ["▁"]
    + list("etaoinshrdlucmfwypvbgkjqxz.,?!'-0123456789")
    + ["▁the", "▁a", "▁to", "▁of", "▁and", "▁in", "▁is", "▁it", "▁that", "▁what", "▁for", "▁on", "▁lease"]
    + ["th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ing", "ion", "ed"]
)

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def vocabulary():
    kind = gguf.TokenType
    words = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    words += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    # A longer piece has a better score than the pieces it is made of, so it is chosen over them.
    ranked = sorted(PIECES, key=len, reverse=True)
    words += [(piece, -float(rank), kind.NORMAL) for rank, piece in enumerate(ranked, start=1)]
    return words


def describe(writer, words):
    writer.add_name("tiny-random")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _, _ in words])
    writer.add_token_scores([score for _, score, _ in words])
    writer.add_token_types([int(kind) for _, _, kind in words])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def fill(writer, words):
    random = numpy.random.default_rng(SEED)

    def weights(name, *shape):
        writer.add_tensor(f"{name}.weight", random.normal(0.0, 0.1, shape).astype(numpy.float32))

    def ones(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, dtype=numpy.float32))

    weights("token_embd", len(words), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm")
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"{block}.{matrix}", WIDTH, WIDTH)
        ones(f"{block}.ffn_norm")
        weights(f"{block}.ffn_gate", HIDDEN, WIDTH)
        weights(f"{block}.ffn_up", HIDDEN, WIDTH)
        weights(f"{block}.ffn_down", WIDTH, HIDDEN)
    ones("output_norm")
    weights("output", len(words), WIDTH)


def main(path):
    words = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, words)
    fill(writer, words)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
