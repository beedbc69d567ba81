#!/usr/bin/env python3
"""What approximations and regions of a model cost and save: measured, kept as JSON, drawn as SVG.

  bench/regions_study.py measure MODEL --report report.json --out docs/regions/smollm2.json
  bench/regions_study.py draw docs/regions/*.json --out docs/regions
  bench/regions_study.py tables docs/regions/*.json

`measure` runs `renga perplexity` for every mode that docs/regions.md tells of, and for every layer left
out alone, on the texts that come with renga; what the JSON has already is not run again. `report.json` is
what `renga regions MODEL` writes; its curves are kept in the same JSON, so that drawing needs nothing
else. Perplexity and KL do not depend on how busy the machine is. Times are not measured here.

`draw` needs matplotlib (PyPI). `tables` prints every mode as Markdown.
"""
import argparse
import json
import os
import re
import subprocess
import sys

TEXT = re.compile(r"^(?:(?P<name>\S+): )?perplexity (?P<exact>[\d.]+) over (?P<positions>\d+) .*\n"
                  r"  approximate: perplexity (?P<perplexity>[\d.]+); KL\(exact \|\| approximate\) "
                  r"(?P<kl>[-\d.]+) nats a token, 99th percentile (?P<kl_p99>[-\d.]+); "
                  r"KL\(approximate \|\| exact\) (?P<reverse_kl>[-\d.]+); the same best token in "
                  r"(?P<same>[\d.]+)%", re.M)
SAVED = re.compile(r"approximate: (.*) of the weights' (.*) are not held")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
PARTS = ("layers", "attention", "feed-forward")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure")
    measure.add_argument("model")
    measure.add_argument("--report", required=True, help="report.json of `renga regions` on the model")
    measure.add_argument("--out", required=True, help="JSON to fill")
    measure.add_argument("--renga", default="build/release/renga")
    measure.add_argument("--only", default="", help="modes that match this regular expression")
    draw = commands.add_parser("draw")
    draw.add_argument("studies", nargs="+", help="JSON files of `measure`")
    draw.add_argument("--out", required=True, help="folder for the SVGs")
    tables = commands.add_parser("tables")
    tables.add_argument("studies", nargs="+", help="JSON files of `measure`")
    return parser.parse_args()


def number_of_bytes(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


class Measurement:
    """Fills one JSON file, mode by mode."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.study = {}
        if os.path.exists(arguments.out):
            with open(arguments.out, encoding="utf-8") as file:
                self.study = json.load(file)
        self.modes = self.study.setdefault("modes", {})
        with open(arguments.report, encoding="utf-8") as file:
            self.keep_curves(json.load(file))

    def keep_curves(self, report):
        neurons = report["neurons"]
        self.study.update({
            "model": report["model"], "vocabulary": report["vocabulary"],
            "head_row_bytes": report["head_row_bytes"], "row_caches": report["caches"],
            "row_working_set": report["working_set"], "neuron_caches": neurons["caches"],
            "neuron_working_set": neurons["working_set"], "layers": neurons["layers"],
            "neurons_per_layer": neurons["neurons_per_layer"],
            "screen_bytes": report["screen"]["resident_bytes"]})

    def run(self, name, flags):
        """One mode: figures for each text and what is not held, kept under `name`."""
        if name in self.modes or not re.search(self.arguments.only, name):
            return
        command = [self.arguments.renga, "perplexity", self.arguments.model, "--quiet", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        texts = {}
        for found in TEXT.finditer(done.stdout):
            values = found.groupdict()
            text = values.pop("name") or "all"
            texts[text] = {key: float(value) for key, value in values.items()}
        saved = SAVED.search(done.stderr)
        if saved:
            self.study["weights_bytes"] = number_of_bytes(saved.group(2))
        self.modes[name] = {"texts": texts,
                            "saved_bytes": number_of_bytes(saved.group(1)) if saved else 0}
        with open(self.arguments.out, "w", encoding="utf-8") as file:
            json.dump(self.study, file, indent=1)
            file.write("\n")
        print(name, {text: (round(values["perplexity"], 2), round(values["kl"], 3), values["same"])
                     for text, values in texts.items()}, flush=True)

    def plain(self, mode):
        self.run(mode, ["--approximate", mode])

    def all(self):
        regions = ["--regions", self.arguments.report]
        for percent in (10, 25, 50, 75, 90, 100):
            self.run(f"cold-neurons={percent}%",
                     ["--approximate", f"cold-neurons={percent}%", *regions])
        layers = self.study["layers"]
        for part in PARTS:
            self.plain(f"without-{part}=0-{layers - 1}")
            for layer in range(layers):
                self.plain(f"without-{part}={layer}")
        self.cheapest_layers()
        # Whole blocks of 256 neurons.
        for blocks in (1, 2):
            percent = round(100 * 256 * blocks / self.study["neurons_per_layer"])
            self.plain(f"late-slice={percent}%")
            if blocks == 1:
                self.run(f"late-slice={percent}%, at most 20%",
                         ["--approximate", f"late-slice={percent}%", "--approximate-at-most", "20%"])
        for percent in (1, 5, 10, 25):
            self.plain(f"missing={percent}%")
        self.run("missing=10%, at most 20%",
                 ["--approximate", "missing=10%", "--approximate-at-most", "20%"])
        for percent in (50, 25, 12):
            self.plain(f"hot-rows={percent}%")
            self.run(f"hot-rows={percent}% by regions",
                     ["--approximate", f"hot-rows={percent}%", *regions])

    def cheapest_layers(self):
        """The layers that cost least alone, more and more of them together."""
        for part in PARTS:
            costs = {layer: self.modes.get(f"without-{part}={layer}") for layer in
                     range(self.study["layers"])}
            if None in costs.values():
                continue
            order = sorted(costs, key=lambda layer: costs[layer]["texts"]["all"]["kl"])
            self.study.setdefault("order", {})[part] = order
            for count in (2, 3, 4, 6, 8):
                self.plain(f"without-{part}=" + ",".join(str(layer) for layer in sorted(order[:count])))


def cells(values):
    """One text's figures of a mode."""
    perplexity = f"{values['perplexity']:.2f}" if values["perplexity"] < 1e4 else \
        f"{values['perplexity']:.1e}"
    return [f"{values['exact']:.2f} → {perplexity}", f"{values['kl']:.3f}", f"{values['kl_p99']:.2f}",
            f"{values['reverse_kl']:.3f}", f"{values['same']:.1f}%"]


def print_tables(path):
    with open(path, encoding="utf-8") as file:
        study = json.load(file)
    texts = ("english", "japanese")
    print(f"\n{study['model']}\n\n| mode | saved | " + " | ".join(
        f"{text}: perplexity | KL | 99th percentile | reverse KL | same best" for text in texts) + " |")
    print("|---" * (2 + 5 * len(texts)) + "|")
    for name, mode in study["modes"].items():
        row = [name, f"{mode['saved_bytes'] / 1e6:.1f} MB" if mode["saved_bytes"] else ""]
        for text in texts:
            row += cells(mode["texts"][text])
        print("| " + " | ".join(row) + " |")


def main():
    arguments = parse_arguments()
    if arguments.command == "measure":
        Measurement(arguments).all()
    elif arguments.command == "tables":
        for path in arguments.studies:
            print_tables(path)
    else:
        import regions_plots
        regions_plots.draw(arguments.studies, arguments.out)


if __name__ == "__main__":
    main()
