"""The tokenizer a GGUF file describes, with the pre-tokenizer that its vocabulary was trained with.

A GGUF names its pre-tokenizer by a word, `tokenizer.ggml.pre`; the regex behind it is code in llama.cpp
(src/llama-vocab.cpp). A byte-level vocabulary cut at other places than in training gives other tokens without any
error, so a word this file does not know is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ropewalk.errors import DataError, RopewalkError
from ropewalk.quiet import quiet_transformers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Pretokenizer:
    """How a byte-level vocabulary cuts text before its merges.

    regex: pieces kept together, None for GPT-2's own. digits: every digit is first cut off by itself.
    nfc: text is normalised (the model's own tokenizer does it). whole_words: a word that is a token is taken whole,
    whatever the merges say (`ignore_merges`). bos: the begin token is added unless the file says otherwise.
    """

    regex: str | None = None
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    bos: bool = False


_LLAMA3 = Pretokenizer(regex=LLAMA3, whole_words=True, bos=True)
_QWEN2 = Pretokenizer(regex=QWEN2, nfc=True)
_DIGITS = Pretokenizer(digits=True)
PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    "gpt-2": Pretokenizer(),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": Pretokenizer(regex=TEKKEN, whole_words=True, bos=True),
}


def read_tokenizer(source: Path, metadata: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file: vocabulary, merges, special tokens, chat template, begin token, pre-tokenizer.

    metadata: the file's key-value pairs. Raises `RopewalkError` for a pre-tokenizer that is not known here.
    """
    pretokenizer = find_pretokenizer(source, metadata)
    try:
        with quiet_transformers(warnings=True):
            read: Any = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name, local_files_only=True)
        backend = _without_strangers(read.backend_tokenizer, int(metadata["tokenizer.ggml.tokens"]))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
        raise DataError(f"{source}: its tokenizer can't be read by transformers ({first_line(error)})") from error
    if pretokenizer is not None:
        set_pretokenizer(backend, pretokenizer)
    tokens: dict[str, str] = {
        f"{name}_token": read.convert_ids_to_tokens(metadata[f"tokenizer.ggml.{key}_token_id"])
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    default_bos = pretokenizer.bos if pretokenizer else metadata.get("tokenizer.ggml.model") == "llama"
    prefix = tokens.get("bos_token") if metadata.get("tokenizer.ggml.add_bos_token", default_bos) else None
    suffix = tokens.get("eos_token") if metadata.get("tokenizer.ggml.add_eos_token", False) else None
    backend.post_processor = _template(backend, prefix, suffix)
    context = metadata.get(f"{metadata['general.architecture']}.context_length")
    build: Any = PreTrainedTokenizerFast  # untyped
    tokenizer: PreTrainedTokenizerFast = build(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        chat_template=metadata.get("tokenizer.chat_template"),
        **({"model_max_length": int(context)} if context else {}),
        **tokens,
    )
    return tokenizer


def find_pretokenizer(source: Path, metadata: Mapping[str, Any]) -> Pretokenizer | None:
    """The pre-tokenizer of a byte-level vocabulary; None for one that has none (SentencePiece)."""
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    word = str(metadata.get("tokenizer.ggml.pre"))
    if word not in PRETOKENIZERS:
        raise RopewalkError(
            f"{source}: tokenizer.ggml.pre is {word!r}, known are {', '.join(PRETOKENIZERS)}: with another "
            "pre-tokenizer the model would silently read other tokens; use the model's safetensors checkpoint instead"
        )
    return PRETOKENIZERS[word]


def set_pretokenizer(backend: Tokenizer, pretokenizer: Pretokenizer) -> None:
    """Put `pretokenizer` into a byte-level backend, in place."""
    steps: list[Any] = []
    if pretokenizer.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pretokenizer.regex is not None:
        steps.append(pre_tokenizers.Split(Regex(pretokenizer.regex), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pretokenizer.regex is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.normalizer = normalizers.NFC() if pretokenizer.nfc else None
    backend.model.ignore_merges = pretokenizer.whole_words


PROBE = 'x =  1234 ½ 2nd don\'t HE\'LL\n\n"a" {"k": [1.5]}  été e\u0301té 你好 \u0e01\t🙂   end '


def check_reload(source: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise `RopewalkError` unless the tokenizer that transformers makes of `folder` gives the same tokens.

    transformers picks a tokenizer class by the model's type, and some classes rebuild parts by their own rules.
    """
    with quiet_transformers(warnings=True):
        reloaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    text = PROBE + "".join(tokenizer.all_special_tokens)
    if reloaded(text)["input_ids"] != tokenizer(text)["input_ids"]:
        raise RopewalkError(
            f"{source}: the tokenizer, saved and loaded again as {type(reloaded).__name__}, gives other tokens; "
            "use the model's safetensors checkpoint instead"
        )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _without_strangers(backend: Tokenizer, size: int) -> Tokenizer:
    """Drop added tokens beyond the file's vocabulary: the model has no embedding for them.

    transformers reads byte-level vocabularies with GPT-2's class, which adds "<|endoftext|>" where there is none.
    """
    document = json.loads(backend.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < size]
    cleaned: Tokenizer = Tokenizer.from_str(json.dumps(document))
    return cleaned


def _template(backend: Tokenizer, prefix: str | None, suffix: str | None) -> processors.TemplateProcessing:
    words = [token for token in (prefix, suffix) if token is not None]
    single = " ".join([*([prefix] if prefix else []), "$A", *([suffix] if suffix else [])])
    pair = single + " " + single.replace("$A", "$B")
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(word, backend.token_to_id(word)) for word in dict.fromkeys(words)]
    )
