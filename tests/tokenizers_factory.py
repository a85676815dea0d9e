"""Small tokenizers of the kinds that differ in what they merge and which special tokens they add."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


def byte_level(merges: list[tuple[str, str]], *, chat: bool = False) -> PreTrainedTokenizerFast:
    """As Qwen2's: no BOS, and a letter may be merged with a quote before it. Only `merges` are merged."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+\"?|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, ["<|start|>", "<|end|>"], chat=chat)


def metaspace(*, bos: bool = True, eos: bool = False, chat: bool = False) -> PreTrainedTokenizerFast:
    """As Llama-2's: spaces are marked in the tokens, BOS (and EOS, if asked for) come from the post-processor."""
    tokens = ["<s>", "</s>", "<unk>", *(chr(code) for code in range(33, 127)), "▁", "\n"]
    merges = [("▁", '"'), ("▁", "K"), ("a", "b")]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    template = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    return _fast(tokenizer, ["<s>", "</s>"], chat=chat, bos_token="<s>", eos_token="</s>", prefix="<s>")


def _fast(
    tokenizer: Tokenizer, specials: list[str], *, chat: bool, prefix: str = "", **named: str
) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    if chat:
        fast.chat_template = prefix + CHAT_TEMPLATE
    return fast
