"""Task files for lm-eval as a user would write them, with their data beside them; nothing is downloaded."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = ("river", "stone", "lamp", "seven", "under", "green", "paper", "tree", "bell", "quiet")
RECORDS = 24

QUESTIONS = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
"""
CHOICE = f"""
task: own_choice
{QUESTIONS}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
num_fewshot: 1
fewshot_split: test
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: brier_score, aggregation: brier_score, higher_is_better: false}}
"""
GENERATE = f"""
task: own_answer
{QUESTIONS}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["q"], max_gen_toks: 6}}
filter_list:
  - name: first
    filter:
      - {{function: regex, regex_pattern: "(.)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
TEXT = f"""
task: own_text
{QUESTIONS}
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{answer}}}}"
"""
ANSWER = f"""
task: own_cloze
{QUESTIONS}
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: " {{{{answer}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
ALL = {"choice": CHOICE, "answer": GENERATE, "text": TEXT, "cloze": ANSWER}


def records(count: int = RECORDS) -> list[dict[str, Any]]:
    """Questions of random words; the answer is one of three."""
    generator = random.Random(0)
    made = []
    for number in range(count):
        choices = generator.sample(WORDS, 3)
        gold = generator.randrange(3)
        question = " ".join(generator.choices(WORDS, k=3 + number % 3))
        made.append({"question": question, "choices": choices, "gold": gold, "answer": choices[gold]})
    return made


def write_tasks(folder: Path, *names: str) -> list[str]:
    """Write these tasks (all by default) and their data; returns the paths of the YAML files."""
    data = folder / "records.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records()))
    return [str(write_yaml(folder, f"{name}.yaml", ALL[name])) for name in names or ALL]


def write_yaml(folder: Path, name: str, text: str) -> Path:
    """A task's YAML that reads the data in the folder."""
    file = folder / name
    file.write_text(text.replace("DATA", str(folder / "records.jsonl")))
    return file


def broken(text: str, old: str, new: str) -> str:
    """The text with a change, which must be one."""
    assert old in text
    return text.replace(old, new)
