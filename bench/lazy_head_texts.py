#!/usr/bin/env python3
"""Whole texts with a head that stays on disk against texts with all rows in memory: tokens that are
the same, for each way of sampling.

    bench/lazy_head_texts.py SmolLM2.gguf [--tokens 10000] [--each 500]

Needs what `renga regions MODEL` has built. Every text is a raw continuation, drawn once with each
head; what is compared are the bytes of the texts and the number of their tokens.
"""
import argparse
import pathlib
import re
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PROMPTS = ("The history of the bicycle begins", "Once upon a time in a small village",
           "The three most important rules of chess are", "Water boils at a lower temperature",
           "In the year 1850 the city of London", "My grandmother used to say that",
           "The moon moves around the earth", "To bake a good loaf of bread you need",
           "A computer is a machine that", "The old captain looked at the sea and",
           "日本の四季は", "むかしむかし、あるところに")
SAMPLINGS = {
    "greedy": [],
    "top 40": ["--temperature", "0.8", "--top-k", "40"],
    "min-p": ["--temperature", "1.0", "--min-p", "0.05"],
    "seeded": ["--temperature", "0.9"],
}


def answer(arguments, prompt, seed, *extra):
    """(text, tokens, tokens that the head proved, seconds) of one continuation."""
    begin = time.monotonic()
    done = subprocess.run(
        [arguments.binary, "run", arguments.model, prompt, "--raw", "-n", str(arguments.each),
         "--context", str(arguments.each + 64), "--seed", str(seed), "--timings", "-t",
         str(arguments.threads), *extra], capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise SystemExit(f"renga run failed: {said}")
    count = re.search(r"answer (\d+) tokens", said)
    proved = re.search(r"the head proved (\d+) tokens", said)
    return (done.stdout, int(count.group(1)), int(proved.group(1)) if proved else 0,
            time.monotonic() - begin)


def compare(arguments, name, sampling):
    """Prints one line; how many texts were not the same."""
    tokens = proved = texts = different = seed = 0
    seconds = [0.0, 0.0]
    while tokens < arguments.tokens:
        prompt = PROMPTS[seed % len(PROMPTS)] + " " + "and so on " * (seed // len(PROMPTS))
        whole = answer(arguments, prompt, seed, *sampling)
        lazy = answer(arguments, prompt, seed, "--lazy-head", *sampling)
        different += whole[:2] != lazy[:2]
        tokens += whole[1]
        proved += lazy[2]
        texts += 1
        seed += 1
        seconds[0] += whole[3]
        seconds[1] += lazy[3]
    print(f"{name}: {texts} texts of {tokens} tokens, {different} texts differ, {proved} tokens "
          f"proved, {seconds[0]:.0f} s with all rows, {seconds[1]:.0f} s by screen", flush=True)
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=10000, help="of each way (default: 10000)")
    parser.add_argument("--each", type=int, default=500, help="tokens of a text (default: 500)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=SAMPLINGS, help="one way of sampling (default: all)")
    parser.add_argument("--binary", default=str(REPOSITORY / "build" / "release" / "renga"))
    arguments = parser.parse_args()
    wrong = sum(compare(arguments, name, sampling) for name, sampling in SAMPLINGS.items()
                if arguments.only in (None, name))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
