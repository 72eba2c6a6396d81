"""The twenty prompts that the fixtures hold both models to.

Each row is (name, text).  Every text is this project's own, but for the two passages, which are
cut from `tests/fixtures/reference/text.txt` (public domain).  A name in GREEDY is also continued
greedily; a text in CHAT is the one place where control tokens are parsed.
"""

from __future__ import annotations

COMMON = [
    ("fact", "The capital of France is"),
    ("prose", "The lighthouse keeper climbed the stairs every evening at six, lit the lamp, and"),
    ("short", "A"),
    (
        "code-python",
        "def fibonacci(n):\n"
        '    """Return the first n Fibonacci numbers as a list."""\n'
        "    result = []\n"
        "    a, b = 0, 1\n"
        "    for _ in range(n):\n",
    ),
    (
        "code-rust",
        "use std::collections::HashMap;\n\n"
        "/// Counts how often each word occurs.\n"
        "fn count_words(text: &str) -> HashMap<String, usize> {\n"
        "    let mut counts = HashMap::new();\n"
        "    for word in text.split_whitespace() {\n"
        "        *counts",
    ),
    (
        "json",
        '{"name": "omnimini", "license": "MIT OR Apache-2.0", "targets": ["native", "wasm32"], '
        '"limits": {"max_tokens": 4096, "temperature": 0.7},',
    ),
    ("french", "Le petit village se réveille lentement sous la neige. Les enfants courent vers"),
    ("german", "Im Frühling, wenn die Tage länger werden und die Bäume blühen, gehen viele Menschen"),
    ("japanese", "日本の首都は東京です。春になると、桜の花が"),
    ("russian", "Москва — столица России. Каждую зиму река замерзает, и люди"),
    ("numbers", "1, 1, 2, 3, 5, 8, 13, 21,"),
    ("sums", "12 + 30 = 42\n7 * 8 = 56\n100 - 37 = 63\n2048 / 16 = 128\n365 * 24 ="),
    (
        "list",
        "Things to pack for a week in the mountains:\n\n1. Warm socks\n2. A map and a compass\n3. Rain jacket\n4.",
    ),
    (
        "unicode",
        "naïve café — “quoted” … ½ ≠ ∑ 👩\u200d🚀 🇫🇷 e\u0301 \u00a0ﬁ ไทย हिन्दी العربية 한국어 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 is",
    ),
    (
        "spaces",
        "   three leading spaces\n\n\n\tone tab\t\ttwo tabs\n        eight spaces    and   a  few more \r\n\n",
    ),
    (
        "dialogue",
        "Question: How many legs does a spider have?\nAnswer: Eight.\n"
        "Question: What do bees make?\nAnswer: Honey.\n"
        "Question: What is the largest planet in the solar system?\nAnswer:",
    ),
]

CHAT = {
    "smollm2-135m-instruct": [
        (
            "chat",
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "chat-turns",
            "<|im_start|>system\nAnswer in one short sentence.<|im_end|>\n"
            "<|im_start|>user\nWhat is the boiling point of water?<|im_end|>\n"
            "<|im_start|>assistant\nWater boils at 100 degrees Celsius at sea level.<|im_end|>\n"
            "<|im_start|>user\nAnd in Fahrenheit?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
    # The 270M checkpoint is a base model, but its vocabulary has the turn markers.
    "gemma-3-270m": [
        (
            "chat",
            "<start_of_turn>user\nWhy is the sky blue?<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "markup",
            "<h1>Weather today</h1>\n<ul>\n<li>Oslo: <strong>snow</strong></li>\n<li>Rome: ",
        ),
    ],
}

# Passages from the text: (name, where it starts, characters).  Gemma's window is 512 tokens:
# the first passes it once, the second twice over.
PASSAGES = [
    ("passage", "  `Curiouser and curiouser!' cried Alice", 2600),
    ("long", "  The Caterpillar and Alice looked at each other", 6000),
]

GREEDY = ["fact", "prose", "code-python", "french", "numbers", "list", "chat", "long"]


def prompts(model: str, text: str) -> list[dict]:
    """Returns the twenty prompts of `model`, as {name, text, special}."""
    rows = [{"name": n, "text": t, "special": False} for n, t in COMMON]
    rows += [{"name": n, "text": t, "special": True} for n, t in CHAT[model]]
    for name, start, length in PASSAGES:
        at = text.index(start)
        rows.append({"name": name, "text": text[at : at + length], "special": False})
    assert len(rows) == 20, len(rows)
    return rows
