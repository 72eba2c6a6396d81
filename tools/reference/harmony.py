#!/usr/bin/env python3
"""Makes `tests/fixtures/harmony.json`: turns in the harmony format, as its makers' own library reads them.

  TIKTOKEN_ENCODINGS_BASE=FOLDER tools/reference/harmony.py

FOLDER holds `o200k_base.tiktoken`. Needs `openai-harmony==0.0.8` from pip.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

from openai_harmony import (Author, Conversation, HarmonyEncodingName, Message, Role,
                            StreamableParser, load_harmony_encoding)

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/harmony.json"

# What a model may write behind `<|start|>assistant`.
TURNS = [
    "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant<|channel|>final<|message|>"
    "Hi 🙂 €!<|return|>",
    "<|channel|>final<|message|>No thoughts, <b>markup</b> & 日本語<|return|>",
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Zürich"}<|call|>',
    ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
    "<|channel|>analysis<|message|>I need the weather.<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>I look it up.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary"
    '<|constrain|>json<|message|>{"city":"Bern","unit":"c"}<|call|>',
    "<|channel|>analysis to=python code<|message|>1 + 1<|call|>",
    "<|channel|>analysis<|message|>cut off in the midd",
    "<|channel|>analysis<|message|>one<|end|><|start|>assistant<|channel|>analysis<|message|>two<|end|>"
    "<|start|>assistant<|channel|>final<|message|>three<|return|>",
    "<|message|>no channel<|return|>",
]

# Conversations, and what a prompt ends with.
CONVERSATIONS = [
    [("user", "Hi"), ("assistant", "Hello."), ("user", "And now?")],
    [("user", "emoji 🙂, code `x <|end|> y`\n\n  spaces")],
]


def turn(encoding, text):
    """One turn: its ids, and its messages."""
    ids = encoding.encode(text, allowed_special="all")
    parser = StreamableParser(encoding, Role.ASSISTANT)
    for token in ids:
        parser.process(token)
    parser.process_eos()
    messages = [{"channel": m.channel, "recipient": m.recipient, "text": m.content[0].text}
                for m in parser.messages]
    return {"text": text, "ids": ids, "messages": messages}


def conversation(encoding, said):
    """A conversation's ids, ready for the assistant."""
    def message(role, text):
        made = Message.from_author_and_content(Author.new(Role(role), role), text)
        made.author.name = None
        return made.with_channel("final") if role == "assistant" else made
    messages = [message(role, text) for role, text in said]
    ids = encoding.render_conversation_for_completion(Conversation.from_messages(messages),
                                                      Role.ASSISTANT)
    return {"messages": [{"role": r, "content": t} for r, t in said], "ids": ids}


def main():
    """Writes the file."""
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    made = {
        "made_by": "tools/reference/harmony.py",
        "versions": {"openai-harmony": version("openai-harmony")},
        "turns": [turn(encoding, text) for text in TURNS],
        "conversations": [conversation(encoding, said) for said in CONVERSATIONS],
    }
    text = json.dumps(made, ensure_ascii=False, indent=1)
    # Lists of ids on one line.
    text = re.sub(r"\[[\d,\s]+\]", lambda m: " ".join(m[0].split()), text)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
